"""BAR1 and BAR2 translated, stale entries, and the modes that registers choose."""

from __future__ import annotations

import itertools
import struct

import pytest

from nvcore_softgpu.ports import Aperture
from tests.softgpu.device_kit import Driver, make_card, names

VRAM = Aperture.VRAM
TABLES = 0x100000


@pytest.fixture
def gpu():
    device, gsp = make_card()
    Driver(device).boot()
    yield device, device.card.model, gsp
    device.close()


def tables(model, first: int = 16 << 20) -> int:
    """Format 2: directories for the first 2 MiB in 4 KiB pages, mapped to `first` upwards; the entry for slot 0 of a root."""
    write = lambda place, value: model.memory.write(VRAM, place, value.to_bytes(8, "little"))  # noqa: E731
    for level in range(3):
        write(TABLES + level * 0x1000 + (8 if level == 2 else 0), (TABLES + (level + 1) * 0x1000) >> 12 << 8 | 2)
    for page in range(512):
        write(TABLES + 0x3000 + 8 * page, (first + page * 4096) >> 12 << 8 | 1)
    return TABLES >> 12 << 8 | 2


def entry(model, page: int, physical: int) -> None:
    model.memory.write(VRAM, TABLES + 0x3000 + 8 * page, (physical >> 12 << 8 | 1).to_bytes(8, "little"))


def test_bar2_is_physical_until_its_entry_arrives_and_again_after_entry_zero(gpu):
    device, model, _ = gpu
    bar2 = device.bars[3]
    bar2.write32(0x2000, 1)
    assert model.memory.vram32[0x2000 >> 2] == 1
    model.set_bar2_entry(tables(model))
    bar2.write32(0x2000, 2)
    assert model.memory.vram32[0x2000 >> 2] == 1
    assert model.memory.vram32[(16 << 20) + 0x2000 >> 2] == 2
    model.set_bar2_entry(0)
    assert bar2.read32(0x2000) == 1
    assert names(device) == []


def test_bar1_goes_to_the_firmwares_directory_and_back_to_physical_on_request(gpu):
    device, model, _ = gpu
    bar1, root = device.bars[1], model.bar_directories()[0]
    assert bar1.read32(0) == 0xFFFFFFFF
    assert names(device) == ["bar1-fault"]
    model.memory.write(VRAM, root, tables(model).to_bytes(8, "little"))
    bar1.write(0x1FF8, b"0123456789abcdef")
    assert model.memory.read(VRAM, (16 << 20) + 0x1FF8, 16) == b"0123456789abcdef"
    device.bars[0].write32(0x1704, 0)
    assert bar1.read32((16 << 20) + 0x1FF8) == int.from_bytes(b"0123", "little")


def test_an_instance_block_can_be_given_to_bar1(gpu):
    device, model, _ = gpu
    tables(model)
    root = 0x200000
    model.memory.write(VRAM, root, (TABLES >> 12 << 8 | 2).to_bytes(8, "little"))
    model.memory.write(VRAM, 0x300200, struct.pack("<II", root | 0xC00, 0))
    device.bars[0].write32(0x1704, 1 << 31 | 0x300000 >> 12)
    device.bars[1].write32(0, 0x77)
    assert model.memory.vram32[16 << 18] == 0x77


def test_a_page_changed_without_an_invalidate_is_seen_at_the_next_access(gpu):
    device, model, _ = gpu
    model.set_bar2_entry(tables(model))
    bar2 = device.bars[3]
    bar2.write32(0x3000, 5)
    bar2.write32(0x3004, 6)
    entry(model, 3, 64 << 20)
    bar2.write32(0x3008, 7)
    assert names(device) == ["stale-translation"]
    assert model.memory.vram32[(16 << 20) + 0x3008 >> 2] == 7
    device.bars[0].write32(0xB830B0, 0x80000001)
    bar2.write32(0x300C, 8)
    assert model.memory.vram32[(64 << 20) + 0xC >> 2] == 8
    assert len(names(device)) == 1


def test_bars_do_not_reach_into_wpr2(gpu):
    device, model, gsp = gpu
    start = gsp.meta["gspFwWprStart"]
    model.set_bar2_entry(tables(model, start))
    bar2 = device.bars[3]
    bar2.write32(0, 0)
    assert bar2.read32(0) == bar2.read32(4) == 0xFFFFFFFF
    assert names(device) == ["wpr2-access"]
    assert model.memory.vram32[start >> 2] != 0


def test_words_bytes_and_blocks_see_the_same_memory(gpu):
    device, model, _ = gpu
    model.set_bar2_entry(tables(model))
    bar2 = device.bars[3]
    bar2.write(0xFFE, b"span")
    assert bar2.read(0xFFE, 4) == b"span"
    bar2.write32(0x1000, 0x04030201)
    assert bar2.read(0x1001, 2) == b"\x02\x03"
    bar2.write(0x1001, b"\xff")
    assert bar2.read32(0x1000) == 0x0403FF01
    bar2.write(0x1008, memoryview(struct.pack("<2I", 7, 8)).cast("I"))
    assert bar2.read32(0x100C) == 8
    bar2.write_port(0x1010, struct.pack("<2I", 1, 2))
    assert bar2.read_port(0x1010, 2) == struct.pack("<2I", 2, 2)


def test_hopper_binds_by_low_and_high_registers():
    device, _ = make_card("GH100")
    model = device.card.model
    root, dual = 0x200000, TABLES + 0x3000
    places = (root, TABLES, TABLES + 0x1000, TABLES + 0x2000, dual)
    for here, following in itertools.pairwise(places):
        model.memory.write(VRAM, here, (following | 2 << 3 | 2).to_bytes(8, "little"))
    model.memory.write(VRAM, dual, ((32 << 20) | 0x10 << 3 | 1).to_bytes(8, "little"))
    model.memory.write(VRAM, 0x300200, struct.pack("<II", root, 0))
    device.bars[0].write32(0xB80F60, 0x300000 | 1 << 9)
    device.bars[0].write32(0xB80F64, 0)
    device.bars[1].write32(0x1234, 9)
    assert model.memory.vram32[(32 << 20) + 0x1234 >> 2] == 9
    assert device.bars[0].read32(0xB80F60) & 3 == 0
    device.close()
