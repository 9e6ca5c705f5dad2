"""vGPU types: one row each, with where it comes from. Data only.

Sizes in bytes. A type fits a GPU of its `chip` whose memory is at least `region` units of 1 GiB. Sources, per row: S2 type table of
vgpudconfig (vGPU 13/14); S3 NVIDIA AI Enterprise documentation, release 6, C-series; S4 open-gpu-kernel-modules 595.45.04,
g_vgpu_chip_flags.h; S7 derived with the placement algorithm of kernel_vgpu_mgr.c of the same tag.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nvcore.api.errors import NotFoundError

__all__ = [
    "CHANNELS", "MACHINE", "TYPES", "VgpuType", "channels_per_vgpu", "find_type", "misfit", "no_types", "type_named", "types_for",
]  # fmt: skip

MIB: Final = 1 << 20
GIB: Final = 1 << 30

MACHINE: Final = "nvcore-vgpu-1"
"""The machine type that new vGPUs are pinned to: guest protocol, configuration space, BARs and identity of this release."""

CHANNELS: Final = 2048
"""Channel ids of a runlist that the split is computed from."""


def channels_per_vgpu(max_instances: int) -> int:
    """The largest power of two that is not above CHANNELS / max_instances."""
    return 1 << ((CHANNELS // max_instances).bit_length() - 1)


class VgpuType(NamedTuple):
    """One type. size, region: in slots of 1 GiB; bring_up: "published" or "model convention"."""

    name: str
    type_id: int
    chip: str
    vgpu_class: str
    size: int
    region: int
    framebuffer: int
    reserved: int
    max_instances: int
    heads: int
    max_width: int
    max_height: int
    frame_rate: int
    bar1_size: int
    encoder_capacity: int
    device_id: int
    subsystem_id: int
    bring_up: str
    source: str

    @property
    def channels(self) -> int:
        """Channel ids of each vGPU, on each runlist."""
        return channels_per_vgpu(self.max_instances)


TYPES: Final = (
    VgpuType(
        name="A100-4C",
        type_id=468,
        chip="GA100",
        vgpu_class="Compute",
        size=4,
        region=40,
        framebuffer=3776 * MIB,
        reserved=320 * MIB,
        max_instances=10,
        heads=1,
        max_width=3840,
        max_height=2400,
        frame_rate=60,
        bar1_size=4096 * MIB,
        encoder_capacity=100,
        device_id=0x20F1,
        subsystem_id=0x1498,
        # Plugins inside the firmware begin with Ada; on GA100 the bring-up through the firmware is this project's convention.
        bring_up="model convention",
        source="S2 S3 S4 S7; bring-up: model convention",
    ),
)
"""Every type that is known."""


def find_type(name: str) -> VgpuType | None:
    """The type of that name, if this release knows it."""
    return next((row for row in TYPES if row.name == name), None)


def type_named(name: str) -> VgpuType:
    """The type of that name. Raises NotFoundError with the known names."""
    found = find_type(name)
    if found is not None:
        return found
    known = ", ".join(row.name for row in TYPES)
    raise NotFoundError(f"no vGPU type {name!r}", expected=known, seen=name, remedy="nvcore vgpu types lists what there is room for")


def types_for(chip: str, memory: int) -> list[VgpuType]:
    """Types that a GPU of this chip and memory size (bytes) can have."""
    return [row for row in TYPES if misfit(row, chip, memory) is None]


def misfit(kind: VgpuType, chip: str, memory: int) -> str | None:
    """Why a GPU of this chip and memory size (bytes) cannot have the type, with the figures; None when it can."""
    if kind.chip != chip:
        return f"{kind.name} is a type of {kind.chip}, and the GPU is a {chip}"
    if memory < kind.region * GIB:
        return f"{kind.name} needs a GPU with {kind.region} GiB of memory, and this one has {memory * 10 // GIB / 10:g} GiB"
    return None


def no_types(chip: str, memory: int) -> str | None:
    """Why a GPU of this chip and memory size (bytes) can have no type at all; None when it can have one."""
    if types_for(chip, memory):
        return None
    small = [misfit(row, chip, memory) or "" for row in TYPES if row.chip == chip]
    return "; ".join(small) or f"no vGPU type of {chip} is known"
