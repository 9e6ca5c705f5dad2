"""Reserves that report what is drawn beyond them and what is left over (rule L8).

Owns the freeze test's switch. A reserve is used by one thread at a time: the one that runs the job.
"""

from __future__ import annotations

from types import TracebackType

from nvcore.api.marks import may_sleep, signalling_safe
from nvcore.locks import reserve as plain
from nvcore.testing.lockdep.graph import show, trace
from nvcore.testing.lockdep.rules import broken
from nvcore.testing.lockdep.stack import current

__all__ = ["Reserve", "starved"]

starved: list[object] = []
"""While not empty, whatever draws on no reserve fails with MemoryError, in every thread: set by a freeze test."""


class Reserve(plain.Reserve):
    """A reserve whose count is enforced; `with` it, nvcore's allocating primitives draw on it."""

    __slots__ = ("_outer",)

    @may_sleep
    def __init__(self, count: int, name: str = "reserve") -> None:
        super().__init__(count, name)
        self._outer: list[plain.Reserve | None] = []

    @signalling_safe
    def draw(self, what: str = "an allocation") -> None:
        """Use one. Beyond `count` it is counted in `over` and reported."""
        super().draw(what)
        if self.used > self.count:
            broken("L8.over-use", f"{self.name} of {self.count}: {what} is number {self.used}", now=show(trace(2)))

    def close(self, *, exact: bool = False) -> int:
        """End the reserve; returns what was not used. exact: something left over is a violation (L8.under-use)."""
        left = super().close(exact=exact)
        if exact and left:
            broken("L8.under-use", f"{self.name} of {self.count}: {left} not used", now=show(trace(2)))
        return left

    def __enter__(self) -> Reserve:
        stack = current()
        self._outer.append(stack.reserve)
        stack.reserve = self
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        current().reserve = self._outer.pop()
