"""Locks with the validator on: every acquisition is checked before it can block, and noted with its place.

Owns the wrappers. `nvcore.locks` defines the same names for the validator off. Runs in any thread.
"""

from __future__ import annotations

import threading
from types import TracebackType

from nvcore.locks import LockLike
from nvcore.testing.lockdep.count import counting
from nvcore.testing.lockdep.gate import allocate, refuse_in_path
from nvcore.testing.lockdep.graph import declare_order, lock_class
from nvcore.testing.lockdep.sections import (
    assert_held,
    assert_none_held,
    atomic,
    begin_signalling,
    end_signalling,
    might_sleep,
    might_wait,
    mmap_lock,
    signalling,
    user_copy,
)
from nvcore.testing.lockdep.stack import acquired, before, current, released, task_stack

__all__ = [
    "Lock",
    "RLock",
    "allocate",
    "assert_held",
    "assert_none_held",
    "atomic",
    "begin_signalling",
    "counting",
    "declare_order",
    "end_signalling",
    "might_sleep",
    "might_wait",
    "mmap_lock",
    "refuse_in_path",
    "signalling",
    "task_stack",
    "user_copy",
]


class CheckedLock:
    """A `threading.Lock` that the validator sees."""

    __slots__ = ("_lock", "cls")

    def __init__(self, class_name: str, subclass: int, leaf: bool) -> None:
        self.cls = lock_class(class_name, subclass, leaf=leaf)
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; False when `blocking` is false or `timeout` seconds passed."""
        before(self, self.cls, blocking=blocking)
        if not self._lock.acquire(blocking, timeout):
            return False
        acquired(self, self.cls)
        return True

    def release(self) -> None:
        """Give it back, in the thread or task that took it."""
        released(self, self.cls)
        self._lock.release()

    def locked(self) -> bool:
        """Whether anyone holds it."""
        return self._lock.locked()

    __enter__ = acquire

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


class CheckedRLock:
    """A `threading.RLock` that the validator sees: only the outermost acquisition counts."""

    __slots__ = ("_lock", "cls")

    def __init__(self, class_name: str, subclass: int, leaf: bool) -> None:
        self.cls = lock_class(class_name, subclass, leaf=leaf)
        self._lock = threading.RLock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, or take it once more; False when `blocking` is false or `timeout` seconds passed."""
        for held in current().held:
            if held.lock is self:
                self._lock.acquire()
                held.depth += 1
                return True
        before(self, self.cls, blocking=blocking)
        if not self._lock.acquire(blocking, timeout):
            return False
        acquired(self, self.cls)
        return True

    def release(self) -> None:
        """Undo one acquisition."""
        for held in current().held:
            if held.lock is self and held.depth > 1:
                held.depth -= 1
                self._lock.release()
                return
        released(self, self.cls)
        self._lock.release()

    __enter__ = acquire

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


def Lock(class_name: str, subclass: int = 0, *, leaf: bool = False) -> LockLike:
    """A lock of a named class. subclass: nesting level inside the class. leaf: nothing is taken, allocated or waited for under it."""
    return CheckedLock(class_name, subclass, leaf)


def RLock(class_name: str, subclass: int = 0, *, leaf: bool = False) -> LockLike:
    """As `Lock`, for a holder that takes it again."""
    return CheckedRLock(class_name, subclass, leaf)
