"""Libos log buffers: the firmware's memory of what happened, as raw words in the driver's pages.

Owns the put index of each buffer. Writes only inside regions whose page list is right. Runs on the caller's thread under the device's
lock.
Source: open-gpu-kernel-modules 570.144, libos_init_args.h, liblogdecode.c; Linux 7.3 nova-core gsp.rs.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from nvcore_softgpu.gsp.conventions import LOG_WORDS
from nvcore_softgpu.ports import Aperture, Environment

__all__ = ["LogBuffer", "Region", "read_regions"]

_ENTRY = struct.Struct("<QQQBB6x")
_PAGE = 0x1000
_MAX_LOG = 1 << 20
_CONTIGUOUS, _SYSTEM = 1, 1


class Region(NamedTuple):
    """One libos argument: address and size in bytes."""

    name: str
    address: int
    size: int


def _name(identity: int) -> str:
    return identity.to_bytes(8, "big").lstrip(b"\0").decode("ascii", "replace")


def read_regions(env: Environment, address: int) -> list[Region]:
    """The libos arguments of one page, up to the first empty entry; what is wrong with them is reported."""
    page = env.memory.read(Aperture.SYSTEM, address, _PAGE)
    regions: list[Region] = []
    for identity, where, size, kind, location in _ENTRY.iter_unpack(page):
        if identity == 0:
            break
        name = _name(identity)
        if kind != _CONTIGUOUS or location != _SYSTEM:
            env.violations.violation("libos-argument", f"{name}: kind {kind}, location {location}")
        if where == 0 or where % _PAGE or size == 0 or size % _PAGE:
            env.violations.violation("libos-argument", f"{name}: {size:#x} bytes at {where:#x} are not whole pages")
            continue
        if any(region.name == name for region in regions):
            env.violations.violation("libos-argument", f"{name} comes twice")
            continue
        regions.append(Region(name, where, size))
    if not regions or regions[0].name != "LOGINIT":
        env.violations.violation("libos-argument", "LOGINIT is not the first entry")
    return regions


class LogBuffer:
    """One log region."""

    __slots__ = ("_data", "_env", "_pages", "_put", "_room", "name")

    def __init__(self, env: Environment, region: Region, pages: tuple[int, ...]) -> None:
        """pages: bus addresses of the region, checked by `open`."""
        self.name = region.name
        self._env = env
        self._pages = pages
        self._data = 8 * (1 + len(pages))
        self._room = (region.size - self._data) // 8
        self._put = 0

    @classmethod
    def open(cls, env: Environment, region: Region) -> LogBuffer | None:
        """The buffer of a region, or None when its page list cannot be trusted."""
        count = region.size // _PAGE
        if region.size > _MAX_LOG:
            env.violations.violation("log-size", f"{region.name}: {region.size:#x} bytes")
            return None
        head = env.memory.read(Aperture.SYSTEM, region.address, 8 * (1 + count))
        put, *pages = struct.unpack(f"<{1 + count}Q", head)
        if pages[0] != region.address or any(page == 0 or page % _PAGE for page in pages):
            env.violations.violation("log-page-list", f"{region.name}: page list begins with {pages[0]:#x}, region at {region.address:#x}")
            return None
        if put:
            env.violations.violation("log-put", f"{region.name}: put index {put} before the firmware started")
        return cls(env, region, tuple(pages))

    def note(self, text: str) -> None:
        """Append one entry: a time stamp, a format id (CRC-32 of the text) and its length, padded to LOG_WORDS words."""
        stamp = int(self._env.ticker.now() * 1e9) & 0xFFFFFFFFFFFFFFFF
        words = [stamp, zlib.crc32(text.encode()), len(text), 0][:LOG_WORDS]
        for word in words:
            where = self._data + 8 * (self._put % self._room)
            self._write(where, word)
            self._put += 1
        self._write(0, self._put)

    def _write(self, offset: int, value: int) -> None:
        page = self._pages[offset // _PAGE]
        self._env.memory.write(Aperture.SYSTEM, page + offset % _PAGE, value.to_bytes(8, "little"))
