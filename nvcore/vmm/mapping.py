"""Device memory in this process: extents, which are descriptors onto it, and mappings of them that can be taken back at any moment.

Owns the descriptor of an extent and the address range of a mapping, nothing else: no lock, no thread, no state of the core. Any thread.
Decides nothing about who may touch what. Source: mmap(2), munmap(2), fallocate(2).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from nvcore.api.device import Device
from nvcore.api.errors import ContractError, DeviceGone, OutOfResources
from nvcore.api.inventory import Range

if TYPE_CHECKING:
    from ctypes import Array, c_char

__all__ = ["PAGE", "Extent", "Mapped", "zeros"]

PAGE: Final = 0x1000
"""Granule of a mapping in bytes."""

_PROT: Final = 3  # PROT_READ | PROT_WRITE
_MAP_SHARED: Final = 1
_MAP_REPLACE: Final = 0x2 | 0x20 | 0x10 | 0x4000  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE
_PUNCH: Final = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


@lru_cache(maxsize=1)
def _libc() -> Any:
    """libc through ctypes, imported when the first memory is mapped: the mmap module cannot map over an address."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    return libc


def zeros(size: int) -> Iterator[tuple[int, memoryview]]:
    """`size` bytes of zeros in blocks: (offset, block)."""
    block = memoryview(bytes(min(size, 1 << 16)))
    for at in range(0, size, len(block)):
        yield at, block[: size - at]


class Mapped:
    """A piece of an extent in this process. `view` stays harmless for as long as somebody holds it, also after `revoke`."""

    __slots__ = ("_address", "_array", "_size", "view")

    def __init__(self, fd: int, offset: int, size: int) -> None:
        import ctypes
        import weakref

        skew = offset % PAGE
        self._size = (size + skew + PAGE - 1) // PAGE * PAGE
        address = _libc().mmap(None, self._size, _PROT, _MAP_SHARED, fd, offset - skew)
        if address in (None, ctypes.c_void_p(-1).value):
            raise OutOfResources(f"{size:#x} bytes of device memory cannot be mapped", seen=os.strerror(ctypes.get_errno()))
        self._address: int = address
        self._array: Array[c_char] | None = (ctypes.c_char * self._size).from_address(address)
        # the memory goes when the last view of it dies, not before: a view over unmapped memory would end the process
        weakref.finalize(self._array, _libc().munmap, address, self._size).atexit = False
        self.view = memoryview(self._array).cast("B")[skew : skew + size]

    def read(self, at: int, size: int) -> bytes:
        """Bytes from `at` on; none once it is revoked."""
        return bytes(self.view[at : at + size])

    def write(self, at: int, data: bytes | memoryview) -> None:
        """Store bytes from `at` on; nowhere once it is revoked."""
        view = memoryview(data).cast("B")
        place = self.view[at : at + len(view)]
        if place:
            place[:] = view

    def revoke(self) -> None:
        """Put anonymous zeros in the place of the device's memory, under every view that was handed out. Idempotent."""
        if self._array is None:
            return
        if _libc().mmap(self._address, self._size, _PROT, _MAP_REPLACE, -1, 0) != self._address:
            raise OutOfResources("anonymous memory cannot be mapped over a revoked lease", seen=f"{self._size:#x} bytes")
        self._array = None
        self.view = memoryview(b"")


class Extent:
    """A descriptor onto one range of a device's memory, which the device shares as one piece."""

    __slots__ = ("_device", "_fd", "_offset", "range")

    def __init__(self, device: Device, item: Range, fd: int, offset: int) -> None:
        self._device, self.range, self._fd, self._offset = device, item, fd, offset

    def _place(self, item: Range) -> int:
        """Where a part lies in the descriptor, which may be onto more than this extent, or end with it: an access behind its end would end
        the process."""
        if not self.range.contains(item):
            whole = f"inside [{self.range.start:#x}, {self.range.end:#x})"
            raise ContractError("memory outside of an extent", expected=whole, seen=f"[{item.start:#x}, {item.end:#x})")
        return self._offset + item.start - self.range.start

    def map(self, item: Range) -> Mapped:
        """Map a part of the extent, given by VRAM addresses. Raises OutOfResources, and ContractError for what is no part of it."""
        return Mapped(self._fd, self._place(item), item.size)

    def zero(self, item: Range) -> None:
        """Fill a part with zeros: by punching it where the descriptor can be punched (memory comes back to the host), else by writing.
        Raises as `map`."""
        offset = self._place(item)
        whole = item.start % PAGE == 0 and item.size % PAGE == 0
        if whole and _libc().fallocate(self._fd, _PUNCH, offset, item.size) == 0:
            return
        mapped = self.map(item)
        for at, block in zeros(item.size):
            mapped.view[at : at + len(block)] = block
        mapped.revoke()

    def close(self) -> None:
        """End the extent: mappings that live on reach the device no more. Its contents may be gone. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            with suppress(DeviceGone):
                self._device.unshare(self.range.start)
