"""Chips: one row each, decoded from the identification register. Never compare architecture numbers: Hopper lies below Ada.

Source: Linux 7.3 nova-core gpu.rs and nouveau nvkm/engine/device/base.c; open-gpu-kernel-modules 570.144 dev_boot.h.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nvcore.api.errors import DeviceGone, NotSupportedError
from nvcore.api.identity import ChipId
from nvcore.hw.register import Field, Register, RegisterIo, is_bus_error

__all__ = ["BOOT_0", "BOOT_1", "BOOT_42", "CHIPS", "ChipRow", "chip_row", "identify", "read_live"]


class BOOT_0(Register, offset=0x000000):
    """Chip identification. Not guaranteed to encode generations after Blackwell: decode BOOT_42."""

    minor_revision = Field(3, 0, "minor revision")
    major_revision = Field(7, 4, "major revision")
    architecture_high = Field(8, 8, "bit 5 of the architecture")
    implementation = Field(23, 20, "variant inside the architecture")
    architecture = Field(28, 24, "architecture, bits 4:0")


class BOOT_1(Register, offset=0x000004):
    """What kind of function this is."""

    vgpu = Field(17, 16, "0 physical, 1 paravirtual, 2 virtual function")


class BOOT_42(Register, offset=0x000A00):
    """Extended chip identification; must not be read on parts before Fermi."""

    minor_extended = Field(11, 8, "minor extended revision")
    minor_revision = Field(15, 12, "minor revision")
    major_revision = Field(19, 16, "major revision")
    implementation = Field(23, 20, "variant inside the architecture")
    architecture = Field(29, 24, "GPU architecture")


class ChipRow(NamedTuple):
    """One chip: `number` = architecture << 4 | implementation; interrupt_leaves: leaf registers per function; page_tables: format
    version."""

    name: str
    number: int
    family: str
    page_tables: int
    interrupt_leaves: int
    dma_bits: int


CHIPS: Final[tuple[ChipRow, ...]] = (
    ChipRow("TU102", 0x162, "turing", 2, 8, 47),
    ChipRow("TU104", 0x164, "turing", 2, 8, 47),
    ChipRow("TU106", 0x166, "turing", 2, 8, 47),
    ChipRow("TU117", 0x167, "turing", 2, 8, 47),
    ChipRow("TU116", 0x168, "turing", 2, 8, 47),
    ChipRow("GA100", 0x170, "ampere", 2, 8, 47),
    ChipRow("GA102", 0x172, "ampere", 2, 8, 47),
    ChipRow("GA103", 0x173, "ampere", 2, 8, 47),
    ChipRow("GA104", 0x174, "ampere", 2, 8, 47),
    ChipRow("GA106", 0x176, "ampere", 2, 8, 47),
    ChipRow("GA107", 0x177, "ampere", 2, 8, 47),
    ChipRow("GH100", 0x180, "hopper", 3, 16, 52),
    ChipRow("AD102", 0x192, "ada", 2, 8, 47),
    ChipRow("AD103", 0x193, "ada", 2, 8, 47),
    ChipRow("AD104", 0x194, "ada", 2, 8, 47),
    ChipRow("AD106", 0x196, "ada", 2, 8, 47),
    ChipRow("AD107", 0x197, "ada", 2, 8, 47),
    ChipRow("GB100", 0x1A0, "blackwell", 3, 16, 52),
    ChipRow("GB102", 0x1A2, "blackwell", 3, 16, 52),
    ChipRow("GB202", 0x1B2, "blackwell", 3, 16, 52),
    ChipRow("GB203", 0x1B3, "blackwell", 3, 16, 52),
    ChipRow("GB205", 0x1B5, "blackwell", 3, 16, 52),
    ChipRow("GB206", 0x1B6, "blackwell", 3, 16, 52),
    ChipRow("GB207", 0x1B7, "blackwell", 3, 16, 52),
)
"""Every chip that can be identified."""

_BY_NUMBER: Final = {row.number: row for row in CHIPS}
_BY_NAME: Final = {row.name: row for row in CHIPS}


def chip_row(name: str) -> ChipRow:
    """The row of a chip by name. Raises NotSupportedError."""
    row = _BY_NAME.get(name)
    if row is None:
        raise NotSupportedError(f"no chip {name!r}", expected=", ".join(_BY_NAME), seen=name)
    return row


def read_live(io: RegisterIo, offset: int, what: str) -> int:
    """A register, as it reads. Raises DeviceGone naming `what` where that is an error pattern of the bus and not of one access: the chip's
    identity is not there either."""
    raw = io.read32(offset)
    if is_bus_error(raw) and is_bus_error(io.read32(BOOT_0.OFFSET)):
        raise DeviceGone(f"{what} cannot be read", seen=f"{raw:#010x}", where=f"register {offset:#x}")
    return raw


def identify(io: RegisterIo) -> ChipId:
    """The chip behind BAR0 `io`.

    Raises DeviceGone when the bus gives error patterns (powered down, in reset, left), NotSupportedError for a chip without a row and for
    a virtual function.
    """
    boot0 = BOOT_0.read(io)
    if is_bus_error(boot0.raw):
        raise DeviceGone(
            "the GPU cannot be reached",
            expected="a chip id at BAR0 + 0",
            seen=f"{boot0.raw:#010x}",
            remedy="check its power state (d3cold, runtime power management) and the bus; then retry",
        )
    if boot0.architecture_high == 0 and boot0.architecture < 0xC:
        raise NotSupportedError("the chip is older than Turing", seen=f"PMC_BOOT_0 {boot0.raw:#010x}")
    if BOOT_1.read(io).vgpu:
        raise NotSupportedError(
            "this is a virtual function, not a GPU", seen="PMC_BOOT_1 says so", remedy="name the physical function as source"
        )
    boot42 = BOOT_42.read_alive(io)
    number = boot42.architecture << 4 | boot42.implementation
    row = _BY_NUMBER.get(number)
    if row is None:
        raise NotSupportedError(
            f"unknown chip {number:#x}", expected="a chip of the table, Turing or later", seen=f"PMC_BOOT_42 {boot42.raw:#010x}"
        )
    return ChipId(row.name, row.family, f"{boot42.major_revision:x}{boot42.minor_revision:x}")
