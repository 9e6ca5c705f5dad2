"""Reservation locks: many may be held together, under one acquire context, in any order, with back-off instead of deadlock (rule L1).

Wait-die: a context that holds something waits only for younger ones; before an older one it backs off (drops everything, waits for the
contended lock alone, starts again), keeping its age, so that the oldest always gets through. Any thread. The validator's half is
`nvcore.testing.lockdep.ww`.
Source: Documentation/locking/ww-mutex-design.rst, Linux 7.3.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.errors import ContractError, WaitTimeout

__all__ = ["AcquireContext", "BackOff", "WwLock"]

_stamps = itertools.count(1)


class BackOff(Exception):
    """An older context holds `lock`: release all of this context's locks, then start again with `lock` (`AcquireContext.back_off`)."""

    def __init__(self, lock: WwLock) -> None:
        super().__init__(lock.name)
        self.lock = lock


class WwLock:
    """One reservation lock. Alone: `acquire`, `release`; several together: `AcquireContext.lock`."""

    __slots__ = ("_guard", "_owner", "_waiting", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._guard = threading.Lock()  # of the owner and of who waits, held for assignments only
        self._owner: int | None = None
        self._waiting: dict[int, threading.Event] = {}  # by age, set when it has to judge anew whether its turn has come

    def locked(self) -> bool:
        """Whether anyone holds it."""
        return self._owner is not None

    def acquire(self, timeout: float, clock: Clock = SYSTEM) -> None:
        """Take it without a context: allowed while no other reservation lock is held. Raises WaitTimeout."""
        self.take(next(_stamps), None, timeout, clock)

    def release(self) -> None:
        """Give it back. Taken under a context, it is the context that releases it."""
        with self._guard:
            if self._owner is None:
                raise ContractError(f"reservation lock {self.name} is released but not held")
            self._owner = None
            self._wake()

    def _wake(self) -> None:
        for changed in self._waiting.values():
            changed.set()

    def take(self, stamp: int, context: AcquireContext | None, timeout: float, clock: Clock) -> None:
        """Wait for the lock as a context of that age: `AcquireContext.lock` calls it. Raises BackOff, WaitTimeout."""
        holds, deadline, changed = bool(context and context.held), clock.now() + timeout, threading.Event()
        with self._guard:
            self._waiting[stamp] = changed
        try:
            while True:
                left = deadline - clock.now()
                with self._guard:
                    changed.clear()
                    if self._turn(stamp, holds):
                        self._owner = stamp
                        return
                if left <= 0:
                    seen = f"held by context {self._owner}, {len(self._waiting)} waiting"
                    raise WaitTimeout(f"reservation lock {self.name} was not released", expected=f"within {timeout:g} s", seen=seen)
                clock.wait(changed, left)
        finally:
            with self._guard:
                del self._waiting[stamp]
                self._wake()

    def _turn(self, stamp: int, holds: bool) -> bool:
        """Whether the lock is free and this waiter the oldest. Raises BackOff for one that would wait for an older context while it holds
        locks."""
        oldest = min(self._waiting)
        if self._owner is None and oldest == stamp:
            return True
        if holds and (oldest if self._owner is None else self._owner) < stamp:
            raise BackOff(self)
        return False


class AcquireContext:
    """A set of reservation locks taken together by one thread or task. `with` it: all are released at the end."""

    __slots__ = ("_clock", "_timeout", "backoffs", "held", "stamp")

    def __init__(self, timeout: float = 10.0, clock: Clock = SYSTEM) -> None:
        self.stamp = next(_stamps)
        self.held: list[WwLock] = []
        self.backoffs = 0
        self._timeout, self._clock = timeout, clock

    def lock(self, lock: WwLock) -> None:
        """Take one more. Raises BackOff when an older context is in the way, WaitTimeout after the context's time-out. Twice is once."""
        if lock in self.held:
            return
        lock.take(self.stamp, self, self._timeout, self._clock)
        self.held.append(lock)

    def back_off(self, lock: WwLock) -> None:
        """Release everything and wait for the contended lock alone; then take the others again."""
        self.backoffs += 1
        self.release_all()
        self.lock(lock)

    def lock_all(self, locks: Iterable[WwLock]) -> None:
        """Take all of them, backing off as often as needed. Raises WaitTimeout with whatever is held left to the caller's `with`."""
        wanted = list(locks)
        while True:
            try:
                for lock in wanted:
                    self.lock(lock)
                return
            except BackOff as contended:
                self.back_off(contended.lock)

    def release_all(self) -> None:
        """Release every lock, last taken first; the context keeps its age."""
        while self.held:
            self.held.pop().release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.release_all()
