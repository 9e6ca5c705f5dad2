"""A flat map shows video memory from address 0 on: walked as the formats' documents say, not as the builder wrote it."""

from __future__ import annotations

import random

import pytest

from nvcore.hw.pte import page_format
from nvcore.vmm.flat import flat_map, flat_map_size

MIB, GIB = 1 << 20, 1 << 30
AT = 0x12345000
LEVELS = {2: ((47, 2, 8), (38, 9, 8), (29, 9, 8), (21, 8, 16)), 3: ((56, 1, 8), (47, 9, 8), (38, 9, 8), (29, 9, 8), (21, 8, 16))}
"""Of each level from the root on: lowest address bit, bits of its index, bytes of an entry (dev_mmu.h of Pascal and Hopper)."""


def address_of(version: int, entry: int) -> int:
    return (entry >> 8 & (1 << 25) - 1) << 12 if version == 2 else entry & (1 << 52) - 1 & ~0xFFF


def walk(version: int, memory: dict[int, bytes], root: bytes, virtual: int) -> int | None:
    """Where a virtual address leads, through 2 MiB entries; None where nothing is mapped."""
    table, base = root, 0
    for shift, bits, size in LEVELS[version]:
        at = base + (virtual >> shift & (1 << bits) - 1) * size
        entry = int.from_bytes(table[at : at + 8], "little")
        if not entry:
            return None
        if shift == 21:
            assert entry & 1 and entry >> 1 & 3 == 0, "valid, in video memory"
            return address_of(version, entry) + virtual % (2 * MIB)
        assert entry & 7 == 2, "a directory in video memory"
        start = max(known for known in memory if known <= address_of(version, entry))
        table, base = memory[start], address_of(version, entry) - start
    raise AssertionError("no last level")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("window", [2 * MIB, 512 * MIB, 514 * MIB, 40 * GIB])
def test_every_address_of_the_window_leads_to_itself_and_none_behind_it_anywhere(version: int, window: int) -> None:
    form = page_format(version)
    levels = list(flat_map(form, window, AT))
    memory = {at: data for at, data in levels if at is not None}
    root = levels[-1][1]
    assert levels[-1][0] is None and len(root) == 8
    assert sum(map(len, memory.values())) == flat_map_size(form, window)
    ends = [at + len(data) for at, data in memory.items()]
    assert [at for at in memory] == [AT, *ends[:-1]], "tables lie behind one another"
    pick = random.Random(7)
    places = {0, window - 1, *(pick.randrange(window) for _ in range(200)), *(n * 512 * MIB for n in range(-(-window // (512 * MIB))))}
    assert {place: walk(version, memory, root, place) for place in places} == {place: place for place in places}
    assert [walk(version, memory, root, place) for place in (window, window + 2 * MIB)] == [None, None]
