"""The walker against tables that this file writes by hand, from the entry layouts of device-model.md 7."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore_softgpu.journal import Journal
from nvcore_softgpu.memory import PhysicalMemory
from nvcore_softgpu.mmu import Mmu, TranslationFault
from nvcore_softgpu.ports import Aperture

VRAM, SYSTEM = Aperture.VRAM, Aperture.SYSTEM
ROOT = 0x10000


class Tables:
    """Page tables in VRAM, written entry by entry."""

    def __init__(self, version: int) -> None:
        self.journal = Journal()
        self.memory = PhysicalMemory(64 << 20, self.journal)
        self.version = version
        self.mmu = Mmu(self.memory, self.journal, version)
        self.next = ROOT + 0x1000
        self.shifts = (47, 38, 29) if version == 2 else (56, 47, 38, 29)
        self.masks = {56: 1, 47: 3 if version == 2 else 0x1FF, 38: 0x1FF, 29: 0x1FF}

    def put(self, address: int, value: int) -> None:
        self.memory.write(VRAM, address, value.to_bytes(8, "little"))

    def get(self, address: int) -> int:
        return int.from_bytes(self.memory.read(VRAM, address, 8), "little")

    def directory(self, table: int) -> int:
        return (table >> 12 << 8 | 1 << 1) if self.version == 2 else (table | 1 << 1 | 2 << 3)

    def table_of(self, entry: int) -> int:
        return entry >> 8 << 12 if self.version == 2 else entry & ~0xFFF

    def dual(self, va: int) -> int:
        table = ROOT
        for shift in self.shifts:
            place = table + (va >> shift & self.masks[shift]) * 8
            if not self.get(place):
                self.put(place, self.directory(self.next))
                self.next += 0x1000
            table = self.table_of(self.get(place))
        return table + (va >> 21 & 0xFF) * 16

    def page(self, physical: int, system: bool = False, read_only: bool = False) -> int:
        if self.version == 2:
            return physical >> 12 << 8 | (2 << 1 if system else 0) | (1 << 6 if read_only else 0) | 1
        return physical | (2 << 1 if system else 0) | (0x10 | (4 if read_only else 0)) << 3 | 1

    def small(self, va: int) -> int:
        place = self.dual(va) + 8
        if not self.get(place):
            self.put(place, self.directory(self.next))
            self.next += 0x1000
        return self.table_of(self.get(place)) + (va >> 12 & 0x1FF) * 8

    def big(self, va: int) -> int:
        place = self.dual(va)
        if not self.get(place):
            table = self.next + 0x100  # 256-byte aligned is enough
            self.put(place, (table >> 8 << 4 | 1 << 1) if self.version == 2 else (table | 1 << 1 | 2 << 3))
            self.next += 0x1000
        entry = self.get(place)
        table = entry >> 4 << 8 if self.version == 2 else entry & ~0xFF
        return table + (va >> 16 & 0x1F) * 8

    def look(self, va: int):
        return self.mmu.translate((VRAM, ROOT), va)


@pytest.fixture(params=[2, 3])
def tables(request):
    made = Tables(request.param)
    yield made
    made.memory.close()


VA = 0x1_2345_6000_0000 & ((1 << 49) - 1)


def test_a_4_kib_page_of_vram_and_of_system_memory(tables):
    tables.put(tables.small(VA), tables.page(0x123000))
    tables.put(tables.small(VA + 0x1000), tables.page(0x1_2345_6789_0000, system=True, read_only=True))
    first, second = tables.look(VA + 0xABC), tables.look(VA + 0x1000)
    assert (first.aperture, first.physical, first.shift, first.read_only) == (VRAM, 0x123000, 12, False)
    assert (second.aperture, second.physical, second.read_only) == (SYSTEM, 0x1_2345_6789_0000, True)


def test_a_64_kib_page_a_2_mib_page_and_a_512_mib_page(tables):
    tables.put(tables.big(VA), tables.page(0x30000))
    assert (tables.look(VA + 0x8123).shift, tables.look(VA + 0x8123).physical) == (16, 0x30000)
    tables.put(tables.dual(VA + (1 << 21)), tables.page(0x400000))
    assert (tables.look(VA + (1 << 21) + 5).shift, tables.look(VA + (1 << 21) + 5).physical) == (21, 0x400000)
    tables.dual(VA + (1 << 38))
    table = ROOT
    for shift in tables.shifts[:-1]:
        table = tables.table_of(tables.get(table + ((VA + (1 << 38)) >> shift & tables.masks[shift]) * 8))
    tables.put(table + ((VA + (1 << 38)) >> 29 & 0x1FF) * 8, tables.page(0x20000000))
    leaf = tables.look(VA + (1 << 38) + 0x1234567)
    assert (leaf.shift, leaf.physical) == (29, 0x20000000)


def test_an_empty_64_kib_entry_lets_the_small_table_decide(tables):
    tables.put(tables.small(VA), tables.page(0x5000))
    tables.put(tables.big(VA), 0)
    assert tables.look(VA).shift == 12


def test_a_64_kib_entry_can_forbid_the_small_table(tables):
    tables.put(tables.small(VA), tables.page(0x5000))
    tables.put(tables.big(VA), 1 << 5 if tables.version == 2 else 3 << 3)
    with pytest.raises(TranslationFault, match="forbids"):
        tables.look(VA)


def test_sparse_pages_have_no_memory_behind_them(tables):
    tables.put(tables.small(VA), 1 << 3)
    assert tables.look(VA).aperture is None
    tables.put(tables.dual(VA + (1 << 29)), 1 << 3)
    assert tables.look(VA + (1 << 29)).shift == 21


def test_what_is_not_mapped_faults_and_is_not_remembered(tables):
    with pytest.raises(TranslationFault):
        tables.look(VA)
    tables.put(tables.small(VA), tables.page(0x7000))
    assert tables.look(VA).physical == 0x7000


def test_an_address_wider_than_the_format_faults(tables):
    with pytest.raises(TranslationFault, match="wider"):
        tables.look(1 << tables.mmu.bits)


def test_a_changed_entry_without_an_invalidate_is_used_stale_and_reported(tables):
    place = tables.small(VA)
    tables.put(place, tables.page(0x7000))
    assert tables.look(VA).physical == 0x7000
    tables.put(place, tables.page(0x9000))
    assert tables.look(VA).physical == 0x7000
    assert [violation.name for violation in tables.journal.violations] == ["stale-translation"]
    tables.mmu.invalidate()
    assert tables.look(VA).physical == 0x9000
    assert tables.journal.total == 1


def test_a_misaligned_large_page_is_a_violation(tables):
    tables.put(tables.dual(VA), tables.page(0x401000))
    assert tables.look(VA).physical == 0x400000
    assert tables.journal.violations[0].name == "unaligned-page"


@settings(max_examples=150, deadline=None)
@given(data=st.binary(min_size=16, max_size=4096), va=st.integers(0, (1 << 58) - 1), version=st.sampled_from([2, 3]))
def test_any_bytes_as_tables_end_in_a_leaf_or_a_fault(data, va, version):
    made = Tables(version)
    try:
        made.memory.write(VRAM, ROOT, (data * (0x4000 // len(data) + 1))[:0x4000])
        try:
            leaf = made.look(va)
        except TranslationFault:
            return
        assert leaf.base <= va < leaf.base + leaf.size
    finally:
        made.memory.close()
