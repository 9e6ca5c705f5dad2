"""A ROM, read block by block, and the chain of images in it.

Owns a cache of the blocks that were read. Every offset is compared with the ROM's size; the chain is followed by its own lengths and flags,
never by counting markers, and never beyond the end. Life-cycle thread.
Source: Linux 7.3 nova-core vbios.rs and Documentation/gpu/nova/core/vbios.rst; open-gpu-kernel-modules 570.144 kernel_gsp_vbios_tu102.c;
PCI Firmware Specification 3.3 (PCIR).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from nvcore_fw_gsp.vbios.errors import VbiosFormatError, VbiosUnreadable

__all__ = ["Rom", "RomImage", "image_chain", "open_rom"]

_BLOCK: Final = 4096
_SIGNATURES: Final = (0xAA55, 0x4E56, 0xBB77)
_IFR: Final = 0x4947564E  # "NVGI"
_ROM_DIRECTORY: Final = 0x44524652  # "RFRD"
_MAX_IMAGES: Final = 32
_PCIR: Final = struct.Struct("<4sHHHHB3sHHBBH")
_EXTENDED: Final = 0xE0
_NBSI: Final = 0x70
_TYPES: Final = {0x00: "PC-AT", 0x03: "EFI", _NBSI: "NBSI", _EXTENDED: "extended"}


class Rom:
    """Bytes of one ROM: `name` says where they come from, `start` where its first image begins.

    read: (offset, size) → bytes, may raise OSError; size: of the ROM, in bytes.
    """

    __slots__ = ("_blocks", "_read", "name", "size", "start")

    def __init__(self, name: str, read: Callable[[int, int], bytes], size: int) -> None:
        self.name, self._read, self.size, self.start = name, read, size, 0
        self._blocks: dict[int, bytes] = {}

    def read(self, offset: int, size: int, what: str) -> bytes:
        """Exactly these bytes. Raises VbiosFormatError when they are not inside, VbiosUnreadable on I/O errors."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise VbiosFormatError(
                f"{what} lies outside the ROM", expected=f"inside {self.size:#x}", seen=f"{size:#x} at {offset:#x}", where=self.name
            )
        first, last = offset // _BLOCK, (offset + size - 1) // _BLOCK if size else offset // _BLOCK
        data = b"".join([self._block(index) for index in range(first, last + 1)])
        begin = offset - first * _BLOCK
        return data[begin : begin + size]

    def word(self, offset: int, what: str) -> int:
        """A 32-bit word."""
        return int.from_bytes(self.read(offset, 4, what), "little")

    def _block(self, index: int) -> bytes:
        found = self._blocks.get(index)
        if found is None:
            size = min(_BLOCK, self.size - index * _BLOCK)
            try:
                found = self._read(index * _BLOCK, size)
            except OSError as error:
                raise VbiosUnreadable("the ROM cannot be read", seen=f"I/O error: {error.strerror or error}", where=self.name) from error
            if len(found) != size:
                raise VbiosUnreadable(
                    "the ROM ends early", expected=f"{size} bytes", seen=len(found), where=f"{self.name}+{index * _BLOCK:#x}"
                )
            self._blocks[index] = found
        return found


class RomImage:
    """One image of the chain: `offset` in the ROM, `size` in bytes, `code_type`, ids, and whether it said that it is the last one."""

    __slots__ = ("code_type", "device", "last", "offset", "size", "vendor")

    def __init__(self, offset: int, size: int, code_type: int, vendor: int, device: int, last: bool) -> None:
        self.offset, self.size, self.code_type = offset, size, code_type
        self.vendor, self.device, self.last = vendor, device, last

    def __str__(self) -> str:
        kind = _TYPES.get(self.code_type, f"type {self.code_type:#04x}")
        return f"{kind} {self.size:#x} bytes at {self.offset:#x}"


def open_rom(name: str, read: Callable[[int, int], bytes], size: int, offset: int | None = None) -> Rom:
    """The ROM of one source (arguments as in `Rom`). offset: where its first image begins, when the caller knows (a vendor's header).

    Raises VbiosUnreadable, in which an I/O error, zeros, all ones and bus errors are different reasons, or VbiosFormatError.
    """
    rom = Rom(name, read, size)
    rom.start = _first_image(rom, offset)
    return rom


def _first_image(rom: Rom, offset: int | None) -> int:
    """Where the first image begins; the ways in which there is none are told apart."""
    if offset is not None:
        if int.from_bytes(rom.read(offset, 2, "first image"), "little") not in _SIGNATURES:
            raise VbiosUnreadable("no image there", seen=f"{rom.read(offset, 2, 'first image').hex(' ')} at {offset:#x}", where=rom.name)
        return offset
    head = rom.read(0, min(512, rom.size), "beginning of the ROM")
    if len(head) < 12:
        raise VbiosUnreadable("no ROM", seen=f"only {len(head)} bytes", where=rom.name)
    for byte, name in ((0x00, "zeros"), (0xFF, "all ones")):
        if head == bytes([byte]) * len(head):
            raise VbiosUnreadable("no ROM", seen=f"{name} in the first {len(head)} bytes", where=rom.name)
    word = int.from_bytes(head[:4], "little")
    if word == _IFR:
        return _behind_ifr(rom, head)
    if word & 0xFFFF in _SIGNATURES:
        return 0
    if word >> 20 == 0xBAD:
        raise VbiosUnreadable("no ROM", seen=f"bus error pattern {word:#010x}", where=rom.name)
    found = _next_image(rom)
    hint = f"; an image begins at {found:#x}" if found is not None else "; no image in it"
    raise VbiosUnreadable("no ROM signature", seen=f"{head[:4].hex(' ')} at 0{hint}", where=rom.name)


def _behind_ifr(rom: Rom, head: bytes) -> int:
    """Follow an IFR header of version 1, 2 or 3 to the expansion ROM."""
    fixed1, fixed2 = struct.unpack_from("<II", head, 4)
    version, fixed, total = fixed1 >> 8 & 0xFF, fixed1 >> 16 & 0x7FFF, fixed2 & 0xFFFFF
    if version in (1, 2):
        at = rom.word(fixed + 4, "IFR image offset")
    elif version == 3:
        directory = rom.word(total, "IFR flash status") + 4096
        if rom.word(directory, "ROM directory") != _ROM_DIRECTORY:
            raise VbiosFormatError("no ROM directory behind the IFR header", expected="RFRD", where=f"{rom.name}+{directory:#x}")
        at = rom.word(directory + 8, "image offset in the ROM directory")
    else:
        raise VbiosFormatError("IFR header of an unknown version", expected="1, 2 or 3", seen=version, where=rom.name)
    if at % 4 or int.from_bytes(rom.read(at, 2, "first image behind the IFR header"), "little") not in _SIGNATURES:
        raise VbiosFormatError("the IFR header leads to no image", expected="55 aa, 4-aligned", seen=f"offset {at:#x}", where=rom.name)
    return at


def _next_image(rom: Rom) -> int | None:
    """The first 512-aligned place with an image header whose PCIR is in place; never beyond the ROM."""
    for at in range(0, rom.size - 0x1A, 512):
        if int.from_bytes(rom.read(at, 2, "image"), "little") in _SIGNATURES:
            pcir = at + int.from_bytes(rom.read(at + 0x18, 2, "PCIR offset"), "little")
            if pcir + 4 <= rom.size and rom.read(pcir, 4, "PCIR") in (b"PCIR", b"NPDS"):
                return at
    return None


def image_chain(rom: Rom) -> list[RomImage]:
    """All images, in their order. Ends at the last flag, at an NBSI image, or where no image follows. Raises VbiosFormatError."""
    found: list[RomImage] = []
    at = rom.start
    while len(found) < _MAX_IMAGES:
        try:
            image = _image(rom, at)
        except VbiosFormatError as error:
            so_far = ", ".join(str(image) for image in found) or "none"
            raise VbiosFormatError(
                f"{error.what} (images so far: {so_far})", expected=error.expected, seen=error.seen, where=error.where
            ) from None
        if image is None:
            break
        found.append(image)
        at = image.offset + image.size
        if image.last or image.code_type == _NBSI:
            break
    return found


def _image(rom: Rom, at: int) -> RomImage | None:
    """The image at an offset, or None where none begins (the chain's end, whatever the flags said)."""
    if at + 0x1A > rom.size or int.from_bytes(rom.read(at, 2, "image"), "little") not in _SIGNATURES:
        return None
    pointer = int.from_bytes(rom.read(at + 0x18, 2, "PCIR offset"), "little")
    raw = rom.read(at + pointer, _PCIR.size, "PCIR")
    signature, vendor, device, _, length, _, _, blocks, _, code_type, indicator, _ = _PCIR.unpack(raw)
    if signature not in (b"PCIR", b"NPDS") or length < 0x16:
        raise VbiosFormatError(
            "an image has no PCIR",
            expected="PCIR or NPDS, 22 bytes or more",
            seen=f"{signature!r}, {length} bytes",
            where=f"{rom.name}+{at:#x}",
        )
    size, last = blocks * 512, bool(indicator & 0x80)
    extension = at + (pointer + length + 15 & ~15)
    if code_type != _NBSI and extension + 8 <= rom.size and rom.read(extension, 4, "NPDE") == b"NPDE":
        extended, inner = struct.unpack("<HH", rom.read(extension + 6, 4, "NPDE"))
        if extended >= 11:
            last = bool(rom.read(extension + 10, 1, "NPDE flags")[0] & 0x80)
        elif inner * 512 < size:
            last = False
        size = inner * 512
    if size == 0 or at + size > rom.size:
        raise VbiosFormatError(
            "an image is empty or cut off", expected=f"inside {rom.size:#x}", seen=f"{size:#x} bytes", where=f"{rom.name}+{at:#x}"
        )
    return RomImage(at, size, code_type, vendor, device, last)
