"""The MMU's registers that the core writes: invalidate, the window into VRAM, the blocks behind BAR1 and BAR2.

Data, and how an access splits into windows. Source: open-gpu-kernel-modules 570.144 dev_vm.h (NV_VIRTUAL_FUNCTION_PRIV_MMU_INVALIDATE*),
dev_bus.h (NV_PBUS_BAR0_WINDOW, NV_PBUS_BAR1_BLOCK), Hopper's dev_xtl_ep_pri.h (NV_XAL_EP_BAR0_WINDOW); Linux 7.3 nouveau nvkm/subdev/mmu.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nvcore.hw.register import Field, Register

__all__ = [
    "INVALIDATE", "INVALIDATE_ALL", "INVALIDATE_ONE", "INVALIDATE_PDB", "INVALIDATE_PDB_HIGH", "PRAMIN", "PRAMIN_SIZE", "WINDOW",
    "WINDOW_HOPPER", "invalidate_writes", "window_steps",
]  # fmt: skip

PRAMIN: Final = 0x700000
"""Where the window into VRAM lies in BAR0."""

PRAMIN_SIZE: Final = 0x100000
"""Bytes of the window; its base moves in steps of 64 KiB."""


def window_steps(address: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """The accesses that reach `size` bytes of VRAM from `address` on through the window, each as (value of WINDOW, offset in BAR0, offset
    from `address`, bytes)."""
    at = 0
    while at < size:
        base, skew = divmod(address + at, 0x10000)
        step = min(size - at, PRAMIN_SIZE - skew)
        yield base, PRAMIN + skew, at, step
        at += step


class INVALIDATE_PDB(Register, offset=0xB830A0):
    """Root directory whose translations are dropped, low part."""

    system = Field(1, 1, "1: the directory lies in system memory")
    frame = Field(31, 4, "address bits 39:12")


class INVALIDATE_PDB_HIGH(Register, offset=0xB830A4):
    """Root directory, high part."""

    high = Field(19, 0, "address >> 40")


class INVALIDATE(Register, offset=0xB830B0):
    """What to drop, and the trigger, which reads one while busy."""

    all_addresses = Field(0, 0, "every virtual address")
    all_directories = Field(1, 1, "every root directory")
    hub_only = Field(2, 2, "only the hub's translations (as behind a BAR)")
    replay = Field(5, 3, "fault replay: 0 none")
    system_membar = Field(6, 6, "order writes to system memory first")
    acknowledge = Field(8, 7, "0 none, 1 global, 2 within the node")
    use_size = Field(22, 22, "a size is given")
    cache_level = Field(26, 24, "0 all levels")
    trigger = Field(31, 31, "1 starts; reads 1 while busy")


INVALIDATE_ONE: Final = INVALIDATE.of(all_addresses=1, system_membar=1, acknowledge=1, trigger=1).raw
"""Drops all that came from the root directory in INVALIDATE_PDB."""

INVALIDATE_ALL: Final = INVALIDATE_ONE | INVALIDATE.all_directories.mask
"""Drops all, whatever root directory it came from."""


def invalidate_writes(pdb: int | None) -> tuple[tuple[int, int], ...]:
    """(register, value) to write, in order, to drop what came from the root directory at `pdb`, or all where it is None."""
    if pdb is None:
        return ((INVALIDATE.OFFSET, INVALIDATE_ALL),)
    low, high = (pdb >> 12) << 4 & 0xFFFFFFF0, pdb >> 40
    return (INVALIDATE_PDB.OFFSET, low), (INVALIDATE_PDB_HIGH.OFFSET, high), (INVALIDATE.OFFSET, INVALIDATE_ONE)


class WINDOW(Register, offset=0x001700):
    """Base of PRAMIN on Turing to Ada."""

    base = Field(23, 0, "address >> 16")
    target = Field(25, 24, "0 video memory, 2 coherent and 3 non-coherent system memory")


class WINDOW_HOPPER(Register, offset=0x10FD40):
    """Base of PRAMIN on Hopper and later."""

    base = Field(22, 0, "address >> 16 (21:0 on GH100)")
