"""The radix3 table: three levels of pages that tell the firmware where each page of a buffer lies.

Owns no memory: it writes into buffers that the caller allocated. Entries are plain bus addresses; unused ones stay zero, as fresh DMA
memory is. Each level is one ramp where its pages are contiguous on the bus, a gather otherwise. Any thread.
Source: Linux 7.3 nova-core firmware/gsp.rs; open-gpu-kernel-modules 570.144 kernel_gsp.c (kgspCreateRadix3).
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final

from nvcore.api.errors import UsageError

if TYPE_CHECKING:
    from nvcore.api.device import DmaBuffer

__all__ = ["PAGE", "Radix3Size", "write_radix3"]

PAGE: Final = 4096
"""Bytes of a page, of a table and of its alignment."""

_PER_PAGE: Final = 512


class Radix3Size:
    """Pages that `size` bytes of data need: `data`, `level2`, `level1`, one root; `tables` is the bytes of the three levels together."""

    __slots__ = ("data", "level1", "level2", "tables")

    def __init__(self, size: int) -> None:
        self.data = -(-size // PAGE)
        self.level2 = -(-self.data // _PER_PAGE)
        self.level1 = -(-self.level2 // _PER_PAGE)
        self.tables = (1 + self.level1 + self.level2) * PAGE
        if size <= 0 or self.level1 > _PER_PAGE:
            raise UsageError("this size has no radix3 table", expected="1 byte to 512 GiB", seen=size)


def write_radix3(tables: DmaBuffer, data: DmaBuffer, size: int) -> int:
    """Describe the first `size` bytes of `data` in `tables` ([root | level 1 | level 2]); returns the root's bus address.

    tables: a fresh buffer of at least `Radix3Size(size).tables` bytes.
    """
    need = Radix3Size(size)
    if tables.size < need.tables or data.size < size:
        raise UsageError("buffer too small for a radix3 table", expected=f"{need.tables} and {size}", seen=f"{tables.size} and {data.size}")
    first1, first2 = PAGE, (1 + need.level1) * PAGE
    _level(tables, 0, tables, first1, need.level1)
    _level(tables, first1, tables, first2, need.level2)
    _level(tables, first2, data, 0, need.data)
    return tables.bus_address(0)


def _level(tables: DmaBuffer, at: int, target: DmaBuffer, first: int, count: int) -> None:
    """Write bus addresses of `count` pages of `target` from byte `first` on at byte `at` of the tables."""
    address = target.bus_address
    if target.contiguous:
        start = address(first)
        entries = array("Q", range(start, start + count * PAGE, PAGE))
    else:
        entries = array("Q", [address(first + index * PAGE) for index in range(count)])
    if sys.byteorder != "little":
        entries.byteswap()
    tables.view[at : at + count * 8] = memoryview(entries).cast("B")
