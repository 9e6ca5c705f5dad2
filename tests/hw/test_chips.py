"""A chip is told by its identification registers; what is no GPU, or not there, is told from what is merely unknown."""

from __future__ import annotations

import pytest

from nvcore.api.errors import DeviceGone, NotSupportedError
from nvcore.hw.chips import BOOT_0, BOOT_1, BOOT_42, CHIPS, ChipRow, chip_row, identify, read_live

KNOWN = {"TU102": (0x162000A1, 2), "GA100": (0x170000A1, 2), "GA102": (0x172000A1, 2), "GH100": (0x180000A1, 3), "AD102": (0x192000A1, 2)}
"""PMC_BOOT_0 as these chips give it, and the version of their page tables (open-gpu-kernel-modules, nouveau)."""


class Io:
    """Registers by offset; those that are not named read 0."""

    def __init__(self, **values: int) -> None:
        offsets = {"boot0": BOOT_0.OFFSET, "boot1": BOOT_1.OFFSET, "boot42": BOOT_42.OFFSET, "other": 0x1000}
        self.values = {offsets[name]: value for name, value in values.items()}

    def read32(self, offset: int) -> int:
        return self.values.get(offset, 0)

    def write32(self, offset: int, value: int) -> None:
        raise AssertionError("nothing is written to find out what a chip is")


def gpu(row: ChipRow, **more: int) -> Io:
    return Io(**{"boot0": row.number << 20 | 0xA1, "boot42": row.number << 20 | 0xA1 << 12, **more})


@pytest.mark.parametrize("row", CHIPS, ids=lambda row: row.name)
def test_every_chip_of_the_table_is_known_by_its_number(row: ChipRow) -> None:
    chip = identify(gpu(row))
    assert (chip.name, chip.family, chip.revision) == (row.name, row.family, "a1")


def test_the_table_says_what_the_chips_say() -> None:
    for name, (boot0, tables) in KNOWN.items():
        row = chip_row(name)
        assert (row.number, row.page_tables) == (boot0 >> 20 & 0x1FF, tables)
    assert len({row.number for row in CHIPS}) == len({row.name for row in CHIPS}) == len(CHIPS)


@pytest.mark.parametrize("word", [0xFFFFFFFF, 0xBADF1100])
def test_a_bus_that_answers_nothing_is_no_chip(word: int) -> None:
    with pytest.raises(DeviceGone):
        identify(Io(boot0=word))
    with pytest.raises(DeviceGone):
        identify(gpu(chip_row("GA100"), boot42=word))


def test_a_virtual_function_an_old_and_an_unknown_chip_are_told_apart() -> None:
    for kind in (1, 2):
        with pytest.raises(NotSupportedError, match="virtual function"):
            identify(gpu(chip_row("GA100"), boot1=kind << 16))
    with pytest.raises(NotSupportedError, match="older than Turing"):
        identify(Io(boot0=0x0A3000A2))
    with pytest.raises(NotSupportedError, match="unknown chip 0x1ff"):
        identify(Io(boot0=0x1FF000A1, boot42=0x1FF00000))
    with pytest.raises(NotSupportedError, match="no chip 'GA999'"):
        chip_row("GA999")


@pytest.mark.parametrize("word", [0xFFFFFFFF, 0xBADF5040])
def test_an_error_pattern_is_a_value_while_the_chip_still_says_what_it_is(word: int) -> None:
    assert read_live(gpu(chip_row("GA100"), other=word), 0x1000, "it") == word
    with pytest.raises(DeviceGone, match="it cannot be read"):
        read_live(Io(boot0=word, other=word), 0x1000, "it")
