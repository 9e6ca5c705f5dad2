"""Reserves: what a signalling section may use up, counted when it was still allowed to allocate (rule L8).

Owns two counts. Used by one thread at a time: the one that runs the job. The validator's half is `nvcore.testing.lockdep.reserve`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from nvcore.api.marks import may_sleep, signalling_safe

__all__ = ["Reserve"]


class Reserve:
    """A fixed number of allocations made in advance.

    `with reserve:` lets nvcore's allocating primitives inside draw on it; `draw()` takes one by hand. `used` counts draws, `over` those
    beyond `count` (each a violation, L8.over-use), `unused` what is left.
    """

    __slots__ = ("count", "name", "used")

    @may_sleep
    def __init__(self, count: int, name: str = "reserve") -> None:
        self.count, self.name, self.used = count, name, 0

    @property
    def unused(self) -> int:
        """Allocations left."""
        return max(0, self.count - self.used)

    @property
    def over(self) -> int:
        """Draws beyond `count`."""
        return max(0, self.used - self.count)

    @signalling_safe
    def draw(self, what: str = "an allocation") -> None:
        """Use one. One beyond `count` shows in `over`, and the validator reports it."""
        self.used += 1

    def close(self, *, exact: bool = False) -> int:
        """End the reserve; returns what was not used. exact: the validator reports what is left over (L8.under-use)."""
        return self.unused

    def report(self) -> str:
        """One line: what was reserved, used, left and overdrawn."""
        return f"{self.name}: {self.count} reserved, {self.used - self.over} used, {self.unused} unused, {self.over} over"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        return None
