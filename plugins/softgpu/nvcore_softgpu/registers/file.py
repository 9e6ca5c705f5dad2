"""The register file: rows, their handlers, and what happens where there is no row.

Owns the dispatch of 32-bit accesses inside BAR0: dictionaries of bound handlers and of stored values, and a page table of apertures. A
register without a row is counted and behaves "last value written, else 0". Runs under the device's lock. The hot paths are `read` and
`write`.
Source: device-model.md 4 ("unknown registers") and 15.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from nvcore_softgpu.ports import Violations

__all__ = ["NOUVEAU", "OGKM", "Read", "RegisterFile", "Row", "Write"]

Read = Callable[[int], int]
"""Called with an offset; the value."""

Write = Callable[[int, int], None]
"""Called with an offset and the value written."""

NOUVEAU: Final = "Linux 7.3 nouveau"
"""A row's source: drivers/gpu/drm/nouveau of that kernel."""

OGKM: Final = "open-gpu-kernel-modules 570.144"
"""A row's source: NVIDIA's own module."""


class Row(NamedTuple):
    """One register, or an array of `number` of one kind, `stride` apart. kind: "handled", "constant", "stored", or "window" (aperture)."""

    offset: int
    name: str
    meaning: str
    source: str
    kind: str
    number: int = 1
    stride: int = 4


class RegisterFile:
    """Registers of one function's BAR0. Offsets are bytes, values 32 bits."""

    def __init__(self, violations: Violations) -> None:
        self.rows: list[Row] = []
        self.readers: dict[int, Read] = {}
        self.writers: dict[int, Write] = {}
        self.values: dict[int, int] = {}
        self.apertures: dict[int, tuple[Read, Write]] = {}
        self.ports_in: dict[int, Callable[[memoryview], None]] = {}
        self._unknown: dict[int, int] = {}
        self._initial: dict[int, int] = {}
        self._count_unknown = violations.unknown_register
        self._violation = violations.violation
        self._reader = self.readers.get
        self._writer = self.writers.get
        self._value = self.values.get
        self._aperture = self.apertures.get

    # --- rows ---------------------------------------------------------------------------------------------------------------------

    def stored(self, offset: int, name: str, meaning: str, source: str, *, value: int = 0, count: int = 1, stride: int = 4) -> None:
        """A register that gives back what was written."""
        self.rows.append(Row(offset, name, meaning, source, "stored", count, stride))
        for place in range(offset, offset + count * stride, stride):
            self._claim(place, name)
            self.values[place] = value

    def constant(self, offset: int, name: str, meaning: str, source: str, *, value: int, count: int = 1, stride: int = 4) -> None:
        """A register that always reads the same; writes are ignored and are a violation (nothing polite writes it)."""
        self.rows.append(Row(offset, name, meaning, source, "constant", count, stride))
        for place in range(offset, offset + count * stride, stride):
            self._claim(place, name)
            self.values[place] = value
            self.writers[place] = self._ignored

    def handled(
        self,
        offset: int,
        name: str,
        meaning: str,
        source: str,
        *,
        read: Read | None = None,
        write: Write | None = None,
        value: int = 0,
        count: int = 1,
        stride: int = 4,
    ) -> None:
        """A register with an effect. Without `read` the stored value is read; without `write` a write is stored."""
        self.rows.append(Row(offset, name, meaning, source, "handled", count, stride))
        for place in range(offset, offset + count * stride, stride):
            self._claim(place, name)
            self.values[place] = value
            if read is not None:
                self.readers[place] = read
            if write is not None:
                self.writers[place] = write

    def aperture(self, offset: int, size: int, name: str, meaning: str, source: str, *, read: Read, write: Write) -> None:
        """A window of whole 4 KiB pages; one row."""
        self.rows.append(Row(offset, name, meaning, source, "window", size // 4, 4))
        for page in range(offset >> 12, (offset + size) >> 12):
            if page in self.apertures:
                raise ValueError(f"two apertures at {page << 12:#x}")
            self.apertures[page] = (read, write)

    def _claim(self, offset: int, name: str) -> None:
        if offset in self.values or (offset >> 12) in self.apertures:
            raise ValueError(f"two rows at {offset:#x}: {name}")

    def _ignored(self, offset: int, value: int) -> None:
        self._violation("write-to-constant", f"register {offset:#x} <- {value:#x}")

    def complete(self) -> None:
        """All rows are there: what they hold now is what a reset gives back."""
        self._initial = dict(self.values)

    def reset(self) -> None:
        """Give every stored value its initial one and forget what was written where there is no row."""
        self.values.update(self._initial)
        self._unknown.clear()

    def counts(self) -> dict[str, int]:
        """Registers by kind, every one of an array; "stored" ones merely keep what was written. A window counts once."""
        result = {"handled": 0, "constant": 0, "stored": 0, "window": 0}
        for row in self.rows:
            result[row.kind] += 1 if row.kind == "window" else row.number
        return result

    # --- accesses (hot) -----------------------------------------------------------------------------------------------------------

    def read(self, offset: int) -> int:
        """One aligned 32-bit read."""
        reader = self._reader(offset)
        if reader is not None:
            return reader(offset)
        value = self._value(offset)
        if value is not None:
            return value
        aperture = self._aperture(offset >> 12)
        if aperture is not None:
            return aperture[0](offset)
        self._count_unknown(offset, False)
        return self._unknown.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        """One aligned 32-bit write."""
        writer = self._writer(offset)
        if writer is not None:
            writer(offset, value)
            return
        aperture = self._aperture(offset >> 12)
        if aperture is not None:
            aperture[1](offset, value)
            return
        if offset in self.values:
            self.values[offset] = value
            return
        self._count_unknown(offset, True)
        if len(self._unknown) < 1 << 16:
            self._unknown[offset] = value
