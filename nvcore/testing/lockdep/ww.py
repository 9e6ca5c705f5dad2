"""Reservation locks that the validator sees (rule L1: together only under one acquire context, and one context at a time).

Owns nothing beyond the plain classes. Any thread.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from nvcore.api.clock import Clock
from nvcore.locks import ww as plain
from nvcore.locks.ww import BackOff
from nvcore.testing.lockdep.graph import RESERVATION, show, trace
from nvcore.testing.lockdep.rules import broken
from nvcore.testing.lockdep.stack import acquired, before, current, released

__all__ = ["AcquireContext", "BackOff", "WwLock"]


class WwLock(plain.WwLock):
    """A reservation lock whose holders are known."""

    __slots__ = ()

    def take(self, stamp: int, context: plain.AcquireContext | None, timeout: float, clock: Clock) -> None:
        """Check the order before the wait."""
        before(self, RESERVATION, blocking=True, context=context)
        super().take(stamp, context, timeout, clock)
        acquired(self, RESERVATION, context)

    def release(self) -> None:
        """Give it back."""
        released(self, RESERVATION)
        super().release()


class AcquireContext(plain.AcquireContext):
    """A context of which a thread or task has one at most."""

    __slots__ = ("_outer",)

    def __enter__(self) -> Self:
        stack = current()
        if stack.context is not None:
            broken("L1.ww-two-contexts", f"in {stack.name}", now=show(trace(2)))
        self._outer, stack.context = stack.context, self
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        current().context = self._outer
        super().__exit__(kind, value, tb)
