"""From the images of a ROM to its FWSEC ucode: the BIT, the falcon ucode table, and the pointers between them.

Owns nothing. Falcon pointers are written as if the extended images followed the PC-AT image at once; `Extended` undoes that. Life-cycle
thread.
Source: Linux 7.3 nova-core vbios.rs (BitHeader, BitToken, PmuLookupTable); open-gpu-kernel-modules 570.144 kernel_gsp_vbios_tu102.c.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from nvcore_fw_gsp.vbios.errors import FwsecMissing, VbiosFormatError
from nvcore_fw_gsp.vbios.rom import Rom, RomImage, image_chain

__all__ = ["Extended", "Vbios", "read_vbios"]

_MARK: Final = b"\xff\xb8BIT\0"
_MAX_CANDIDATES: Final = 64
_TOKEN_FALCON: Final = 0x70
_TOKEN_BIOS: Final = 0x42
_FWSEC: Final = {0x05: "licensed", 0x45: "debug", 0x85: "production"}


class Extended:
    """The extended images of a ROM as one run of bytes, addressed by falcon pointers."""

    __slots__ = ("_base", "_images", "_rom", "size")

    def __init__(self, rom: Rom, base: int, images: Sequence[RomImage]) -> None:
        self._rom, self._base, self._images = rom, base, images
        self.size = sum(image.size for image in images)

    def read(self, pointer: int, size: int, what: str) -> bytes:
        """`size` bytes at a falcon pointer. Raises VbiosFormatError when they are not inside the extended images."""
        at = pointer - self._base
        if at < 0 or size < 0 or at + size > self.size:
            raise VbiosFormatError(
                f"{what} lies outside the extended images",
                expected=f"pointers {self._base:#x} to {self._base + self.size:#x}",
                seen=f"{size:#x} bytes at {pointer:#x}",
                where=self._rom.name,
            )
        parts: list[bytes] = []
        for image in self._images:
            if size and at < image.size:
                take = min(size, image.size - at)
                parts.append(self._rom.read(image.offset + at, take, what))
                at, size = 0, size - take
            else:
                at = max(at - image.size, 0) if size else at
        return b"".join(parts)


class Vbios:
    """What was found: `images`, `version` as in "92.00.22.11.01" ("" when it is not told), FWSEC descriptors' pointers by application
    id, and the byte sum of the PC-AT image (0 when it is sound; some boards' is not, and their FWSEC runs)."""

    __slots__ = ("byte_sum", "extended", "fwsec", "images", "name", "version")

    def __init__(
        self, name: str, images: Sequence[RomImage], extended: Extended, version: str, fwsec: dict[int, int], byte_sum: int
    ) -> None:
        self.name, self.images, self.extended, self.version, self.fwsec = name, images, extended, version, fwsec
        self.byte_sum = byte_sum

    def fwsec_pointer(self, debug: bool) -> int:
        """Pointer of the FWSEC descriptor for a chip whose debug fuse is open, or not. Raises FwsecMissing."""
        for wanted in (0x45 if debug else 0x85, 0x05):
            if wanted in self.fwsec:
                return self.fwsec[wanted]
        raise FwsecMissing(
            f"no {'debug' if debug else 'production'} FWSEC in the ROM",
            expected="application 0x45 or 0x05" if debug else "application 0x85 or 0x05",
            seen=", ".join(f"{number:#04x} ({_FWSEC[number]})" for number in self.fwsec),
            where=self.name,
        )


def read_vbios(rom: Rom) -> Vbios:
    """Parse a ROM down to the falcon ucode table. Raises VbiosFormatError, FwsecMissing."""
    images = image_chain(rom)
    told = ", ".join(str(image) for image in images) or "none"
    legacy = next((image for image in images if image.code_type == 0), None)
    extended = [image for image in images if image.code_type == 0xE0]
    if legacy is None or not extended:
        kind = "PC-AT image" if legacy is None else "extended image (0xE0)"
        raise FwsecMissing(
            f"the ROM has no {kind}, so no FWSEC", expected="a PC-AT image and an extended one", seen=f"images: {told}", where=rom.name
        )
    content = rom.read(legacy.offset, legacy.size, "PC-AT image")
    tokens = _tokens(content, rom.name)
    area = Extended(rom, legacy.size, extended)
    falcon = tokens.get(_TOKEN_FALCON)
    if falcon is None or falcon[0] != 2 or falcon[1] < 4:
        raise FwsecMissing(
            "the BIT has no falcon data of version 2", expected="token 0x70", seen=f"tokens {sorted(map(hex, tokens))}", where=rom.name
        )
    pointer = int.from_bytes(_inside(content, falcon[2], 4, "falcon data", rom.name), "little")
    fwsec = _ucode_table(area, pointer, rom.name)
    if not fwsec:
        raise FwsecMissing("the falcon ucode table lists no FWSEC", expected="application 0x05, 0x45 or 0x85", where=rom.name)
    return Vbios(rom.name, images, area, _version(content, tokens, rom.name), fwsec, sum(content) & 0xFF)


def _tokens(content: bytes, name: str) -> dict[int, tuple[int, int, int]]:
    """Tokens of the first sound BIT: id → (version, size, pointer)."""
    at = -1
    for _ in range(_MAX_CANDIDATES):
        at = content.find(_MARK, at + 1)
        if at < 0:
            break
        head = content[at : at + 12]
        if len(head) < 12:
            break
        header, token, count = head[8], head[9], head[10]
        end = at + header + token * count
        if header < 12 or token not in (6, 8) or end > len(content) or sum(content[at : at + header]) & 0xFF:
            continue
        form = struct.Struct("<BBHH" if token == 6 else "<BBHI")
        rows = [form.unpack_from(content, at + header + index * token) for index in range(count)]
        return {row[0]: (row[1], row[2], row[3]) for row in reversed(rows)}
    raise VbiosFormatError("the PC-AT image holds no sound BIT", expected="FF B8 'BIT' with a checksum of 0", where=name)


def _version(content: bytes, tokens: dict[int, tuple[int, int, int]], name: str) -> str:
    token = tokens.get(_TOKEN_BIOS)
    if token is None or token[1] < 5:
        return ""
    low, b, c, d, oem = _inside(content, token[2], 5, "BIOS data", name)
    return f"{d:02x}.{c:02x}.{b:02x}.{low:02x}.{oem:02x}"


def _inside(content: bytes, at: int, size: int, what: str, name: str) -> bytes:
    if at + size > len(content):
        raise VbiosFormatError(f"{what} lies outside the PC-AT image", expected=f"inside {len(content):#x}", seen=f"{at:#x}", where=name)
    return content[at : at + size]


def _ucode_table(area: Extended, pointer: int, name: str) -> dict[int, int]:
    """FWSEC entries of the falcon ucode table: application id → descriptor pointer, the first of each id."""
    version, header, entry, count = area.read(pointer, 4, "falcon ucode table")
    if version != 1 or header < 4 or entry < 6:
        raise VbiosFormatError(
            "falcon ucode table of an unknown form",
            expected="version 1, entries of 6 bytes or more",
            seen=f"version {version}, header {header}, entries {entry}",
            where=name,
        )
    raw = area.read(pointer + header, entry * count, "entries of the falcon ucode table")
    found: dict[int, int] = {}
    for index in range(count):
        application, _target, descriptor = struct.unpack_from("<BBI", raw, index * entry)
        if application in _FWSEC:
            found.setdefault(application, descriptor)
    return found
