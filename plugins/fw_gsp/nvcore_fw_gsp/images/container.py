"""The small firmware files: the `nvfw_bin_hdr` container and the three kinds of ucode that travel in it.

Owns no memory beyond what it returns; reads headers and, when asked, the ucode. Every offset is compared with the file or the image before
it is used. Any thread. The total size in the container is rounded up and may exceed the file, so it is not checked.
Source: Linux 7.3 drivers/gpu/drm/nouveau/include/nvfw/{fw,hs,flcn}.h, nova-core firmware/{booter,riscv}.rs;
open-gpu-kernel-modules 570.144 rmRiscvUcode.h.
"""

from __future__ import annotations

import struct
from typing import Final

from nvcore_fw_gsp.images.errors import FirmwareFormatError, SignatureUnusable
from nvcore_fw_gsp.images.source import Source

__all__ = ["BinHeader", "GenericBootloader", "HsUcode", "RiscvUcode", "newest_bit"]

_BIN: Final = struct.Struct("<6I")
_MAGIC: Final = 0x10DE
_HS: Final = struct.Struct("<9I")
_LOAD: Final = struct.Struct("<5I")
_APP: Final = struct.Struct("<4I")
_META: Final = struct.Struct("<3I")
_GENERIC: Final = struct.Struct("<6I")
_RISCV_SIZES: Final = {4: 76, 5: 84, 6: 92}
_RISCV_PARTS: Final = ((1, "bootloader"), (3, "parameters"), (5, "ELF"), (8, "manifest"), (10, "monitor data"), (12, "monitor code"))
_MAX_SIGNATURES: Final = 16


class BinHeader:
    """The container: where the kind's own header and the ucode lie, as file offsets."""

    __slots__ = ("data_offset", "data_size", "header_offset")

    def __init__(self, source: Source) -> None:
        magic, version, _size, self.header_offset, self.data_offset, self.data_size = _BIN.unpack(
            source.read(0, _BIN.size, "container header")
        )
        if (magic, version) != (_MAGIC, 1):
            raise FirmwareFormatError(
                "no firmware container", expected="magic 0x10de, version 1", seen=f"{magic:#x}, {version}", where=source.name
            )
        _inside(self.data_offset, self.data_size, source.size, "ucode", source)
        if self.data_size == 0:
            raise FirmwareFormatError("the container holds no ucode", where=source.name)


class HsUcode:
    """A signed falcon ucode (booter, scrubber): offsets count from the start of its image, sizes in bytes.

    code, data: the non-secure part and the data, as (offset, size). apps: the secure parts, as (code offset, code size, data offset, data
    size). patch_location: where the chosen signature goes. signature_size, signatures: bytes of one, and how many. fuse_version: of the
    newest signature. engine_mask, ucode_id: what the boot ROM is told.
    """

    __slots__ = (
        "_header",
        "_signatures_at",
        "_source",
        "apps",
        "code",
        "data",
        "engine_mask",
        "fuse_version",
        "patch_location",
        "signature_size",
        "signatures",
        "size",
        "ucode_id",
    )

    def __init__(self, source: Source) -> None:
        self._source = source
        self._header = header = BinHeader(source)
        self.size = size = header.data_size
        raw = source.read(header.header_offset, _HS.size, "signed ucode header")
        area, area_size, location_at, patch_at, meta_at, meta_size, count_at, load_at, load_size = _HS.unpack(raw)
        self.patch_location = self._word(location_at, "patch location")
        self._signatures_at = area + self._word(patch_at, "signature offset")
        self.signatures = count = self._word(count_at, "number of signatures")
        if not 1 <= count <= _MAX_SIGNATURES or area_size % count or not area_size:
            raise FirmwareFormatError(
                "the signatures do not divide their area",
                expected=f"1 to {_MAX_SIGNATURES} equal ones",
                seen=f"{count} in {area_size} bytes",
                where=source.name,
            )
        self.signature_size = area_size // count
        _inside(self._signatures_at, area_size, source.size, "signatures", source)
        _inside(self.patch_location, self.signature_size, size, "patch location", source)
        if meta_size < _META.size:
            raise FirmwareFormatError("signature metadata too short", expected=_META.size, seen=meta_size, where=source.name)
        self.fuse_version, self.engine_mask, self.ucode_id = _META.unpack(source.read(meta_at, _META.size, "signature metadata"))
        self._read_load_header(load_at, load_size)

    def _read_load_header(self, at: int, length: int) -> None:
        source = self._source
        code, code_size, data, data_size, apps = _LOAD.unpack(source.read(at, _LOAD.size, "load header"))
        if not 1 <= apps <= 8 or _LOAD.size + apps * _APP.size > length:
            raise FirmwareFormatError(
                "load header too short for its parts", expected="1 to 8 parts", seen=f"{apps} in {length} bytes", where=source.name
            )
        raw = source.read(at + _LOAD.size, apps * _APP.size, "parts of the load header")
        self.code, self.data = (code, code_size), (data, data_size)
        self.apps = tuple(_APP.iter_unpack(raw))
        _inside(code, code_size, self.size, "non-secure code", source)
        _inside(data, data_size, self.size, "data", source)
        for app in self.apps:
            _inside(app[0], app[1], self.size, "secure code", source)
            _inside(app[2], app[3], self.size, "secure data", source)
        if not data <= self.patch_location:
            raise FirmwareFormatError(
                "the signature is not inside the data", expected=f">= {data:#x}", seen=f"{self.patch_location:#x}", where=source.name
            )

    def _word(self, at: int, what: str) -> int:
        return int.from_bytes(self._source.read(at, 4, what), "little")

    @property
    def pkc_data_offset(self) -> int:
        """Where the boot ROM finds the signature, from the start of the data."""
        offset: int = self.patch_location - self.data[0]
        return offset

    def signature_index(self, fuse: int, chip: str = "this chip") -> int:
        """Which signature fits the chip, `fuse` being the content of its ucode version fuse register.

        One signature fits always; fuse 0 takes the last one. Raises SignatureUnusable.
        """
        if self.signatures == 1:
            return 0
        burned = newest_bit(fuse)
        index: int = self.signatures - 1 if burned == 0 else self.fuse_version - burned
        if not 0 <= index < self.signatures:
            raise SignatureUnusable(
                f"no signature of this ucode fits {chip}",
                expected=f"fuse version at most {self.fuse_version}, {self.signatures} signatures",
                seen=f"fuse version {burned} (register {fuse:#x})",
                where=self._source.name,
                remedy="the chip needs a newer firmware release",
            )
        return index

    def image(self, signature: int | None = None) -> bytearray:
        """The ucode, with that signature put in place (None: as it is in the file)."""
        data = bytearray(self._source.read(self._header.data_offset, self.size, "ucode"))
        if signature is not None:
            if not 0 <= signature < self.signatures:
                raise SignatureUnusable(
                    "no such signature", expected=f"0 to {self.signatures - 1}", seen=signature, where=self._source.name
                )
            at = self._signatures_at + signature * self.signature_size
            data[self.patch_location : self.patch_location + self.signature_size] = self._source.read(at, self.signature_size, "signature")
        return data


class RiscvUcode:
    """The loader that starts GSP-RM on the RISC-V core: descriptor of version 4, 5 or 6 and the image behind it.

    code_offset, data_offset, manifest_offset: what GspFwWprMeta is told (the monitor's, not the bootloader's). app_version goes to
    FALCON_OS.
    """

    __slots__ = (
        "_at",
        "_source",
        "app_version",
        "code_offset",
        "code_size",
        "data_offset",
        "data_size",
        "fb_reserved",
        "manifest_offset",
        "manifest_size",
        "size",
        "version",
    )

    def __init__(self, source: Source) -> None:
        self._source = source
        header = BinHeader(source)
        self._at, self.size = header.data_offset, header.data_size
        self.version = int.from_bytes(source.read(header.header_offset, 4, "RISC-V descriptor"), "little")
        length = _RISCV_SIZES.get(self.version)
        if length is None:
            raise FirmwareFormatError("RISC-V descriptor of an unknown version", expected="4, 5 or 6", seen=self.version, where=source.name)
        words = struct.unpack(f"<{length // 4}I", source.read(header.header_offset, length, "RISC-V descriptor"))
        self.app_version = words[7]
        self.manifest_offset, self.manifest_size, self.data_offset, self.data_size, self.code_offset, self.code_size = words[8:14]
        self.fb_reserved = words[19] if self.version >= 5 else 0
        for index, what in _RISCV_PARTS:
            _inside(words[index], words[index + 1], self.size, what, source)

    def image(self) -> bytes:
        """The whole image, as it goes into memory."""
        return self._source.read(self._at, self.size, "RISC-V image")


class GenericBootloader:
    """The small loader that brings a FWSEC of descriptor version 2 into a falcon; the same form in `gen_bootloader-*.bin` and `acr/bl.bin`.

    start_tag: IMEM tag of its first block, the boot vector is start_tag << 8. code, data: (offset, size) in its image.
    """

    __slots__ = ("_at", "_source", "code", "data", "dmem_load_offset", "size", "start_tag")

    def __init__(self, source: Source) -> None:
        self._source = source
        header = BinHeader(source)
        self._at, self.size = header.data_offset, header.data_size
        raw = source.read(header.header_offset, _GENERIC.size, "bootloader descriptor")
        self.start_tag, self.dmem_load_offset, code, code_size, data, data_size = _GENERIC.unpack(raw)
        self.code, self.data = (code, code_size), (data, data_size)
        _inside(code, code_size, self.size, "bootloader code", source)
        _inside(data, data_size, self.size, "bootloader data", source)
        if not 0 < code_size <= 0x1000 or self.start_tag > 0xFFFF:
            raise FirmwareFormatError(
                "no generic bootloader",
                expected="code of 1 to 4096 bytes, tag below 0x10000",
                seen=f"{code_size}, {self.start_tag:#x}",
                where=source.name,
            )

    def code_bytes(self) -> bytes:
        """The code, to be written to IMEM."""
        return self._source.read(self._at + self.code[0], self.code[1], "bootloader code")


def newest_bit(value: int) -> int:
    """Number of the highest set bit, counted from 1; 0 for 0: a fuse register as a version."""
    return value.bit_length()


def _inside(offset: int, size: int, limit: int, what: str, source: Source) -> None:
    if offset + size > limit:
        raise FirmwareFormatError(
            f"{what} lies outside the image", expected=f"inside {limit:#x} bytes", seen=f"{size:#x} bytes at {offset:#x}", where=source.name
        )
