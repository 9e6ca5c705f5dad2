"""Physical memory as the GPU sees it: VRAM and the system aperture.

Owns VRAM (one reserved address range over a sparse memfd; each shared extent is a sealed memfd of its own mapped over its place, so that
the GPU sees one linear view and no descriptor covers two owners) and the list of DMA maps. Never interprets what it stores. Runs under the
device's lock. Costs only the pages that were touched.
Source: DESIGN 6; device-model.md 2 (maps are a list of intervals, an access may span two); mmap(2), memfd_create(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Final

from nvcore.api.errors import OutOfResources, UsageError
from nvcore_softgpu.ports import Aperture, Violations

__all__ = ["PAGE", "DmaMap", "PhysicalMemory", "sealed_memfd"]

PAGE: Final = 4096  # bytes
TOP: Final = 1 << 64
MAP_FIXED: Final = 0x10
_VRAM: Final = Aperture.VRAM


@cache
def _libc_mmap() -> Callable[..., int | None]:
    """mmap(2) itself: Python's object cannot map over a part of a range."""
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong]
    return function


def sealed_memfd(name: str, size: int) -> int:
    """A zeroed memfd of a size that nobody can change; the caller owns the descriptor."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


class DmaMap:
    """One interval of the system aperture: bus addresses [start, end) over `view`. pages: for each bus page the buffer's page, or None."""

    __slots__ = ("end", "owner", "pages", "readable", "start", "view", "writable")

    def __init__(
        self, start: int, view: memoryview, owner: mmap.mmap | None, readable: bool, writable: bool, pages: Sequence[int] | None
    ) -> None:
        self.start = start
        self.end = start + len(view)
        self.view = view
        self.owner = owner
        self.readable = readable
        self.writable = writable
        self.pages = pages

    def run(self, address: int, size: int) -> tuple[int, int]:
        """Offset in `view` of a bus address inside the interval, and how many of `size` bytes run on from there."""
        offset = address - self.start
        if self.pages is None:
            return offset, min(size, self.end - address)
        inside = offset & (PAGE - 1)
        return self.pages[offset >> 12] * PAGE + inside, min(size, PAGE - inside, self.end - address)

    def close(self) -> None:
        """Unmap what was mapped for this interval."""
        self.view.release()
        if self.owner is not None:
            self.owner.close()


class PhysicalMemory:
    """`ports.Memory`. vram: bytes of VRAM as a view; vram32, vram64: the same as words (hot paths index them directly)."""

    def __init__(self, vram_size: int, violations: Violations) -> None:
        self.vram_size = vram_size
        self.violations = violations
        self.bus_master = False
        self._base = os.memfd_create("softgpu-vram", os.MFD_CLOEXEC)
        os.ftruncate(self._base, vram_size)
        try:
            self._map = mmap.mmap(self._base, vram_size)
        except OSError as problem:
            os.close(self._base)
            raise OutOfResources("no address range for VRAM", expected=f"{vram_size} bytes", seen=str(problem)) from problem
        self.vram = memoryview(self._map)
        self.vram32 = self.vram.cast("I")
        self.vram64 = self.vram[: vram_size & ~7].cast("Q")
        self._anchor: ctypes.c_char | None = ctypes.c_char.from_buffer(self._map)
        self._address = ctypes.addressof(self._anchor)
        self._extents: dict[int, tuple[int, int]] = {}
        self._starts: list[int] = []
        self._maps: list[DmaMap] = []

    # --- VRAM extents -------------------------------------------------------------------------------------------------------------

    def share(self, offset: int, size: int) -> int:
        """Make [offset, offset + size) an extent of its own and return a new descriptor of it (the caller's). Contents are kept.

        Sharing the same extent again gives another descriptor of the same memory. Raises UsageError for misaligned or overlapping extents,
        OSError when there is no descriptor or address range left.
        """
        known = self._extents.get(offset)
        if known is not None and known[0] == size:
            return os.dup(known[1])
        self._check_extent(offset, size)
        with ExitStack() as undo:  # everything that can be refused comes first: a share that fails changes nothing and keeps nothing
            fd = sealed_memfd(f"softgpu-extent-{offset:x}", size)
            undo.callback(os.close, fd)
            copy = os.dup(fd)
            undo.callback(os.close, copy)
            below = mmap.mmap(self._base, size, offset=offset)
            undo.callback(below.close)
            self._copy_touched(fd, offset, size)
            self._over(offset, size, fd, 0)
            undo.pop_all()
        self._extents[offset] = (size, fd)
        below.madvise(mmap.MADV_REMOVE)
        below.close()
        return copy

    def _copy_touched(self, fd: int, offset: int, size: int) -> None:
        """Copy what was touched of a range of VRAM into the extent's own file."""
        position = offset
        while position < offset + size:
            try:
                position = os.lseek(self._base, position, os.SEEK_DATA)
            except OSError:
                break
            if position >= offset + size:
                break
            stop = min(os.lseek(self._base, position, os.SEEK_HOLE), offset + size)
            while position < stop:
                step = min(stop - position, 1 << 20)
                os.pwrite(fd, self.vram[position : position + step], position - offset)
                position += step

    def unshare(self, offset: int) -> int:
        """Take an extent back; its contents are gone (that is the scrub). The bytes freed, 0 when there was no extent."""
        known = self._extents.get(offset)
        if known is None:
            return 0
        size, fd = known
        self._map.madvise(mmap.MADV_REMOVE, offset, size)
        self._over(offset, size, self._base, offset)
        del self._extents[offset]
        os.close(fd)
        return size

    def punch(self, offset: int, size: int) -> None:
        """Zero a page-aligned range by giving its pages back."""
        self._map.madvise(mmap.MADV_REMOVE, offset, size)

    def extents(self) -> dict[int, int]:
        """Shared extents: offset to size."""
        return {offset: size for offset, (size, _) in sorted(self._extents.items())}

    def _check_extent(self, offset: int, size: int) -> None:
        if offset < 0 or size <= 0 or offset % PAGE or size % PAGE or offset + size > self.vram_size:
            raise UsageError("not an extent of VRAM", expected=f"pages inside {self.vram_size:#x}", seen=f"{offset:#x}+{size:#x}")
        for start, (length, _) in self._extents.items():
            if offset < start + length and start < offset + size:
                raise UsageError("extents overlap", expected="one owner, one extent", seen=f"{start:#x}+{length:#x} is shared already")

    def _over(self, offset: int, size: int, fd: int, file_offset: int) -> None:
        result = _libc_mmap()(self._address + offset, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | MAP_FIXED, fd, file_offset)
        if result != self._address + offset:
            raise OSError(ctypes.get_errno(), "mapping an extent over VRAM")

    # --- the system aperture ------------------------------------------------------------------------------------------------------

    def map_file(self, address: int, size: int, fd: int, offset: int, readable: bool = True, writable: bool = True) -> None:
        """Map a client's memory at bus `address`. Raises UsageError (see `nvcore.api.device.Device.map_dma`) and changes nothing then."""
        self.check_range(address, size)
        if offset < 0 or offset % PAGE:
            raise UsageError("a DMA map's file offset is not a multiple of a page", expected="multiple of 0x1000", seen=hex(offset))
        length = os.fstat(fd).st_size
        if offset + size > length:
            raise UsageError("a DMA map's file is too short", expected=f"{offset + size:#x} bytes", seen=f"{length:#x}")
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            owner = mmap.mmap(fd, size, mmap.MAP_SHARED, protection, offset=offset)
        except OSError as problem:
            raise UsageError("a DMA map's file cannot be mapped", seen=str(problem)) from problem
        self._insert(DmaMap(address, memoryview(owner), owner, readable, writable, None))

    def map_view(self, address: int, view: memoryview, pages: Sequence[int] | None = None) -> None:
        """Map the model's own memory (an in-process DMA buffer) at bus `address`."""
        self.check_range(address, len(view))
        self._insert(DmaMap(address, view, None, True, True, pages))

    def check_range(self, address: int, size: int) -> None:
        """Raise UsageError unless [address, address + size) is whole pages, does not wrap and overlaps nothing."""
        if size <= 0 or address < 0 or address % PAGE or size % PAGE:
            raise UsageError("a DMA map is not whole pages", expected="multiples of 0x1000, not empty", seen=f"{address:#x}+{size:#x}")
        if address + size > TOP:
            raise UsageError("a DMA map wraps around", expected="an end below 2**64", seen=f"{address:#x}+{size:#x}")
        at = bisect_right(self._starts, address)
        if (at and self._maps[at - 1].end > address) or (at < len(self._maps) and self._maps[at].start < address + size):
            raise UsageError("DMA maps overlap", expected="a free range", seen=f"{address:#x}+{size:#x}")

    def _insert(self, entry: DmaMap) -> None:
        at = bisect_right(self._starts, entry.start)
        self._starts.insert(at, entry.start)
        self._maps.insert(at, entry)

    def unmap(self, address: int, size: int) -> int:
        """Remove every map that lies wholly inside the range; bytes unmapped."""
        keep: list[DmaMap] = []
        removed = 0
        end = address + size
        for entry in self._maps:
            if entry.start >= address and entry.end <= end:
                removed += entry.end - entry.start
                entry.close()
            else:
                keep.append(entry)
        self._maps = keep
        self._starts = [entry.start for entry in keep]
        return removed

    def maps(self) -> list[tuple[int, int]]:
        """Mapped intervals as (address, size)."""
        return [(entry.start, entry.end - entry.start) for entry in self._maps]

    def _find(self, address: int, write: bool) -> DmaMap | None:
        """The interval that holds a bus address and may be used so; a violation and None otherwise."""
        if not self.bus_master:
            self.violations.violation("dma-without-bus-master", f"{'write' if write else 'read'} at {address & ~0xFFF:#x}")
            return None
        at = bisect_right(self._starts, address) - 1
        if at >= 0:
            entry = self._maps[at]
            if address < entry.end:
                if entry.writable if write else entry.readable:
                    return entry
                self.violations.violation("dma-not-allowed", f"{'write' if write else 'read'} at {address & ~0xFFF:#x}")
                return None
        self.violations.violation("dma-outside-maps", f"{'write' if write else 'read'} at {address & ~0xFFF:#x}")
        return None

    def reachable(self, aperture: Aperture, address: int, size: int) -> bool:
        """Whether every byte of a range would answer a read; no violation."""
        end = address + size
        if aperture is _VRAM:
            return address >= 0 and end <= self.vram_size
        while self.bus_master and address < end:
            at = bisect_right(self._starts, address) - 1
            if at < 0 or self._maps[at].end <= address or not self._maps[at].readable:
                return False
            address = self._maps[at].end
        return address >= end

    # --- accesses -----------------------------------------------------------------------------------------------------------------

    def read(self, aperture: Aperture, address: int, size: int) -> bytes:
        """`size` bytes; all ones where nothing answers."""
        if aperture is _VRAM:
            end = address + size
            if address >= 0 and end <= self.vram_size:
                return bytes(self.vram[address:end])
            self.violations.violation("vram-outside", f"read at {address:#x}")
            inside = max(0, min(end, self.vram_size) - address) if address >= 0 else 0
            return bytes(self.vram[address : address + inside]) + b"\xff" * (size - inside)
        parts = []
        while size > 0:
            entry = self._find(address, False)
            if entry is None:
                step = min(size, PAGE - (address & (PAGE - 1)))
                parts.append(b"\xff" * step)
            else:
                offset, step = entry.run(address, size)
                parts.append(bytes(entry.view[offset : offset + step]))
            address += step
            size -= step
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, aperture: Aperture, address: int, data: bytes | memoryview) -> None:
        """Store bytes; they vanish where nothing answers."""
        size = len(data)
        if aperture is _VRAM:
            end = address + size
            if address >= 0 and end <= self.vram_size:
                self.vram[address:end] = data
                return
            self.violations.violation("vram-outside", f"write at {address:#x}")
            return
        source = memoryview(data)
        done = 0
        while done < size:
            entry = self._find(address + done, True)
            if entry is None:
                step = min(size - done, PAGE - ((address + done) & (PAGE - 1)))
            else:
                offset, step = entry.run(address + done, size - done)
                entry.view[offset : offset + step] = source[done : done + step]
            done += step

    def fill(self, aperture: Aperture, address: int, size: int, value: int) -> None:
        """Fill with one byte. Whole pages of zeros in VRAM are given back instead of written."""
        if aperture is _VRAM and value == 0 and address >= 0 and address + size <= self.vram_size:
            first, last = -(-address // PAGE) * PAGE, (address + size) // PAGE * PAGE
            if last > first:
                self.vram[address:first] = bytes(first - address)
                self.punch(first, last - first)
                self.vram[last : address + size] = bytes(address + size - last)
                return
        block = bytes([value]) * min(size, 1 << 16)
        while size > 0:
            step = min(size, 1 << 16)
            self.write(aperture, address, block[:step])
            address += step
            size -= step

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        if self._base < 0:
            return
        self.unmap(0, TOP)
        self.vram64.release()
        self.vram32.release()
        self.vram.release()
        self._anchor = None
        self._map.close()
        for _, fd in self._extents.values():
            os.close(fd)
        self._extents.clear()
        os.close(self._base)
        self._base = -1
