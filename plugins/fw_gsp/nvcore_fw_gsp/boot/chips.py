"""What a boot needs to know of each chip, one row a chip; there is no default row.

Data only. Source: nova-core and nouveau chip tables.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

__all__ = ["BOOT_CHIPS", "BootChip", "BootFlow"]


class BootFlow(Enum):
    """How the firmware gets into the chip."""

    BOOTER_PIO = "booter on SEC2, loaded through the data ports"
    FSP = "chain of trust through the FSP"


class BootChip(NamedTuple):
    """heap_base: bytes of heap of every boot; mirror: where BAR0 shows the configuration space; vgpu_versions: firmware versions with
    which it can be a vGPU host; channel_class, copy_class: of its channels and copy engines; no_vgpu: why not, with other versions."""

    name: str
    flow: BootFlow
    heap_base: int
    mirror: int
    vgpu_versions: tuple[str, ...]
    channel_class: int
    copy_class: int
    no_vgpu: str


BOOT_CHIPS: Final = {
    row.name: row
    for row in (
        BootChip(
            "GA100",
            BootFlow.BOOTER_PIO,
            8 << 20,
            0x88000,
            ("570.144",),
            0xC56F,
            0xC6B5,
            "firmware {version} is driven without its vGPU tasks here",
        ),
        BootChip("GH100", BootFlow.FSP, 14 << 20, 0x92000, (), 0xC86F, 0xC8B5, "GH100 is not driven as a vGPU host yet"),
    )
}
"""Chips that can be booted, by name."""
