"""The boot programs of a firmware folder, as the model reads them: which bytes a driver must have put into SEC2.

Owns a parser of its own for `booter_load` and `booter_unload` files and the comparison with falcon memory. Reads files, once a card,
before any register access. A real boot ROM checks a signature; the model compares with the file.
Source: gsp-boot.md 5.2 (linux-firmware nvidia/ga100/gsp; Linux 7.3 nouveau include/nvfw/{fw,hs}.h).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from nvcore.api.errors import FormatError

__all__ = ["BootProgram", "ProgramFormatError", "parse_program", "read_programs"]

BIN_MAGIC: Final = 0x10DE
LARGEST: Final = 1 << 20


class ProgramFormatError(FormatError):
    """A boot program's file is not what its format says."""

    code = "NVC-7102"
    usual_remedy = "nvcore softgpu firmware DIR writes sound ones"


class BootProgram(NamedTuple):
    """One program. role: "load" or "unload". code: IMEM from 0. data: DMEM from 0. signatures: what may lie at `patch` in the data."""

    role: str
    version: str
    code: bytes
    data: bytes
    signatures: tuple[bytes, ...]
    patch: int

    def matches_code(self, imem: memoryview) -> bool:
        """Whether this program's code is what was loaded."""
        return bytes(imem[: len(self.code)]) == self.code

    def matches_data(self, dmem: memoryview) -> bool:
        """Whether the data is that of the file with one of its signatures patched in."""
        loaded = bytes(dmem[: len(self.data)])
        end = self.patch + len(self.signatures[0])
        return (
            loaded[: self.patch] == self.data[: self.patch]
            and loaded[end:] == self.data[end:]
            and loaded[self.patch : end] in self.signatures
        )


def parse_program(raw: bytes, role: str, version: str, where: str) -> BootProgram:
    """Understand one file. Raises ProgramFormatError."""

    def words(offset: int, count: int) -> tuple[int, ...]:
        if offset < 0 or offset + 4 * count > len(raw):
            raise ProgramFormatError("a header lies outside the file", expected=f"inside {len(raw)} bytes", seen=hex(offset), where=where)
        return struct.unpack_from(f"<{count}I", raw, offset)

    def piece(offset: int, size: int) -> bytes:
        if size <= 0 or size > LARGEST or offset + size > len(raw):
            raise ProgramFormatError(
                "a part lies outside the file", expected=f"inside {len(raw)} bytes", seen=f"{offset:#x}+{size:#x}", where=where
            )
        return raw[offset : offset + size]

    magic, _, _, header, data_at, _ = words(0, 6)
    if magic != BIN_MAGIC:
        raise ProgramFormatError("not a firmware container", expected=hex(BIN_MAGIC), seen=hex(magic), where=where)
    signature_at, signature_size, patch_at, offset_at, _, _, count_at, load_at, _ = words(header, 9)
    (patch,), (offset,), (count,) = words(patch_at, 1), words(offset_at, 1), words(count_at, 1)
    code_at, code_size, os_data_at, os_data_size, _, app_at, app_size = words(load_at, 7)
    if not count or signature_size % count or code_at or app_at != code_size:
        raise ProgramFormatError(
            "parts are not where a boot program has them", seen=f"{count} signatures, code at {code_at:#x}", where=where
        )
    each = signature_size // count
    if not os_data_at <= patch <= os_data_at + os_data_size - each:
        raise ProgramFormatError("the signature's place is outside the data", seen=hex(patch), where=where)
    signatures = tuple(piece(signature_at + offset + index * each, each) for index in range(count))
    code = piece(data_at, code_size + app_size)
    return BootProgram(role, version, code, piece(data_at + os_data_at, os_data_size), signatures, patch - os_data_at)


def read_programs(folder: Path, chip: str) -> Sequence[BootProgram]:
    """Every boot program of a chip in a folder; empty when it has none. Raises ProgramFormatError, OSError."""
    found = []
    for base in (folder / "nvidia", folder):
        for role in ("load", "unload"):
            for path in sorted((base / chip.lower() / "gsp").glob(f"booter_{role}-*.bin")):
                version = path.name.removeprefix(f"booter_{role}-").removesuffix(".bin")
                found.append(parse_program(path.read_bytes(), role, version, str(path)))
        if found:
            break
    return found
