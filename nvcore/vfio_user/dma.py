"""DMA maps of one client: every range checked against the others before the device hears of it.

Owns the table of maps; the device owns the memory behind it. Ranges that come without a usable descriptor (ROM, other devices' BARs, plain
anonymous memory) are remembered, so that they unmap like the rest, and are not given to the device: it cannot reach them.
Runs on the server's thread. Source: libvfio-user docs/vfio-user.rst; reference page vfio-user.md, section 4.
"""

from __future__ import annotations

import errno
import fcntl
import os
from bisect import bisect_left, bisect_right, insort
from struct import Struct
from typing import Final

from nvcore.api.device import Device
from nvcore.api.errors import NvcoreError
from nvcore.vfio_user.wire import Refused

__all__ = ["DmaTable"]

_MAP: Final = Struct("<IIQQQ")
_UNMAP: Final = Struct("<IIQQ")
READ, WRITE = 1, 2
UNMAP_ALL: Final = 2
MAX_MAPS: Final = 65535
MAX_SIZE: Final = 8 << 40
PAGE: Final = 4096
_END: Final = 1 << 64


class DmaTable:
    """Disjoint ranges [address, address + size), each given to the device or only remembered. Up to 65,535: found by bisection."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._starts: list[int] = []
        self._ranges: dict[int, tuple[int, bool]] = {}  # start -> (size, given to the device)

    def __len__(self) -> int:
        return len(self._starts)

    def map(self, body: memoryview, fds: list[int]) -> bytes:
        """DMA_MAP. The descriptor stays the caller's to close."""
        if len(body) != _MAP.size:
            raise Refused(errno.EINVAL, f"DMA_MAP of {len(body)} bytes")
        argsz, flags, offset, address, size = _MAP.unpack_from(body)
        if argsz < _MAP.size or flags & ~(READ | WRITE) or len(fds) > 1:
            raise Refused(errno.EINVAL, f"DMA_MAP argsz {argsz}, flags {flags:#x}, {len(fds)} descriptors")
        if not size or size > MAX_SIZE or address + size > _END or offset + size > 1 << 63:
            raise Refused(errno.EINVAL, f"DMA_MAP of {size:#x} bytes at {address:#x}, offset {offset:#x}")
        if (address | size | offset) % PAGE:
            raise Refused(errno.EINVAL, f"DMA_MAP {address:#x} + {size:#x}, offset {offset:#x}: not page-aligned")
        if self._overlaps(address, size):
            raise Refused(errno.EEXIST, f"DMA_MAP {address:#x} + {size:#x} meets an earlier map")
        if len(self._starts) >= MAX_MAPS:
            raise Refused(errno.ENOSPC, f"{MAX_MAPS} maps are the limit")
        given = bool(fds) and flags & READ != 0 and _sealed(fds[0])
        if given:
            self._check_file(fds[0], offset, size)
            self._device.map_dma(address, size, fds[0], offset, readable=True, writable=bool(flags & WRITE))
        insort(self._starts, address)
        self._ranges[address] = (size, given)
        return b""

    def unmap(self, body: memoryview) -> bytes:
        """DMA_UNMAP: every map that lies wholly inside the range goes, none is fine too; a range that would cut a map is refused."""
        if len(body) != _UNMAP.size:
            raise Refused(errno.EINVAL, f"DMA_UNMAP of {len(body)} bytes")
        argsz, flags, address, size = _UNMAP.unpack_from(body)
        if argsz < _UNMAP.size or flags & ~UNMAP_ALL:
            raise Refused(errno.EINVAL, f"DMA_UNMAP argsz {argsz}, flags {flags:#x}")
        if flags & UNMAP_ALL:
            if address or size:
                raise Refused(errno.EINVAL, "DMA_UNMAP of everything names a range")
            address, size = 0, _END
        if not size or address + size > _END:
            raise Refused(errno.EINVAL, f"DMA_UNMAP of {size:#x} bytes at {address:#x}")
        end = address + size
        first, last = bisect_left(self._starts, address), bisect_left(self._starts, end)
        for at, border in ((first - 1, address), (last - 1, end)):  # maps are disjoint: only these two can reach over a border
            if at >= 0 and self._end(at) > border:
                raise Refused(errno.EINVAL, f"DMA_UNMAP {address:#x} + {size:#x} would cut the map at {self._starts[at]:#x}")
        if problems := self._drop(first, last):
            raise problems[0]
        return bytes(body)

    def clear(self) -> list[NvcoreError | OSError]:
        """Take everything back, as the client is gone; what the device said to maps that it did not let go of."""
        return self._drop(0, len(self._starts))

    def _drop(self, first: int, last: int) -> list[NvcoreError | OSError]:
        problems: list[NvcoreError | OSError] = []
        for start in self._starts[first:last]:
            size, given = self._ranges.pop(start)
            if given:
                try:
                    self._device.unmap_dma(start, size)
                except (NvcoreError, OSError) as problem:
                    problems.append(problem)
        del self._starts[first:last]
        return problems

    def _end(self, at: int) -> int:
        start = self._starts[at]
        return start + self._ranges[start][0]

    def _overlaps(self, address: int, size: int) -> bool:
        at = bisect_right(self._starts, address)
        return (at > 0 and self._end(at - 1) > address) or (at < len(self._starts) and self._starts[at] < address + size)

    @staticmethod
    def _check_file(fd: int, offset: int, size: int) -> None:
        length = os.fstat(fd).st_size
        if offset + size > length:
            raise Refused(errno.EINVAL, f"the file ends at {length:#x}, the map at {offset + size:#x}")


def _sealed(fd: int) -> bool:
    """Whether the file cannot shrink under a map of ours: anything else could kill this process with SIGBUS."""
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:
        return False
