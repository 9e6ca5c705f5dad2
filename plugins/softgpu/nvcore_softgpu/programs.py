"""The boot programs of a firmware folder, as the model reads them: which bytes a driver must have put into SEC2.

Owns what of `booter_load` and `booter_unload` files belongs where, and the comparison with falcon memory. Reads files, once a card,
before any register access. A real boot ROM checks a signature; the model compares with the file.
Source: gsp-boot.md 5.2 (linux-firmware nvidia/ga100/gsp; Linux 7.3 nouveau include/nvfw/{fw,hs}.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nvcore_softgpu.images.parser import ImageFormatError, parse_hs
from nvcore_softgpu.images.shelf import parsed

__all__ = ["BootProgram", "parse_program", "read_programs"]


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


def parse_program(raw: bytes | memoryview, role: str, version: str) -> BootProgram:
    """Understand one file. Raises ImageFormatError."""
    file = parse_hs(raw)
    (code_at, code_size), (data_at, data_size) = file.os_code, file.os_data
    app_at, app_size = file.apps[0][:2]
    patch, each = file.patch - data_at, len(file.signatures[0])
    if code_at or not code_size or app_at != code_size or not 0 <= patch <= data_size - each:
        raise ImageFormatError(
            "parts are not where a boot program has them",
            expected="open code, secure code behind it, the signature's place in the data",
            seen=f"code at {code_at:#x} and {app_at:#x}, data at {data_at:#x}, signature at {file.patch:#x}",
        )
    code, data = file.image[: code_size + app_size], file.image[data_at : data_at + data_size]
    return BootProgram(role, version, bytes(code), bytes(data), file.signatures, patch)


def read_programs(folder: Path, chip: str) -> Sequence[BootProgram]:
    """Every boot program of a chip in a folder; empty when it has none. Raises ImageFormatError, OSError."""
    found = []
    for base in (folder / "nvidia", folder):
        for role in ("load", "unload"):
            for path in sorted((base / chip.lower() / "gsp").glob(f"booter_{role}-*.bin")):
                version = path.name.removeprefix(f"booter_{role}-").removesuffix(".bin")
                found.append(parsed(path, partial(parse_program, role=role, version=version)))
        if found:
            break
    return found
