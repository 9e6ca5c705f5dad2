"""One version's data file: a structure or a value is found by its name, without parsing the rest.

Owns the mapped text files under `data/` (written by scripts/generate_abi.py). A version may be written as differences from another one: a
name that its own file lacks is looked up there, `NAME !` says that it is absent. Any thread: caches get equal values whoever is first.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

from nvcore_fw_gsp.abi.errors import AbiError, AbiNameError, AbiVersionError
from nvcore_fw_gsp.abi.layout import Struct

__all__ = ["Abi", "load", "versions"]

_FOLDER = os.path.join(os.path.dirname(__file__), "data")
_STRUCTS = b"\n[structs]\n"
_VALUES = b"\n[values]\n"
_loaded: dict[str, Abi] = {}


class Abi:
    """Layouts and numbers of one firmware version. `version` and `source` say which and where from."""

    __slots__ = ("_base", "_structs", "_structs_at", "_text", "_values", "_values_at", "source", "version")

    def __init__(self, version: str, text: mmap.mmap) -> None:
        self._text = text
        self._structs_at = text.find(_STRUCTS) + len(_STRUCTS) - 1
        self._values_at = text.find(_VALUES) + len(_VALUES) - 1
        header = dict(line.split(" ", 1) for line in text[: self._structs_at].decode().splitlines() if " " in line)
        if header.get("nvcore-abi") != "1" or header.get("version") != version:
            raise AbiError("ABI data file of another form or version", expected=f"form 1 of {version}", seen=str(header)[:80])
        self.version = version
        self.source = header["source"]
        self._base = load(header["base"]) if "base" in header else None
        self._structs: dict[str, Struct] = {}
        self._values: dict[str, int | str] = {}

    def struct(self, name: str) -> Struct:
        """The layout of one structure. Raises AbiNameError."""
        found = self._structs.get(name)
        if found is None:
            line = self._line(name, structs=True)
            if line is None:
                raise AbiNameError(f"firmware version {self.version} has no structure {name}", remedy="ask has_struct() first")
            found = self._structs.setdefault(name, Struct.parse(name, line, self.struct))
        return found

    def has_struct(self, name: str) -> bool:
        """Whether this version has the structure."""
        return name in self._structs or self._line(name, structs=True) is not None

    def enum(self, name: str) -> int:
        """The number of an enumerator or constant. Raises AbiNameError, also where the value is text or a bit range."""
        value = self._value(name)
        if isinstance(value, str):
            raise AbiNameError(f"{name} is no number in firmware version {self.version}", seen=value, remedy="use text() or bits()")
        return value

    def text(self, name: str) -> str:
        """A constant that is text, as in GSP_IMAGE_SECTION_NAME. Raises AbiNameError."""
        value = self._value(name)
        if isinstance(value, int):
            raise AbiNameError(f"{name} is a number in firmware version {self.version}", seen=value, remedy="use enum()")
        return value

    def bits(self, name: str) -> tuple[int, int]:
        """A bit range as (high, low), both inclusive. Raises AbiNameError."""
        high, _, low = self.text(name).partition(":")
        if not (high.isdigit() and low.isdigit()):
            raise AbiNameError(f"{name} is no bit range in firmware version {self.version}", seen=self.text(name))
        return int(high), int(low)

    def has_value(self, name: str) -> bool:
        """Whether this version has the constant."""
        return name in self._values or self._line(name, structs=False) is not None

    def enums(self, prefix: str) -> dict[str, int]:
        """All numbers whose names begin with `prefix`, for naming numbers in messages. Parses the whole section: not for hot paths."""
        found = self._base.enums(prefix) if self._base else {}
        for line in self._section(structs=False):
            if line.startswith(prefix):
                name, _, value = line.partition(" ")
                if value == "!":
                    found.pop(name, None)
                elif not value.startswith("="):
                    found[name] = int(value)
        return found

    def struct_names(self) -> list[str]:
        """Names of all structures, sorted; inner ones as "Outer/member". Parses the whole section."""
        names = set(self._base.struct_names()) if self._base else set()
        for line in self._section(structs=True):
            name, _, rest = line.partition(" ")
            if rest == "!":
                names.discard(name)
            else:
                names.add(name)
        return sorted(names)

    def _section(self, *, structs: bool) -> Iterator[str]:
        start, end = self._range(structs=structs)
        return iter(self._text[start + 1 : end].decode().splitlines())

    def _range(self, *, structs: bool) -> tuple[int, int]:
        """A section: the newline before its first line, and the place behind its last newline."""
        return (self._structs_at, self._values_at - len(_VALUES) + 1) if structs else (self._values_at, len(self._text))

    def _line(self, name: str, *, structs: bool) -> str | None:
        """What follows `name` on its line, or None where this version lacks it."""
        start, end = self._range(structs=structs)
        key, text = name.encode(), self._text
        low, high = start + 1, end  # both at the beginning of a line: the lines are sorted by name, so halving finds one in about 12 looks
        while low < high:
            middle = text.rfind(b"\n", low - 1, (low + high) // 2) + 1
            stop = text.find(b"\n", middle)
            found, _, rest = text[middle:stop].partition(b" ")
            if found == key:
                return None if rest == b"!" else rest.decode()
            if found < key:
                low = stop + 1
            else:
                high = middle
        return self._base._line(name, structs=structs) if self._base else None

    def _value(self, name: str) -> int | str:
        found = self._values.get(name)
        if found is None:
            line = self._line(name, structs=False)
            if line is None:
                raise AbiNameError(f"firmware version {self.version} has no constant {name}")
            found = self._values.setdefault(name, line[1:] if line.startswith("=") else int(line))
        return found


def versions() -> tuple[str, ...]:
    """The firmware versions that have data, oldest first."""
    names = (name[:-4] for name in os.listdir(_FOLDER) if name.endswith(".txt"))
    return tuple(sorted(names, key=lambda name: [int(part) for part in name.split(".")]))


def load(version: str) -> Abi:
    """The data of one version, kept for the life of the process. Raises AbiVersionError."""
    found = _loaded.get(version)
    if found is None:
        if version not in versions():
            raise AbiVersionError(f"no ABI data for firmware version {version!r}", expected=" or ".join(versions()))
        with open(os.path.join(_FOLDER, f"{version}.txt"), "rb") as file:
            text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = _loaded.setdefault(version, Abi(version, text))
    return found
