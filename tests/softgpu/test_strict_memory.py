"""What no path may do: reach the protected region, write a read-only page, go on with a translation whose tables changed."""

from __future__ import annotations

import pytest

from nvcore.testing import VirtualClock
from nvcore_softgpu.ports import Aperture
from tests.softgpu.device_kit import make_card, names
from tests.softgpu.test_engine_channels import DATA, ROOT, Kicker, Space, methods

VRAM = Aperture.VRAM
WPR2 = (0x3000000, 0x3100000)
PAGE0 = 16 << 20  # where the first page of the tests' address space lies


@pytest.fixture
def device():
    made, _ = make_card(clock=VirtualClock())
    made.set_bus_master(True)
    yield made
    made.close()


def physical_copy(source: int, target: int, size: int, launch: int) -> list[int]:
    """A copy whose source (launch bit 12) or target (bit 13) is VRAM past the tables."""
    words = methods(4, 0, 0xC6B5) + methods(4, 0x260, 0, 0)
    return words + methods(4, 0x400, 0, source, 0, target, 0, 0, size, 1) + methods(4, 0x300, 0x182 | launch)


def test_a_physical_copy_does_not_reach_into_the_protected_region(device):
    kicker, memory = Kicker(device), device.card.model.memory
    device.card.model.boot.wpr2 = WPR2
    memory.write(VRAM, WPR2[0], b"SECRET!!")
    kicker.submit(*physical_copy(WPR2[0], DATA, 8, 1 << 12))
    kicker.ring_doorbell()
    assert kicker.space.read(DATA, 8) == b"\xff" * 8
    kicker.space.write(DATA, b"OVERWRIT")
    kicker.submit(*physical_copy(DATA, WPR2[0], 8, 1 << 13))
    kicker.ring_doorbell()
    assert memory.read(VRAM, WPR2[0], 8) == b"SECRET!!"
    assert names(device) == ["wpr2-access"]


def test_a_physical_copy_beside_the_protected_region_is_one(device):
    kicker, memory = Kicker(device), device.card.model.memory
    device.card.model.boot.wpr2 = WPR2
    memory.write(VRAM, WPR2[1], b"mine")
    kicker.submit(*physical_copy(WPR2[1], WPR2[0] - 4, 4, 3 << 12))
    kicker.ring_doorbell()
    assert memory.read(VRAM, WPR2[0] - 4, 4) == b"mine" and names(device) == []


def test_an_engine_does_not_reach_into_the_protected_region_through_its_tables(device):
    kicker, memory = Kicker(device), device.card.model.memory
    device.card.model.boot.wpr2 = (PAGE0 + DATA, PAGE0 + DATA + 0x1000)
    memory.write(VRAM, PAGE0 + DATA, b"SECRET!!")
    kicker.submit(*physical_copy(DATA, DATA + 0x2000, 8, 0))
    kicker.submit(*physical_copy(DATA + 0x2000, DATA, 8, 0))
    kicker.ring_doorbell()
    assert kicker.space.read(DATA + 0x2000, 8) == b"\xff" * 8
    assert memory.read(VRAM, PAGE0 + DATA, 8) == b"SECRET!!" and set(names(device)) == {"wpr2-access"}


@pytest.fixture
def window(device):
    """BAR1 over the tests' address space."""
    space = Space(device)
    device.card.model.bar1.set_root((VRAM, ROOT))
    device.card.model.memory.write(VRAM, PAGE0, b"AAAA")
    return device, device.bars[1], space


def test_bar1_does_not_write_a_read_only_page(window):
    device, bar, space = window
    space.put(ROOT + 3 * 0x1000, PAGE0 >> 12 << 8 | 1 | 1 << 6)
    read = space.memory.read
    for _ in range(2):  # first through the tables, then with the page remembered
        bar.write32(0, 0x42424242)
        bar.write(4, b"more than one word")
        assert read(VRAM, PAGE0, 4) == b"AAAA" and read(VRAM, PAGE0 + 4, 1) == b"\0"
        assert bar.read32(0) == 0x41414141 and bar.read(0, 4) == b"AAAA"
    assert names(device) == ["bar1-fault"]


@pytest.mark.parametrize("level", range(4))
def test_bar1_notices_a_change_at_any_level_without_an_invalidate(window, level):
    device, bar, space = window
    assert bar.read32(0) == bar.read32(0) == 0x41414141
    assert names(device) == []
    space.put(ROOT + level * 0x1000, 0)
    assert bar.read32(0) == bar.read32(0) == 0x41414141, "what is in the cache is used"
    assert names(device) == ["stale-translation"]
    device.card.model.invalidate()
    assert bar.read32(0) == 0xFFFFFFFF
    assert "bar1-fault" in names(device)


def test_bar1_takes_a_change_beside_its_path_as_none(window):
    device, bar, space = window
    bar.read32(0)
    space.put(ROOT + 3 * 0x1000 + 8, 2)  # the second half of an entry whose first half is a page
    space.put(ROOT + 2 * 0x1000 + 8, 2)  # the neighbour of a directory entry
    assert bar.read32(0) == 0x41414141 and names(device) == []
