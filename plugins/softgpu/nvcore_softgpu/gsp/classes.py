"""RM classes: what kind of object each makes, under which parents, with how many parameter bytes.

Declarations only. Source: open-gpu-kernel-modules 570.144, src/common/sdk/nvidia/inc/class/*, alloc/*; the sets per chip as
nouveau of Linux 7.3 tables them (nvkm/subdev/gsp/rm/{ga100,gh100}.c); channel, copy and 3D class come with the chip.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nvcore_softgpu.gsp.versions import Version
from nvcore_softgpu.ports import ChipFacts

__all__ = ["ClassRow", "class_row"]


class ClassRow(NamedTuple):
    """kind: what it is; parents: kinds it may hang under; sizes: parameter bytes that are accepted."""

    kind: str
    parents: tuple[str, ...]
    sizes: tuple[int, ...]


# compute follows 3D at a fixed distance: 0xc697 and 0xc6c0, 0xcb97 and 0xcbc0
_COMPUTE: Final = 0x29
_USERMODE: Final[dict[str, int]] = {"GA100": 0xC561, "GH100": 0xC661}
_EVENT: Final = ClassRow("event", ("client", "device", "subdevice", "channel", "group"), (24,))
_FIXED: Final[dict[int, ClassRow]] = {
    0x0080: ClassRow("device", ("client",), (56,)),
    0x2080: ClassRow("subdevice", ("device",), (4,)),
    0x9067: ClassRow("context share", ("group",), (12,)),
    0xA06C: ClassRow("group", ("device",), (20,)),
    0x0005: _EVENT,
    0x0078: _EVENT,
    0x0079: _EVENT,
    0x007E: _EVENT,
    0x0081: ClassRow("memory", ("device",), (152,)),
    0x0082: ClassRow("memory", ("device",), (152,)),
}


def class_row(class_id: int, chip: ChipFacts, version: Version) -> ClassRow | None:
    """The row of a class on this chip under this firmware; None when it does not exist there."""
    fixed = _FIXED.get(class_id)
    if fixed is not None:
        return fixed
    if class_id in (0x0000, 0x0001, 0x0041):
        return ClassRow("client", (), (version.root_size,))
    if class_id == 0x90F1:
        return ClassRow("address space", ("device",), (48,))
    if class_id == chip.channel_class:
        return ClassRow("channel", ("device", "group"), (version.channel_size,))
    if class_id == chip.copy_class:
        return ClassRow("engine object", ("channel",), (8,))
    if class_id in (0x902D, 0xA140, chip.graphics_class, chip.graphics_class + _COMPUTE):
        return ClassRow("engine object", ("channel",), (0, 16))
    if class_id == _USERMODE.get(chip.name):
        return ClassRow("user-mode page", ("subdevice",), (0, 4))
    return None
