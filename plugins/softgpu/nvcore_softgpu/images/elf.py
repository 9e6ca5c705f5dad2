"""Writing ELF files with sections and nothing else: what firmware containers use of the format.

Pure functions. Source: System V ABI, ELF-64 and ELF-32 object files.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["NOTE", "PROGBITS", "STRTAB", "SYMTAB", "Section", "elf32", "elf64"]

PROGBITS, SYMTAB, STRTAB, NOTE = 1, 2, 3, 7
_IDENTITY64: Final = b"\x7fELF\x02\x01\x01" + bytes(9)
_IDENTITY32: Final = b"\x7fELF\x01\x01\x01" + bytes(9)


class Section(NamedTuple):
    """One section; link: name of the section that it refers to."""

    name: str
    data: bytes
    kind: int = PROGBITS
    flags: int = 0
    align: int = 1
    link: str = ""
    info: int = 0
    entry: int = 0


def _names(sections: Sequence[Section]) -> tuple[bytes, dict[str, int]]:
    strings, where = b"\0", {"": 0}
    for section in sections:
        where[section.name] = len(strings)
        strings += section.name.encode() + b"\0"
    return strings, where


def _place(offset: int, align: int) -> int:
    return -(-offset // align) * align


def elf64(sections: Sequence[Section], *, kind: int, machine: int) -> bytes:
    """A little-endian ELF64 file: header, section data from 0x40 on, names, section table at the end."""
    named = [*sections, Section(".shstrtab", b"", STRTAB)]
    strings, where = _names(named)
    named[-1] = named[-1]._replace(data=strings)
    body, rows = bytearray(64), [bytes(64)]
    number = {section.name: index + 1 for index, section in enumerate(named)}
    for section in named:
        body += bytes(_place(len(body), section.align) - len(body))
        link = number[section.link] if section.link else 0
        rows.append(
            struct.pack(
                "<IIQQQQIIQQ", where[section.name], section.kind, section.flags, 0, len(body), len(section.data), link, section.info,
                section.align, section.entry,
            )
        )  # fmt: skip
        body += section.data
    body += bytes(_place(len(body), 8) - len(body))
    header = struct.pack("<16sHHIQQQIHHHHHH", _IDENTITY64, kind, machine, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(rows), len(rows) - 1)
    body[:64] = header
    return bytes(body) + b"".join(rows)


def elf32(sections: Sequence[Section], *, kind: int, machine: int) -> bytes:
    """A little-endian ELF32 file: header, section table at 0x34, names first, then the section data aligned to 16 bytes."""
    named = [Section(".shstrtab", b"", STRTAB), *sections]
    strings, where = _names(named)
    named[0] = named[0]._replace(data=strings)
    rows = [bytes(40)]
    body = bytearray()
    start = 52 + 40 * (len(named) + 1)
    for section in named:
        offset = _place(start + len(body), section.align)
        body += bytes(offset - start - len(body))
        rows.append(
            struct.pack(
                "<10I", where[section.name], section.kind, section.flags, 0, offset, len(section.data), 0, section.info, section.align, 0
            )
        )  # fmt: skip
        body += section.data
    header = struct.pack("<16sHHIIIIIHHHHHH", _IDENTITY32, kind, machine, 1, 0, 0, 52, 0, 52, 0, 0, 40, len(rows), 1)
    return header + b"".join(rows) + bytes(body)
