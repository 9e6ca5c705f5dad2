"""Synthetic firmware: files in the real containers, with seeded bytes and the build id `synthetic`.

Owns the sizes and offsets of the files it writes. Nothing in them can run anywhere: the behavioural GSP recognises them by a mark in the
image. Writes only below the folder it is given. Any thread.
Source of names, offsets and sizes: linux-firmware nvidia/{ga100,gh100}, releases 535.113.01 and 570.144.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from hashlib import sha384
from pathlib import Path
from typing import Final, NamedTuple

from nvcore_softgpu.gsp.identify import KNOWN_SIZES, MARK, MARK_AT
from nvcore_softgpu.images.elf import NOTE, STRTAB, SYMTAB, Section, elf32, elf64

__all__ = ["BUILD_ID", "DEFAULT_SIZE", "SETS", "SyntheticSet", "files", "real_size", "write_images"]

BUILD_ID: Final = b"synthetic"
"""Shown wherever provenance is shown."""

DEFAULT_SIZE: Final = 256 << 10
"""Bytes of the firmware's section."""

_RISCV: Final = 0xF3
_SIGNATURES: Final = {
    "535.113.01": {"tu10x": ("ga100", "tu11x", "tu10x"), "ga10x": ("cc_gh100", "gh100", "ad10x", "ga10x")},
    "570.144": {
        "tu10x": ("ga100", "tu11x", "tu10x"),
        "ga10x": ("gb20x", "cc_gb10x", "gb10x", "cc_gh100", "gh100", "ad10x", "ga10x"),
    },
}
_FMC_FLAGS: Final = 0xFFF00102


class SyntheticSet(NamedTuple):
    """The files of one chip and release. booter: (image size, OS data offset) of load and unload, empty for chips with an FSP."""

    chip: str
    version: str
    family: str
    booter: tuple[tuple[int, int], ...]


SETS: Final = (
    SyntheticSet("ga100", "535.113.01", "tu10x", ((0xE500, 0x8100), (0x9600, 0x4700))),
    SyntheticSet("ga100", "570.144", "tu10x", ((0xEB00, 0x8700), (0x9C00, 0x4D00))),
    SyntheticSet("gh100", "570.144", "ga10x", ()),
)
"""What can be written: the releases that the model plays, for its two chips."""


def real_size(which: SyntheticSet) -> int:
    """Bytes of the real `.fwimage`, for measurements."""
    return next(size for size, known in KNOWN_SIZES.items() if known == (which.version, which.family))


def _noise(size: int, *seed: str) -> bytes:
    return random.Random("nvcore softgpu " + " ".join(seed)).randbytes(size)


def _container(header: bytes, image: bytes, header_offset: int = 0x18) -> bytes:
    start = header_offset + len(header)
    total = -(-(start + len(image)) // 256) * 256
    return struct.pack("<6I", 0x10DE, 1, total, header_offset, start, len(image)).ljust(header_offset, b"\0") + header + image


def _fw_image(which: SyntheticSet, size: int) -> bytes:
    if size < 2 * 0x1000:
        raise ValueError(f"an image of {size} bytes has no room for its first page")
    image = bytearray(_noise(size, "image", which.chip, which.version))
    if which.family == "tu10x":
        head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), 2, _RISCV, 1, 0x4009000, 64, 0, 1, 64, 56, 33, 64, 0, 0)
        head += struct.pack("<IIQQQQQQ", 1, 7, 0, 0x4000000, 0x4000000, size, size, 0x1000)
        for index in range(1, 33):
            address = 0x4000000 + 0x1000 * index
            head += struct.pack("<IIQQQQQQ", 0x60000000 + index, 4, 0, address, address, 0, 0, 1)
    else:
        head = struct.pack("<I", 0x00064297)  # auipc t0, 0x64
    mark = MARK + which.version.encode() + b"\0" + which.family.encode() + b"\0"
    image[: len(head)] = head
    image[MARK_AT : MARK_AT + len(mark)] = mark
    return bytes(image)


def _signature(*seed: str) -> bytes:
    payload = struct.pack("<HHII", 1, 2, 0x8C8, 12) + _noise(0x8C8 - 12, "signature", *seed)
    return payload.ljust(0x1000, b"\0")


def gsp(which: SyntheticSet, size: int) -> bytes:
    """gsp-VERSION.bin with `size` bytes of `.fwimage`."""
    note = struct.pack("<III4s", 4, 20, 3, b"GNU\0") + BUILD_ID.ljust(20, b"\0")
    sections = [
        Section(".fwimage", _fw_image(which, size), flags=3),
        Section(".note.gnu.build-id", note, NOTE),
        Section(".fwversion", which.version.encode() + b"\0"),
    ]
    for name in _SIGNATURES[which.version][which.family]:
        sections.append(Section(f".fwsignature_{name}", _signature(name, which.version)))
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0, 0, 1, 0, 0)
    sections.append(Section(".symtab", symbols, SYMTAB, align=8, link=".strtab", info=2, entry=24))
    sections.append(Section(".strtab", b"\0synthetic_start\0", STRTAB))
    return elf64(sections, kind=1, machine=_RISCV)


def booter(which: SyntheticSet, name: str) -> bytes:
    """booter_load or booter_unload: HS header v2 with one RSA-3K signature."""
    size, data_offset = which.booter[0 if name == "booter_load" else 1]
    image = _noise(size, name, which.chip, which.version)
    signature = _noise(384, "signature", name, which.version)
    # file offsets: HS header 0x18, signature 0x3c, then the words that the header points to
    header = struct.pack("<9I", 0x3C, 384, 0x1BC, 0x1C0, 0x1C4, 12, 0x1D0, 0x1D4, 0x24) + signature
    header += struct.pack("<IIIIII", data_offset + 0x200, 0, 0, 1, 3, 1)
    header += struct.pack("<9I", 0, 0x100, data_offset, size - data_offset, 1, 0x100, data_offset - 0x100, 0x100, 0)
    return _container(header, image)


def bootloader(which: SyntheticSet) -> bytes:
    """bootloader-VERSION.bin: RISC-V descriptor v4 before GA102, v5 on Hopper."""
    if which.family == "tu10x":
        words = [4, 0, 0x488, 0x488, 0x10] + [0] * 14
        return _container(struct.pack("<19I", *words), _noise(0x1000, "bootloader", which.chip, which.version))
    words = [5, *[0] * 8, 0xA00, 0xA00, 0xA700, 0xB100, 0x1D500, 1, *[0] * 6]
    return _container(struct.pack("<21I", *words), _riscv_parts(which))


def _riscv_parts(which: SyntheticSet) -> bytes:
    return _noise(0x29000, "bootloader", which.chip, which.version)


def fmc(which: SyntheticSet) -> bytes:
    """fmc-VERSION.bin: the parts of the bootloader again, with hash, signature and key."""
    parts = _riscv_parts(which)
    code, data, manifest = parts[0xB100 : 0xB100 + 0x1D500], parts[0xA00 : 0xA00 + 0xA700], parts[:0xA00]
    header = struct.pack("<18I", 0x00480403, len(code + data + manifest), 0, len(code), 0, len(data), 0x104, 0, 0x2801, *[0] * 9)
    image = header + code + data + manifest
    pieces = {
        "hash": (sha384(image).digest(), 16),
        "signature": (_noise(384, "fmc signature", which.chip, which.version), 1),
        "publickey": (_noise(384, "fmc key", which.chip), 1),
        "image": (image, 16),
    }
    sections = [Section(name, data, flags=_FMC_FLAGS, align=align, info=zlib.crc32(data)) for name, (data, align) in pieces.items()]
    return elf32(sections, kind=0, machine=0)


def generic_bootloader(which: SyntheticSet, *, acr: bool) -> bytes:
    """gen_bootloader-VERSION.bin, or the same code as acr/bl.bin, for a FWSEC of a chip without DMA load."""
    image = _noise(0x300, "generic bootloader", which.chip)
    header = struct.pack("<6I", 0xFD, 0, 0, 0x200, 0x200, 0x100)
    return _container(header.ljust(0x100, b"\0"), image, 0x100) if acr else _container(header, image)


def files(which: SyntheticSet, size: int = DEFAULT_SIZE) -> Iterator[tuple[str, bytes]]:
    """(path below the firmware folder, content) of every file of one set."""
    base, version = f"nvidia/{which.chip}", which.version
    yield f"{base}/gsp/gsp-{version}.bin", gsp(which, size)
    yield f"{base}/gsp/bootloader-{version}.bin", bootloader(which)
    if which.booter:
        for name in ("booter_load", "booter_unload"):
            yield f"{base}/gsp/{name}-{version}.bin", booter(which, name)
        yield f"{base}/acr/bl.bin", generic_bootloader(which, acr=True)
        if version == "570.144":
            yield f"{base}/gsp/gen_bootloader-{version}.bin", generic_bootloader(which, acr=False)
    else:
        yield f"{base}/gsp/fmc-{version}.bin", fmc(which)


def write_images(folder: Path, *, chip: str | None = None, version: str | None = None, full_size: bool = False) -> list[Path]:
    """Write all sets that match below `folder`; the paths written. Existing files are replaced only when they are synthetic or absent.

    Raises FileExistsError for a file that this module did not write.
    """
    chosen = [row for row in SETS if chip in (None, row.chip) and version in (None, row.version)]
    marker = folder / "nvidia" / "SYNTHETIC"
    if not marker.exists() and any((folder / name).exists() for row in chosen for name, _ in files(row)):
        raise FileExistsError(str(folder))
    written: list[Path] = []
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text("The files below were written by `nvcore softgpu firmware`: seeded bytes, no firmware of any vendor.\n", "ascii")
    for row in chosen:
        for name, content in files(row, real_size(row) if full_size else DEFAULT_SIZE):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            written.append(path)
    return written
