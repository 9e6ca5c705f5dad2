"""A condition variable whose waits go through a `Clock`.

Owns its waiters and, unless given one, a lock of a named class. Any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from nvcore.api.clock import SYSTEM, Clock
from nvcore.locks import Lock, LockLike, might_sleep

__all__ = ["Condition"]


class Condition:
    """Wait for a change of what a lock guards. lock: share this one (not an RLock) instead of making one of class `class_name`."""

    __slots__ = ("_waiters", "lock")

    def __init__(self, class_name: str, subclass: int = 0, *, leaf: bool = False, lock: LockLike | None = None) -> None:
        self.lock = lock or Lock(class_name, subclass, leaf=leaf)
        self._waiters: list[threading.Event] = []

    def wait(self, timeout: float, clock: Clock = SYSTEM) -> bool:
        """Give the lock back, wait for `notify`, take it again; False when `timeout` seconds of `clock` passed first. Hold the lock."""
        event = threading.Event()
        self._waiters.append(event)
        self.lock.release()
        try:
            might_sleep("Condition.wait")
            clock.wait(event, timeout)
        finally:
            self.lock.acquire()
            if event in self._waiters:
                self._waiters.remove(event)
        return event.is_set()

    def wait_for(self, predicate: Callable[[], bool], timeout: float, clock: Clock = SYSTEM) -> bool:
        """Wait until `predicate()`, called with the lock held, is true; its last value is returned."""
        deadline = clock.now() + timeout
        while not predicate():
            left = deadline - clock.now()
            if left <= 0 or not self.wait(left, clock):
                return predicate()
        return True

    def notify(self, number: int = 1) -> None:
        """Wake up to `number` waiters, longest wait first. The lock must be held."""
        for event in self._waiters[:number]:
            event.set()
        del self._waiters[:number]

    def notify_all(self) -> None:
        """Wake all waiters. The lock must be held."""
        self.notify(len(self._waiters))

    def __enter__(self) -> bool:
        return self.lock.__enter__()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.lock.release()
