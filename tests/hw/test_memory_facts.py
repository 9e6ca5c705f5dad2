"""What the core writes for memory, bit by bit: page-table entries, the window, the invalidate, and what an inventory may say."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvcore.api.inventory import Inventory, MemoryRegion, Range, VgpuSupport
from nvcore.hw.interrupts import USERMODE_DOORBELL
from nvcore.hw.mmu import PRAMIN, PRAMIN_SIZE, invalidate_writes, window_steps
from nvcore.hw.plausible import implausible
from nvcore.hw.pte import FORMATS, page_format

GIB, PAGE = 1 << 30, 0x1000


def test_entries_are_those_of_the_headers() -> None:
    """dev_mmu.h: format 2 has VALID 0, APERTURE 2:1, ADDRESS 32:8; format 3 VALID 0, APERTURE 2:1, PCF 7:3 (a PTE) or 5:3 (a PDE)."""
    assert [(one.version, one.huge(0x12_3460_0000), one.directory(0x12_3456_7000)) for one in FORMATS] == [
        (2, 0x1_2346_0001, 0x1_2345_6702),
        (3, 0x12_3460_0081, 0x12_3456_7012),
    ]
    with pytest.raises(KeyError):
        page_format(1)


@given(address=st.integers(0, 1 << 40), size=st.integers(0, 5 * PRAMIN_SIZE))
def test_the_window_reaches_every_byte_once_and_in_order(address: int, size: int) -> None:
    steps = list(window_steps(address, size))
    assert sum(step for *_, step in steps) == size and all(step > 0 for *_, step in steps)
    at = 0
    for base, place, offset, step in steps:
        assert offset == at and (base << 16) + place - PRAMIN == address + at
        assert place >= PRAMIN and place + step <= PRAMIN + PRAMIN_SIZE, "inside the window"
        at += step
    assert len(steps) <= size // (PRAMIN_SIZE - 0x10000) + 1


def test_an_invalidate_names_its_directory_and_asks_to_be_acknowledged() -> None:
    """dev_vm.h: PDB_ADDR 31:4 of address bits 39:12, upper part above bit 40; ALL_VA, SYS_MEMBAR, ACK_GLOBALLY, TRIGGER; ALL_PDB."""
    assert invalidate_writes(0xAB_1234_5678_9000) == ((0xB830A0, 0x3456_7890), (0xB830A4, 0xAB12), (0xB830B0, 0x8000_00C1))
    assert invalidate_writes(None) == ((0xB830B0, 0x8000_00C3),)


def inventory(**changes: Any) -> Inventory:
    regions = (MemoryRegion(Range(GIB, GIB), True, "clients"), MemoryRegion(Range(0, GIB), False, "firmware"))
    plain = Inventory(
        "a GPU", "GPU-0", 2 * GIB, regions, (), 1, 512, 2 << 20, 2, GIB, None, 0, VgpuSupport(False, 0, "no"), "1.0", frozenset()
    )
    return attrs.evolve(plain, **changes)


def region(start: int, size: int) -> dict[str, Any]:
    return {"regions": (MemoryRegion(Range(start, size), True, "x"),)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"regions": ()}, None),
        ({"vmmu_segment": None}, None),
        ({"first_channel": 512}, None),
        ({"channels": 1 << 16}, None),
        (region(0, 2 * GIB), None),
        (region(0, 2 * GIB + PAGE), "region"),
        (region(-PAGE, GIB), "region"),
        (region(0, 0), "region"),
        (region(0, GIB + 1), "region"),
        (region(1, GIB), "region"),
        ({"regions": (MemoryRegion(Range(0, GIB), True, "a"), MemoryRegion(Range(GIB - PAGE, GIB), True, "b"))}, "overlap"),
        ({"channels": (1 << 16) + 1}, "channels"),
        ({"first_channel": 513}, "channels"),
        ({"first_channel": -1}, "channels"),
        ({"vmmu_segment": 3 << 20}, "segment"),
        ({"vmmu_segment": 0}, "segment"),
        ({"vmmu_segment": -(2 << 20)}, "segment"),
    ],
)
def test_an_inventory_says_only_what_the_hardware_lets_it(changes: dict[str, Any], said: str | None) -> None:
    found = implausible(inventory(**changes))
    assert found is None if said is None else said in (found or "").lower()


def test_an_id_has_the_bits_of_the_doorbell() -> None:
    assert USERMODE_DOORBELL.channel.maximum == (1 << 16) - 1  # type: ignore[attr-defined]
