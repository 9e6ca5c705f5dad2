"""The journal of one GPU: violations, and counts of what the model does not know.

Owns the lists that a test reads as its result. Implements `ports.Violations`. Called under the device's lock; keeps bounded memory
whatever a guest does: one entry per distinct violation, the first texts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["Journal", "Violation"]

LIMIT: Final = 512


class Violation:
    """One kind of violation: its name, the text of its first occurrence, whether a fault had acted by then, and how often it occurred."""

    __slots__ = ("after_fault", "count", "name", "text")

    def __init__(self, name: str, text: str, after_fault: bool) -> None:
        self.name = name
        self.text = text
        self.after_fault = after_fault
        self.count = 1

    def __repr__(self) -> str:
        return f"{self.name}: {self.text}" + (f" (x{self.count})" if self.count > 1 else "")


class Journal:
    """Violations in the order first seen, unknown registers by (offset, write), unknown controls by command."""

    def __init__(self, acted: Sequence[str] = ()) -> None:
        """acted: the log of the faults that acted, which grows."""
        self._acted = acted
        self._violations: dict[tuple[str, str], Violation] = {}
        self.total = 0
        self.dropped = 0
        self.unknown_registers: dict[tuple[int, bool], int] = {}
        self.unknown_controls: dict[int, int] = {}

    @property
    def violations(self) -> list[Violation]:
        """All distinct violations."""
        return list(self._violations.values())

    def violation(self, name: str, text: str) -> None:
        """Record one violation; texts beyond the limit are only counted."""
        self.total += 1
        known = self._violations.get((name, text))
        if known is not None:
            known.count += 1
        elif len(self._violations) < LIMIT:
            self._violations[(name, text)] = Violation(name, text, bool(self._acted))
        else:
            self.dropped += 1

    def unknown_register(self, offset: int, write: bool) -> None:
        """Count an access to a register without a row."""
        key = (offset, write)
        if key in self.unknown_registers or len(self.unknown_registers) < LIMIT * 8:
            self.unknown_registers[key] = self.unknown_registers.get(key, 0) + 1

    def unknown_control(self, command: int) -> None:
        """Count a control without a handler."""
        if command in self.unknown_controls or len(self.unknown_controls) < LIMIT * 8:
            self.unknown_controls[command] = self.unknown_controls.get(command, 0) + 1

    def clear(self) -> None:
        """Forget everything; the model's state is unchanged."""
        self._violations.clear()
        self.unknown_registers.clear()
        self.unknown_controls.clear()
        self.total = self.dropped = 0
