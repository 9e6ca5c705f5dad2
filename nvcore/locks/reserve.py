"""Reserves: what a signalling section may use up, counted when it was still allowed to allocate (rule L8).

Owns one number. Used by one thread at a time: the one that runs the job.
"""

from __future__ import annotations

from types import TracebackType

from nvcore.api.marks import LOCKDEP, may_sleep, signalling_safe

__all__ = ["Reserve", "starved"]

starved: list[object] = []
"""While not empty, whatever draws on no reserve fails with MemoryError, in every thread: set by a freeze test, with the validator on."""


class Reserve:
    """A fixed number of allocations made in advance.

    `with reserve:` lets nvcore's allocating primitives inside draw on it; `draw()` takes one by hand. `used` counts draws, `over` those
    beyond `count` (each a violation, L8.over-use), `unused` what is left.
    """

    __slots__ = ("_outer", "count", "name", "over", "used")

    @may_sleep
    def __init__(self, count: int, name: str = "reserve") -> None:
        self.count = count
        self.name = name
        self.used = 0
        self.over = 0
        self._outer: list[Reserve | None] = []

    @property
    def unused(self) -> int:
        """Allocations left."""
        return max(0, self.count - self.used)

    @signalling_safe
    def draw(self, what: str = "an allocation") -> None:
        """Use one. Beyond `count` it is counted in `over` and reported."""
        self.used += 1
        if self.used > self.count:
            self.over += 1
            _broken("L8.over-use", f"{self.name} of {self.count}: {what} is number {self.used}")

    def close(self, *, exact: bool = False) -> int:
        """End the reserve; returns what was not used. exact: something left over is a violation (L8.under-use)."""
        left = self.unused
        if exact and left:
            _broken("L8.under-use", f"{self.name} of {self.count}: {left} not used")
        return left

    def report(self) -> str:
        """One line: what was reserved, used, left and overdrawn."""
        return f"{self.name}: {self.count} reserved, {min(self.used, self.count)} used, {self.unused} unused, {self.over} over"

    def __enter__(self) -> Reserve:
        if LOCKDEP:
            from nvcore.locks.stack import current

            stack = current()
            self._outer.append(stack.reserve)
            stack.reserve = self
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if LOCKDEP:
            from nvcore.locks.stack import current

            current().reserve = self._outer.pop()


def _broken(rule: str, detail: str) -> None:
    if LOCKDEP:
        from nvcore.locks.graph import show, trace
        from nvcore.locks.rules import broken

        broken(rule, detail, now=show(trace(2)))
