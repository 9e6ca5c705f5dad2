"""Sections of an ELF file by name: all that the GSP image and the FMC use of ELF.

Owns nothing; reads the ELF header, the section table and the name table, and no section until asked. Little-endian only. Any thread.
Source: System V ABI, ELF-32 and ELF-64; Linux 7.3 nova-core firmware.rs (elf_section).
"""

from __future__ import annotations

import struct
from typing import Final

from nvcore_fw_gsp.images.errors import FirmwareFormatError
from nvcore_fw_gsp.images.source import Source, check_inside

__all__ = ["ElfFile", "Section"]

_HEADERS: Final = {1: struct.Struct("<16xHHIIIIIHHHHHH"), 2: struct.Struct("<16xHHIQQQIHHHHHH")}
_SECTIONS: Final = {1: struct.Struct("<10I"), 2: struct.Struct("<IIQQQQIIQQ")}
_MAX_SECTIONS: Final = 256
_MAX_NAMES: Final = 1 << 16
_NOBITS: Final = 8


class Section:
    """One section: `offset` and `size` in the file, `info` its sh_info."""

    __slots__ = ("info", "kind", "name", "offset", "size")

    def __init__(self, name: str, kind: int, offset: int, size: int, info: int) -> None:
        self.name, self.kind, self.offset, self.size, self.info = name, kind, offset, size, info


class ElfFile:
    """An ELF file of `bits` 32 or 64: `type` and `machine` as in its header, `sections` by name (first one wins)."""

    def __init__(self, source: Source, bits: int) -> None:
        self.source = source
        kind = 2 if bits == 64 else 1
        ident = source.read(0, 16, "ELF identification")
        if ident[:4] != b"\x7fELF" or ident[4] != kind or ident[5] != 1:
            raise FirmwareFormatError(
                "no ELF file of the expected class", expected=f"ELF{bits}, little-endian", seen=ident[:6].hex(" "), where=source.name
            )
        fields = _HEADERS[kind].unpack(source.read(0, _HEADERS[kind].size, "ELF header"))
        self.type, self.machine = fields[0], fields[1]
        table, entry, count, names = fields[5], fields[10], fields[11], fields[12]
        layout = _SECTIONS[kind]
        if entry != layout.size or not 1 <= count <= _MAX_SECTIONS or names >= count:
            raise FirmwareFormatError(
                "the section table is off",
                expected=f"entries of {layout.size} bytes, 1 to {_MAX_SECTIONS}",
                where=source.name,
                seen=f"{count} of {entry} bytes, names in {names}",
            )
        rows = list(layout.iter_unpack(source.read(table, count * entry, "section table")))
        strings = rows[names]
        if strings[5] > _MAX_NAMES:
            raise FirmwareFormatError("section names are implausibly long", expected=f"<= {_MAX_NAMES}", seen=strings[5], where=source.name)
        text = source.read(strings[4], strings[5], "section names")
        self.sections: dict[str, Section] = {}
        for row in rows:
            name = self._name(text, row[0])
            if row[1] != _NOBITS:
                check_inside(source, row[4], row[5], f"section {name or '(none)'}")
                self.sections.setdefault(name, Section(name, row[1], row[4], row[5], row[7]))

    def _name(self, text: bytes, at: int) -> str:
        end = text.find(b"\0", at)
        if end < 0:
            raise FirmwareFormatError("a section's name does not end", seen=f"offset {at} of {len(text)}", where=self.source.name)
        return text[at:end].decode("ascii", "backslashreplace")

    def section(self, name: str) -> Section:
        """The section of that name. Raises FirmwareFormatError listing those that are there."""
        found = self.sections.get(name)
        if found is None:
            raise FirmwareFormatError(
                f"the file has no section {name}", expected=name, seen=", ".join(sorted(self.sections)) or "none", where=self.source.name
            )
        return found

    def read(self, name: str, *, limit: int) -> bytes:
        """The content of a small section. Raises FirmwareFormatError above `limit` bytes."""
        section = self.section(name)
        if section.size > limit:
            raise FirmwareFormatError(f"section {name} is too big", expected=f"<= {limit} bytes", seen=section.size, where=self.source.name)
        return self.source.read(section.offset, section.size, f"section {name}")
