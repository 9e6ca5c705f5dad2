"""FWSEC: the ucode that the ROM carries, and its preparation for one command (FRTS before a boot, SB after an unload).

Owns no device memory: it returns code and data as bytes, patched. Descriptor versions 2 (Turing, through the generic bootloader) and 3
(direct). Life-cycle thread. Every offset is compared with the image before it is used.
Source: Linux 7.3 nova-core firmware/fwsec.rs; open-gpu-kernel-modules 570.144 kernel_gsp_fwsec.c.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Literal

from nvcore_fw_gsp.images.errors import SignatureUnusable
from nvcore_fw_gsp.vbios.bit import Extended, Vbios, read_vbios
from nvcore_fw_gsp.vbios.errors import VbiosError, VbiosFormatError, VbiosUnreadable
from nvcore_fw_gsp.vbios.rom import RomSource, open_rom

__all__ = ["Fwsec", "FwsecLoad", "find_fwsec"]

_V2: Final = struct.Struct("<15I")
_V3: Final = struct.Struct("<9IHBBHH")
_SIGNATURE: Final = 384
_MAX_PART: Final = 1 << 20
_MAPPER_ID: Final = 4
_MAPPER: Final = struct.Struct("<4sHHII")
_INIT_COMMAND: Final = 0x2C
_COMMANDS: Final = {"frts": 0x15, "sb": 0x19}
_READ_VBIOS: Final = struct.Struct("<IIQII")
_FRTS: Final = struct.Struct("<IIIII")
_FUSES: Final = ((0x001, 0x824140, "SEC2"), (0x004, 0x824100, "NVDEC"), (0x400, 0x8241C0, "GSP"))


class FwsecLoad:
    """FWSEC ready for one command.

    code: IMEM content from offset 0 of the image; data: DMEM content, command and signature in place. secure: (offset, size) of the secure
    part in `code` (version 2; in version 3 all of it goes through the boot ROM). command: "frts" or "sb".
    """

    __slots__ = ("code", "command", "data", "fwsec", "secure")

    def __init__(self, fwsec: Fwsec, command: str, code: bytes, data: bytearray, secure: tuple[int, int]) -> None:
        self.fwsec, self.command, self.code, self.data, self.secure = fwsec, command, code, data, secure


class Fwsec:
    """One FWSEC: the numbers of its descriptor, offsets in bytes.

    version: 2 or 3. imem_*, dmem_*: where code and data go in the falcon. entry: virtual address of the first instruction (0 in version 3).
    pkc_data_offset, engine_mask, ucode_id: what the boot ROM is told (version 3). signature_versions: bit mask of the fuse versions that
    the signatures are for.
    """

    __slots__ = (
        "_area",
        "_signatures_at",
        "_ucode_at",
        "dmem_base",
        "dmem_offset",
        "dmem_size",
        "engine_mask",
        "entry",
        "imem_base",
        "imem_size",
        "imem_virtual",
        "interface_offset",
        "name",
        "pkc_data_offset",
        "secure_base",
        "secure_size",
        "signature_count",
        "signature_versions",
        "ucode_id",
        "version",
    )

    def __init__(self, vbios: Vbios, *, debug: bool = False) -> None:
        pointer = vbios.fwsec_pointer(debug)
        self._area: Extended = vbios.extended
        self.name = vbios.name
        head = int.from_bytes(self._area.read(pointer, 4, "FWSEC descriptor"), "little")
        self.version, length = head >> 8 & 0xFF, head >> 16
        smallest = {2: _V2.size, 3: _V3.size}.get(self.version)
        if smallest is None or not head & 1 or length < smallest:
            raise VbiosFormatError(
                "FWSEC descriptor of an unknown form",
                expected="version 2 of 60 bytes or version 3 of 44 or more",
                seen=f"version {self.version}, {length} bytes",
                where=self.name,
            )
        self._ucode_at = pointer + length
        self._signatures_at = pointer + _V3.size
        raw = self._area.read(pointer, smallest, "FWSEC descriptor")
        if self.version == 2:
            self._parse2(raw)
        else:
            self._parse3(raw, length)
        for size, what in ((self.imem_size, "code"), (self.dmem_size, "data")):
            if not 0 < size <= _MAX_PART:
                raise VbiosFormatError(f"FWSEC {what} of an implausible size", expected=f"1 to {_MAX_PART}", seen=size, where=self.name)
        self._area.read(self._ucode_at, self.imem_size, "FWSEC code")
        self._area.read(self._ucode_at + self.dmem_offset, self.dmem_size, "FWSEC data")

    def _parse2(self, raw: bytes) -> None:
        words = _V2.unpack(raw)
        self.entry, self.interface_offset = words[3], words[4]
        self.imem_base, self.imem_size, self.imem_virtual, self.secure_base, self.secure_size = words[5:10]
        self.dmem_offset, self.dmem_base, self.dmem_size = words[10:13]
        self.pkc_data_offset = self.engine_mask = self.ucode_id = self.signature_count = self.signature_versions = 0
        begin = self.secure_base - self.imem_virtual
        if begin < 0 or begin + self.secure_size > self.imem_size or self.secure_size > self.imem_size:
            raise VbiosFormatError(
                "FWSEC's secure code lies outside its code",
                expected=f"inside {self.imem_size:#x}",
                seen=f"{self.secure_size:#x} at {begin:#x}",
                where=self.name,
            )

    def _parse3(self, raw: bytes, length: int) -> None:
        words = _V3.unpack(raw)
        self.pkc_data_offset, self.interface_offset, self.imem_base, self.imem_size, self.imem_virtual, self.dmem_base, self.dmem_size = (
            words[2:9]
        )
        self.engine_mask, self.ucode_id, self.signature_count, self.signature_versions, _ = words[9:]
        self.entry = self.secure_base = self.secure_size = 0
        self.dmem_offset = self.imem_size
        if length < _V3.size + self.signature_count * _SIGNATURE or self.pkc_data_offset + _SIGNATURE > self.dmem_size:
            raise VbiosFormatError(
                "FWSEC's signatures do not fit",
                expected=f"{self.signature_count} of {_SIGNATURE} bytes in the descriptor, one in the data",
                seen=f"descriptor of {length} bytes, data of {self.dmem_size:#x}",
                where=self.name,
            )

    @property
    def fuse_register(self) -> int | None:
        """BAR0 offset of the fuse register that chooses the signature; None for version 2. Raises VbiosFormatError for an unknown
        engine."""
        if self.version == 2:
            return None
        for mask, base, _ in _FUSES:
            if self.engine_mask & mask and 1 <= self.ucode_id <= 16:
                return base + 4 * (self.ucode_id - 1)
        raise VbiosFormatError(
            "FWSEC names no engine with a fuse",
            expected=", ".join(f"{name} {mask:#x}" for mask, _, name in _FUSES) + ", ucode 1 to 16",
            seen=f"mask {self.engine_mask:#x}, ucode {self.ucode_id}",
            where=self.name,
        )

    def signature_index(self, fuse: int, chip: str = "this chip") -> int:
        """Which signature fits, `fuse` being the low 16 bits of the fuse register. Raises SignatureUnusable naming all three."""
        burned = (fuse & 0xFFFF).bit_length()
        bit = 1 << burned
        index = (self.signature_versions & (bit - 1)).bit_count()
        if not bit & self.signature_versions or index >= self.signature_count:
            raise SignatureUnusable(
                f"no signature of FWSEC fits {chip}",
                expected=f"a signature for fuse version {burned}",
                seen=f"{self.signature_count} signatures, versions {self.signature_versions:#06x}, fuse {fuse:#x}",
                where=self.name,
            )
        return index

    def load(
        self, command: Literal["frts", "sb"], *, frts_address: int = 0, frts_size: int = 0, fuse: int | None = None, chip: str = "this chip"
    ) -> FwsecLoad:
        """Code and data for one command.

        frts_address, frts_size: bytes in VRAM, multiples of 4096 (command "frts"). fuse: content of `fuse_register` (version 3).
        Raises VbiosFormatError, SignatureUnusable.
        """
        code = self._area.read(self._ucode_at, self.imem_size, "FWSEC code")
        data = bytearray(self._area.read(self._ucode_at + self.dmem_offset, self.dmem_size, "FWSEC data"))
        if self.version == 3:
            at = self._signatures_at + self.signature_index(fuse or 0, chip) * _SIGNATURE
            data[self.pkc_data_offset : self.pkc_data_offset + _SIGNATURE] = self._area.read(at, _SIGNATURE, "signature")
        self._patch(data, command, frts_address, frts_size)
        return FwsecLoad(self, command, code, data, (self.secure_base - self.imem_virtual, self.secure_size))

    def _patch(self, data: bytearray, command: str, address: int, size: int) -> None:
        """Write the command and its arguments into the data."""
        mapper = self._mapper(data)
        signature, version, _, buffer, buffer_size = _MAPPER.unpack_from(data, mapper)
        if signature != b"DMAP" or version != 3:
            raise VbiosFormatError("no DMEM mapper", expected="DMAP, version 3", seen=f"{signature!r}, {version}", where=self.name)
        arguments = _READ_VBIOS.pack(1, _READ_VBIOS.size, 0, 0, 2)
        if command == "frts":
            if address % 4096 or size % 4096 or not 0 <= address >> 12 < 1 << 32 or not 0 <= size >> 12 < 1 << 32:
                raise VbiosFormatError(
                    "FRTS does not lie on pages", expected="multiples of 4096 below 2^44", seen=f"{size:#x} at {address:#x}"
                )
            arguments += _FRTS.pack(1, _FRTS.size, address >> 12, size >> 12, 2)
        if buffer_size < len(arguments) or buffer + len(arguments) > len(data):
            raise VbiosFormatError(
                "FWSEC's command buffer is too small or outside its data",
                expected=f"{len(arguments)} bytes inside {len(data):#x}",
                seen=f"{buffer_size:#x} at {buffer:#x}",
                where=self.name,
            )
        data[buffer : buffer + len(arguments)] = arguments
        struct.pack_into("<I", data, mapper + _INIT_COMMAND, _COMMANDS[command])

    def _mapper(self, data: bytearray) -> int:
        """Offset of the DMEM mapper, by the application interface table."""
        at = self.interface_offset
        if at + 4 > len(data):
            raise VbiosFormatError(
                "FWSEC's interface table lies outside its data", expected=f"inside {len(data):#x}", seen=f"{at:#x}", where=self.name
            )
        version, header, entry, count = data[at : at + 4]
        if version != 1 or header < 4 or entry < 8 or at + header + entry * count > len(data):
            raise VbiosFormatError("FWSEC's interface table is off", seen=bytes(data[at : at + 4]).hex(" "), where=self.name)
        for index in range(count):
            number, offset = struct.unpack_from("<II", data, at + header + index * entry)
            if number == _MAPPER_ID:
                if offset + 64 > len(data):
                    raise VbiosFormatError(
                        "the DMEM mapper lies outside the data", expected=f"inside {len(data):#x}", seen=f"{offset:#x}", where=self.name
                    )
                return int(offset)
        raise VbiosFormatError(
            "FWSEC's interface table has no DMEM mapper", expected=f"entry {_MAPPER_ID}", seen=f"{count} entries", where=self.name
        )


def find_fwsec(sources: Sequence[RomSource], *, debug: bool = False, offset: int | None = None) -> tuple[Vbios, Fwsec]:
    """ROM and FWSEC of the first source that parses so far: one that fails anywhere on the way is followed by the next.

    Raises what the only source raises, or VbiosUnreadable with each source's reason.
    """
    errors: list[VbiosError] = []
    for source in sources:
        try:
            vbios = read_vbios(open_rom([source], offset))
            return vbios, Fwsec(vbios, debug=debug)
        except VbiosError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    told = "; ".join(f"{source[0]}: {error.what}, {error.seen}" for source, error in zip(sources, errors, strict=True))
    raise VbiosUnreadable("no source gives a VBIOS with FWSEC", expected="one sound ROM", seen=told or "no source")
