"""Regions of a device: what each is, and reads and writes with every length and offset checked.

Regions 0 to 5 are BARs, 6 the expansion ROM (none), 7 configuration space, 8 VGA (none). Runs on the server's thread; the hot paths are
4-byte accesses to BARs. Source: reference page vfio-user.md, section 5; Linux include/uapi/linux/vfio.h.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from struct import Struct
from typing import Final

from nvcore.api.device import Bar, Device, MappableBar
from nvcore.vfio_user.wire import MAX_TRANSFER, Refused

__all__ = ["CONFIG_REGION", "REGIONS", "Regions"]

REGIONS: Final = 9
"""Regions of a PCI device: six BARs, ROM, configuration space, VGA."""
CONFIG_REGION: Final = 7
"""Index of configuration space."""
CONFIG_SIZE: Final = 4096
_INFO: Final = Struct("<IIIIQQ")  # argsz, flags, index, cap offset, size, offset
_ACCESS: Final = Struct("<QII")  # offset, region, count
_CAP: Final = Struct("<HHIII")  # id, version, next, areas, reserved
_AREA: Final = Struct("<QQ")
_WORD: Final = Struct("<I")
READ, WRITE, MMAP, CAPS = 1, 2, 4, 8
SPARSE_MMAP: Final = 1
MULTI_ENTRY: Final = 24
MULTI_MAX: Final = 512


class Regions:
    """The regions of one device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._bars = dict(device.bars)
        self._limit = {index: bar.size for index, bar in self._bars.items()} | {CONFIG_REGION: CONFIG_SIZE}
        self._read32: dict[int, Callable[[int], int]] = {index: bar.read32 for index, bar in self._bars.items()}
        self._write32: dict[int, Callable[[int, int], None]] = {index: bar.write32 for index, bar in self._bars.items()}

    @property
    def any_mapped(self) -> bool:
        """Whether a region can be mapped (QEMU then stops posting writes)."""
        return any(_areas(bar) for bar in self._bars.values())

    def info(self, body: memoryview) -> tuple[bytes, list[int]]:
        """DEVICE_GET_REGION_INFO: the reply and descriptors, which the caller closes after sending."""
        if len(body) < _INFO.size:
            raise Refused(errno.EINVAL, "GET_REGION_INFO too short")
        argsz, _, index, _, _, _ = _INFO.unpack_from(body)
        if argsz < _INFO.size or index >= REGIONS:
            raise Refused(errno.EINVAL, f"GET_REGION_INFO argsz {argsz}, index {index}")
        if index not in self._limit:
            return _INFO.pack(_INFO.size, 0, index, 0, 0, 0), []
        bar = self._bars.get(index)
        areas = _areas(bar)
        if bar is None or not areas:
            return _INFO.pack(_INFO.size, READ | WRITE, index, 0, self._limit[index], 0), []
        return self._mapped_info(bar, index, argsz, areas)

    @staticmethod
    def _mapped_info(bar: Bar, index: int, argsz: int, areas: list[tuple[int, int]]) -> tuple[bytes, list[int]]:
        assert isinstance(bar, MappableBar)
        whole = areas == [(0, bar.size)]
        caps = b"" if whole else _CAP.pack(SPARSE_MMAP, 1, 0, len(areas), 0) + b"".join(_AREA.pack(*area) for area in areas)
        size = _INFO.size + len(caps)
        if argsz < size:  # the fixed part, with the size that is needed; the descriptor comes with the complete reply
            return _INFO.pack(size, READ | WRITE | MMAP | (CAPS if caps else 0), index, 0, bar.size, 0), []
        shared = bar.descriptor()
        flags = READ | WRITE | MMAP | (CAPS if caps else 0)
        return _INFO.pack(size, flags, index, _INFO.size if caps else 0, bar.size, shared.offset) + caps, [shared.fd]

    def _check(self, region: int, offset: int, count: int) -> None:
        limit = self._limit.get(region)
        if limit is None or offset > limit or count > limit - offset or count > MAX_TRANSFER:
            raise Refused(errno.EINVAL, f"{count} bytes at {offset:#x} of region {region}, which has {limit or 0:#x}")

    def read(self, body: memoryview) -> bytes:
        """REGION_READ."""
        if len(body) != 16:
            raise Refused(errno.EINVAL, f"REGION_READ of {len(body)} bytes")
        offset, region, count = _ACCESS.unpack(body)
        self._check(region, offset, count)
        if count == 4 and region in self._read32 and not offset & 3:
            return bytes(body) + _WORD.pack(self._read32[region](offset))
        if not count:
            return bytes(body)
        if region == CONFIG_REGION:
            return bytes(body) + self._device.config_read(offset, count)
        return bytes(body) + self._bars[region].read(offset, count)

    def write(self, body: memoryview) -> bytes:
        """REGION_WRITE."""
        if len(body) < 16:
            raise Refused(errno.EINVAL, "REGION_WRITE too short")
        offset, region, count = _ACCESS.unpack_from(body)
        if len(body) != 16 + count:
            raise Refused(errno.EINVAL, f"REGION_WRITE says {count} bytes and brings {len(body) - 16}")
        self._check(region, offset, count)
        self._store(region, offset, count, body[16:])
        return bytes(body[:16])

    def _store(self, region: int, offset: int, count: int, data: memoryview) -> None:
        if count == 4 and region in self._write32 and not offset & 3:
            self._write32[region](offset, _WORD.unpack(data)[0])
        elif not count:
            return
        elif region == CONFIG_REGION:
            self._device.config_write(offset, bytes(data))
        else:
            self._bars[region].write(offset, data)

    def write_multi(self, body: memoryview) -> bytes:
        """REGION_WRITE_MULTI: all entries are checked before the first is stored."""
        if len(body) < 8:
            raise Refused(errno.EINVAL, "REGION_WRITE_MULTI too short")
        entries = int.from_bytes(body[:8], "little")
        if entries > MULTI_MAX or len(body) != 8 + entries * MULTI_ENTRY:
            raise Refused(errno.EINVAL, f"REGION_WRITE_MULTI of {entries} entries in {len(body)} bytes")
        writes = []
        for position in range(8, len(body), MULTI_ENTRY):
            offset, region, count = _ACCESS.unpack_from(body, position)
            if count > 8:
                raise Refused(errno.EINVAL, f"REGION_WRITE_MULTI entry of {count} bytes")
            self._check(region, offset, count)
            writes.append((region, offset, count, position + 16))
        for region, offset, count, position in writes:
            self._store(region, offset, count, body[position : position + count])
        return bytes(body[:8])


def _areas(bar: Bar | None) -> list[tuple[int, int]]:
    return list(bar.areas) if isinstance(bar, MappableBar) else []
