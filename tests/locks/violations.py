"""The table of the validator's self-test (rule L10): each way to break a rule, beside the correct code that must stay silent.

Every row makes its own locks, classes and fences, so that one graph serves no two rows. Importing a `violations_…` module enters its rows.
"""

from __future__ import annotations

from collections.abc import Callable

TABLE: list[tuple[str, str, Callable[[str], object], Callable[[str], object]]] = []
"""(name, rule, the violation, its correct twin)."""

Row = Callable[[str], object]


def row(rule: str, twin: Row) -> Callable[[Row], Row]:
    def add(violation: Row) -> Row:
        TABLE.append((violation.__name__, rule, violation, twin))
        return violation

    return add
