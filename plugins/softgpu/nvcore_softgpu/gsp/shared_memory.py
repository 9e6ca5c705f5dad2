"""The shared memory block: a byte range that the driver scattered over pages and described by its own page table.

Owns the list of contiguous pieces. Must never touch a byte outside the announced pages. Runs on the caller's thread under the device's
lock.
Source: open-gpu-kernel-modules 570.144, message_queue_cpu.c and gsp_init_args.h (MESSAGE_QUEUE_INIT_ARGUMENTS).
"""

from __future__ import annotations

import struct
from bisect import bisect_right

from nvcore_softgpu.ports import Aperture, Memory

__all__ = ["MAX_PAGES", "PAGE", "BadBlock", "SharedMemory"]

PAGE = 0x1000  # bytes
# 6 times the default command queue is the largest that any driver asks for; anything far above it is garbage
MAX_PAGES = 16384
_SYSTEM = Aperture.SYSTEM


class BadBlock(ValueError):
    """The announced block cannot be used; the text says why."""


class SharedMemory:
    """Offsets of the block to bus addresses, one piece per physically contiguous run."""

    __slots__ = ("_memory", "_pieces", "_starts", "pages", "size")

    def __init__(self, memory: Memory, address: int, count: int) -> None:
        """address: bus address of page 0 of the block, which holds the table; count: entries. Raises BadBlock."""
        if address == 0 or address % PAGE:
            raise BadBlock(f"address {address:#x} is not a page")
        if not 3 <= count <= MAX_PAGES:
            raise BadBlock(f"{count} pages, expected 3 to {MAX_PAGES}")
        self._memory = memory
        self.pages = self._table(address, count)
        self.size = count * PAGE
        self._starts: list[int] = []
        self._pieces: list[tuple[int, int, int]] = []  # offset, end offset, bus address
        for index, page in enumerate(self.pages):
            offset = index * PAGE
            if self._pieces and self._pieces[-1][2] + (offset - self._pieces[-1][0]) == page:
                first, _, bus = self._pieces[-1]
                self._pieces[-1] = (first, offset + PAGE, bus)
            else:
                self._pieces.append((offset, offset + PAGE, page))
                self._starts.append(offset)

    def _table(self, address: int, count: int) -> list[int]:
        pages: list[int] = []
        table_pages = (count * 8 + PAGE - 1) // PAGE
        for index in range(table_pages):
            # the table describes its own pages: page n of it is found through entry n
            where = address if index == 0 else pages[index]
            entries = min(count - len(pages), PAGE // 8)
            pages += struct.unpack(f"<{entries}Q", self._memory.read(_SYSTEM, where, entries * 8))
        if pages[0] != address:
            raise BadBlock(f"entry 0 is {pages[0]:#x}, expected the block itself at {address:#x}")
        for index, page in enumerate(pages):
            if page == 0 or page % PAGE:
                raise BadBlock(f"entry {index} is {page:#x}, not a page")
        if len(set(pages)) != len(pages):
            raise BadBlock("one page is listed twice")
        return pages

    def _runs(self, offset: int, size: int) -> list[tuple[int, int]]:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise BadBlock(f"access of {size:#x} bytes at {offset:#x} leaves the block of {self.size:#x}")
        runs: list[tuple[int, int]] = []
        index = bisect_right(self._starts, offset) - 1
        while size:
            first, end, bus = self._pieces[index]
            part = min(size, end - offset)
            runs.append((bus + offset - first, part))
            offset += part
            size -= part
            index += 1
        return runs

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`. Raises BadBlock outside the block."""
        runs = self._runs(offset, size)
        if len(runs) == 1:
            return self._memory.read(_SYSTEM, runs[0][0], size)
        return b"".join(self._memory.read(_SYSTEM, bus, part) for bus, part in runs)

    def write(self, offset: int, data: bytes) -> None:
        """Store `data` at `offset`. Raises BadBlock outside the block."""
        done = 0
        for bus, part in self._runs(offset, len(data)):
            self._memory.write(_SYSTEM, bus, data[done : done + part])
            done += part

    def read_u32(self, offset: int) -> int:
        """One little-endian word."""
        return int.from_bytes(self.read(offset, 4), "little")

    def write_u32(self, offset: int, value: int) -> None:
        """Store one little-endian word."""
        self.write(offset, value.to_bytes(4, "little"))
