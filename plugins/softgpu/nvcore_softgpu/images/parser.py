"""Firmware containers as the model reads them: with bounds on every offset, apart from the driver's parsers.

Owns four formats: nvfw_bin_hdr with an HS header v2 or a RISC-V descriptor v4/v5, the ELF64 of a GSP image, the ELF32 of an FMC. Reads
bytes, changes nothing, holds no file open. Any thread.
Source: formats as found in linux-firmware nvidia/*/gsp; Linux 7.3 nouveau nvkm/core/firmware.c and include/nvfw; nova-core firmware/*.rs.
"""

from __future__ import annotations

import struct
import zlib
from hashlib import sha384
from typing import ClassVar, Final, NamedTuple

from nvcore.api.errors import FormatError

__all__ = [
    "BinHeader", "Fmc", "GspImage", "HsImage", "ImageFormatError", "RiscvImage", "parse_bin", "parse_fmc", "parse_hs", "parse_riscv",
]  # fmt: skip

_BIN = struct.Struct("<6I")
_BIN_MAGIC: Final = 0x10DE
_HS = struct.Struct("<9I")
_SIGNATURE_SIZE: Final = 0x1000
_MAX_APPS: Final = 16
_MAX_SIGNATURES: Final = 64
_MAX_SECTIONS: Final = 256
_RISCV_WORDS: Final = {4: 19, 5: 21, 6: 23}
_ELF_RISCV: Final = 0xF3
_NO_BITS: Final = 8


class ImageFormatError(FormatError):
    """A firmware file is not what its format says."""

    code: ClassVar[str] = "NVC-7101"
    usual_remedy = "nvcore softgpu firmware DIR writes sound images"


class BinHeader(NamedTuple):
    """nvfw_bin_hdr: where the header and the data lie."""

    header_offset: int
    data: memoryview


class HsImage(NamedTuple):
    """A falcon program with signatures (booter). os_code, os_data: (offset, size); apps: (code offset, code size, data offset, data size)
    each; patch: where a signature goes."""

    image: memoryview
    os_code: tuple[int, int]
    os_data: tuple[int, int]
    apps: tuple[tuple[int, int, int, int], ...]
    signatures: tuple[bytes, ...]
    patch: int


class RiscvImage(NamedTuple):
    """A RISC-V boot program. app_version: what a driver writes to OS; manifest, code, data: (offset, size) of the monitor's parts."""

    image: memoryview
    app_version: int
    manifest: tuple[int, int]
    data: tuple[int, int]
    code: tuple[int, int]


class Fmc(NamedTuple):
    """The first mutable code of chips with an FSP."""

    image: memoryview
    hash: bytes
    signature: bytes
    public_key: bytes


def _fail(what: str, expected: object, seen: object) -> ImageFormatError:
    return ImageFormatError(what, expected=expected, seen=seen, remedy="install the firmware files again")


def _piece(data: memoryview, offset: int, size: int, what: str) -> memoryview:
    if offset < 0 or size < 0 or offset + size > len(data):
        raise _fail(f"{what} leaves the file", f"at most {len(data):#x} bytes", f"{size:#x} bytes at {offset:#x}")
    return data[offset : offset + size]


def _word(data: memoryview, offset: int, what: str) -> int:
    return int.from_bytes(_piece(data, offset, 4, what), "little")


def parse_bin(data: bytes | memoryview) -> BinHeader:
    """The container header. Its total size is rounded up by the packer and therefore not compared."""
    view = memoryview(data)
    magic, version, _, header, start, size = _BIN.unpack(_piece(view, 0, _BIN.size, "container header"))
    if magic != _BIN_MAGIC or version != 1:
        raise _fail("not a firmware container", f"magic {_BIN_MAGIC:#x}, version 1", f"magic {magic:#x}, version {version}")
    return BinHeader(header, _piece(view, start, size, "container data"))


def parse_hs(data: bytes | memoryview) -> HsImage:
    """A booter: container, HS header v2, load header v2. Pointers in the HS header are file offsets of the values."""
    view = memoryview(data)
    container = parse_bin(view)
    image = container.data
    words = _HS.unpack(_piece(view, container.header_offset, _HS.size, "HS header"))
    signatures_at, signatures_size, patch_at, patch_signature_at, meta_at, meta_size, count_at, load_at, load_size = words
    count = _word(view, count_at, "signature count")
    first = _word(view, patch_signature_at, "signature offset")
    patch = _word(view, patch_at, "patch location")
    if not 1 <= count <= _MAX_SIGNATURES or signatures_size % count or first >= signatures_size:
        raise _fail("signatures of an HS image", "whole signatures", f"{count} in {signatures_size:#x} bytes from {first:#x}")
    area = bytes(_piece(view, signatures_at + first, signatures_size - first, "signatures"))
    each = signatures_size // count
    signatures = tuple(area[at : at + each] for at in range(0, len(area) - each + 1, each))
    if not signatures:
        raise _fail("signatures of an HS image", f"{each:#x} bytes", f"{len(area):#x}")
    if meta_size != 12:
        raise _fail("meta data of an HS image", "12 bytes", meta_size)
    _piece(view, meta_at, meta_size, "meta data")
    load = _piece(view, load_at, load_size, "load header")
    if load_size < 20:
        raise _fail("load header of an HS image", "at least 20 bytes", load_size)
    code, code_size, os_data, os_data_size, apps = struct.unpack("<5I", load[:20])
    if not 1 <= apps <= _MAX_APPS or load_size != 20 + 16 * apps:
        raise _fail("load header of an HS image", f"20 bytes and 16 for each of 1 to {_MAX_APPS} programs", f"{load_size} bytes for {apps}")
    rows = tuple(struct.iter_unpack("<4I", load[20:]))
    for offset, size in ((code, code_size), (os_data, os_data_size), (patch, each), *((row[0], row[1]) for row in rows)):
        _piece(image, offset, size, "a part of an HS image")
    return HsImage(image, (code, code_size), (os_data, os_data_size), rows, signatures, patch)


def parse_riscv(data: bytes | memoryview) -> RiscvImage:
    """A bootloader: container and RM_RISCV_UCODE_DESC."""
    view = memoryview(data)
    container = parse_bin(view)
    version = _word(view, container.header_offset, "RISC-V descriptor")
    words = _RISCV_WORDS.get(version)
    if words is None:
        raise _fail("RISC-V descriptor", "version " + ", ".join(map(str, _RISCV_WORDS)), version)
    row = struct.unpack(f"<{words}I", _piece(view, container.header_offset, 4 * words, "RISC-V descriptor"))
    parts = {"bootloader": row[1:3], "parameters": row[3:5], "manifest": row[8:10], "data": row[10:12], "code": row[12:14]}
    for name, (offset, size) in parts.items():
        _piece(container.data, offset, size, f"{name} of a RISC-V image")
    return RiscvImage(container.data, row[7], (row[8], row[9]), (row[10], row[11]), (row[12], row[13]))


class _Section(NamedTuple):
    name: str
    offset: int
    size: int
    kind: int
    flags: int
    info: int


_ELF64 = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION64 = struct.Struct("<IIQQQQIIQQ")
_ELF32 = struct.Struct("<16sHHIIIIIHHHHHH")
_SECTION32 = struct.Struct("<10I")


def _sections(view: memoryview, wide: bool) -> tuple[int, int, list[_Section]]:
    """(type, machine, sections) of a little-endian ELF file."""
    header, entry = (_ELF64, _SECTION64) if wide else (_ELF32, _SECTION32)
    fields = header.unpack(_piece(view, 0, header.size, "ELF header"))
    identity = fields[0]
    if identity[:4] != b"\x7fELF" or identity[4] != (2 if wide else 1) or identity[5] != 1:
        raise _fail("not an ELF file of the right class", f"ELF{64 if wide else 32}, little-endian", identity[:6].hex())
    table, size, count, names = fields[6], fields[11], fields[12], fields[13]
    if size != entry.size or not 1 <= count <= _MAX_SECTIONS or names >= count:
        raise _fail("section table of an ELF file", f"entries of {entry.size}", f"{count} entries of {size}, names in {names}")
    rows = [entry.unpack(_piece(view, table + size * index, size, "section header")) for index in range(count)]
    strings = bytes(_piece(view, rows[names][4], rows[names][5], "section names"))
    found: list[_Section] = []
    for row in rows:
        end = strings.find(b"\0", row[0])
        if row[0] >= len(strings) or end < 0:
            raise _fail("name of an ELF section", f"inside {len(strings)} bytes", row[0])
        if row[1] not in (0, _NO_BITS):
            _piece(view, row[4], row[5], "an ELF section")
        found.append(_Section(strings[row[0] : end].decode("ascii", "replace"), row[4], row[5], row[1], row[2], row[7]))
    return fields[1], fields[2], found


class GspImage:
    """The file of a GSP image (`ports.KnownImage`)."""

    __slots__ = ("_sections", "_view", "version")

    def __init__(self, data: bytes | memoryview) -> None:
        """Raises ImageFormatError."""
        view = memoryview(data)
        kind, machine, sections = _sections(view, wide=True)
        if kind != 1 or machine != _ELF_RISCV:
            raise _fail("type of a GSP image", "relocatable, RISC-V", f"type {kind}, machine {machine:#x}")
        self._view = view
        self._sections = {section.name: section for section in sections}
        self.version = bytes(self._bytes(".fwversion")).rstrip(b"\0").decode("ascii", "replace")
        image = self.image
        if not image or not self.version:
            raise _fail("GSP image", "an image and a version", f"{len(image)} bytes, version {self.version!r}")
        for section in sections:
            if section.name.startswith(".fwsignature_") and section.size != _SIGNATURE_SIZE:
                raise _fail(f"section {section.name}", f"{_SIGNATURE_SIZE} bytes", section.size)

    def _bytes(self, name: str) -> memoryview:
        section = self._sections.get(name)
        if section is None:
            raise _fail("sections of a GSP image", name, ", ".join(filter(None, self._sections)) or "none")
        return self._view[section.offset : section.offset + section.size]

    @property
    def image(self) -> memoryview:
        """The bytes of `.fwimage`, not padded."""
        return self._bytes(".fwimage")

    def signature(self, section: str) -> bytes | None:
        """The signature section of that name (".fwsignature_ga100"), or None."""
        return bytes(self._bytes(section)) if section in self._sections else None


def parse_fmc(data: bytes | memoryview) -> Fmc:
    """An FMC: every section's CRC-32 and the hash of the image are verified. Raises ImageFormatError."""
    view = memoryview(data)
    _, _, sections = _sections(view, wide=False)
    found: dict[str, memoryview] = {}
    for section in sections[1:]:
        piece = view[section.offset : section.offset + section.size]
        # the section table of the string section itself carries no CRC
        if section.name != ".shstrtab":
            crc = zlib.crc32(piece)
            if crc != section.info:
                raise _fail(f"checksum of section {section.name}", f"{section.info:#010x}", f"{crc:#010x}")
        found[section.name] = piece
    missing = [name for name in ("hash", "signature", "publickey", "image") if name not in found]
    if missing:
        raise _fail("sections of an FMC", "hash, signature, publickey, image", "no " + ", ".join(missing))
    digest = sha384(found["image"]).digest()
    if digest != bytes(found["hash"]):
        raise _fail("hash of an FMC image", bytes(found["hash"]).hex()[:16], digest.hex()[:16])
    return Fmc(found["image"], digest, bytes(found["signature"]), bytes(found["publickey"]))
