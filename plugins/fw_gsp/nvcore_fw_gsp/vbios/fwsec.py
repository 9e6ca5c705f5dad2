"""FWSEC: the ucode that the ROM carries, and its preparation for the command SB, which is run after an unload.

Owns no device memory: it returns code and data as bytes, patched. Descriptors of version 2 (Turing and GA100, started through the generic
bootloader) are used; those of version 3 (GA102 and later, not booted here) are read for `nvcore firmware inspect` only. Life-cycle thread.
Every offset is compared with the image before it is used.
Source: Linux 7.3 nova-core firmware/fwsec.rs; open-gpu-kernel-modules 570.144 kernel_gsp_fwsec.c.
"""

from __future__ import annotations

import struct
from typing import Final

from nvcore_fw_gsp.vbios.bit import Extended, Vbios
from nvcore_fw_gsp.vbios.errors import VbiosFormatError

__all__ = ["Fwsec"]

_V2: Final = struct.Struct("<15I")
_V3: Final = struct.Struct("<9IHBBHH")
_SIGNATURE: Final = 384
_MAX_PART: Final = 1 << 20
_MAPPER_ID: Final = 4
_MAPPER: Final = struct.Struct("<4sHHII")
_INIT_COMMAND: Final = 0x2C
_SB: Final = 0x19
_READ_VBIOS: Final = struct.Struct("<IIQII")


class Fwsec:
    """One FWSEC: the numbers of its descriptor, in bytes.

    version: 2 or 3. imem_size, dmem_size: of code and data. imem_base, secure_base, secure_size: where the code and its secure part go in
    the falcon (version 2). signature_count: signatures behind the descriptor (version 3).
    """

    __slots__ = (
        "_area",
        "_dmem_offset",
        "_interface_offset",
        "_ucode_at",
        "dmem_size",
        "imem_base",
        "imem_size",
        "name",
        "secure_base",
        "secure_size",
        "signature_count",
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
        raw = self._area.read(pointer, smallest, "FWSEC descriptor")
        if self.version == 2:
            self._parse2(raw)
        else:
            self._parse3(raw, length)
        for size, what in ((self.imem_size, "code"), (self.dmem_size, "data")):
            if not 0 < size <= _MAX_PART:
                raise VbiosFormatError(f"FWSEC {what} of an implausible size", expected=f"1 to {_MAX_PART}", seen=size, where=self.name)
        self._area.read(self._ucode_at, self.imem_size, "FWSEC code")
        self._area.read(self._ucode_at + self._dmem_offset, self.dmem_size, "FWSEC data")

    def _parse2(self, raw: bytes) -> None:
        words = _V2.unpack(raw)
        self._interface_offset = words[4]
        self.imem_base, self.imem_size, virtual, self.secure_base, self.secure_size = words[5:10]
        self._dmem_offset, _, self.dmem_size = words[10:13]
        self.signature_count = 0
        begin = self.secure_base - virtual
        if begin < 0 or begin + self.secure_size > self.imem_size:
            raise VbiosFormatError(
                "FWSEC's secure code lies outside its code",
                expected=f"inside {self.imem_size:#x}",
                seen=f"{self.secure_size:#x} at {begin:#x}",
                where=self.name,
            )

    def _parse3(self, raw: bytes, length: int) -> None:
        words = _V3.unpack(raw)
        patched, self._interface_offset, self.imem_base, self.imem_size = words[2:6]
        self.dmem_size, self.signature_count = words[8], words[11]
        self.secure_base = self.secure_size = 0
        self._dmem_offset = self.imem_size
        if length < _V3.size + self.signature_count * _SIGNATURE or patched + _SIGNATURE > self.dmem_size:
            raise VbiosFormatError(
                "FWSEC's signatures do not fit",
                expected=f"{self.signature_count} of {_SIGNATURE} bytes in the descriptor, one in the data",
                seen=f"descriptor of {length} bytes, data of {self.dmem_size:#x}",
                where=self.name,
            )

    def load_sb(self) -> tuple[bytes, bytearray]:
        """Code, and data with the command SB in place (version 2). Raises VbiosFormatError."""
        code = self._area.read(self._ucode_at, self.imem_size, "FWSEC code")
        data = bytearray(self._area.read(self._ucode_at + self._dmem_offset, self.dmem_size, "FWSEC data"))
        mapper = self._mapper(data)
        signature, version, _, buffer, buffer_size = _MAPPER.unpack_from(data, mapper)
        if signature != b"DMAP" or version != 3:
            raise VbiosFormatError("no DMEM mapper", expected="DMAP, version 3", seen=f"{signature!r}, {version}", where=self.name)
        arguments = _READ_VBIOS.pack(1, _READ_VBIOS.size, 0, 0, 2)
        if buffer_size < len(arguments) or buffer + len(arguments) > len(data):
            raise VbiosFormatError(
                "FWSEC's command buffer is too small or outside its data",
                expected=f"{len(arguments)} bytes inside {len(data):#x}",
                seen=f"{buffer_size:#x} at {buffer:#x}",
                where=self.name,
            )
        data[buffer : buffer + len(arguments)] = arguments
        struct.pack_into("<I", data, mapper + _INIT_COMMAND, _SB)
        return code, data

    def _mapper(self, data: bytearray) -> int:
        """Offset of the DMEM mapper, by the application interface table."""
        at = self._interface_offset
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
