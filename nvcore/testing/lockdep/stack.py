"""What a thread, or a task that is switched on a thread, holds right now (rule L2).

Owns one `Stack` per thread and per task. Taken and changed only by the thread that runs it, hence without a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from nvcore.testing.lockdep.graph import FENCE, HELD_DEPTH, LockClass, Trace, add_edge, show, trace
from nvcore.testing.lockdep.rules import broken

if TYPE_CHECKING:
    from nvcore.locks.reserve import Reserve

__all__ = ["Held", "Stack", "acquired", "before", "current", "drop_left_over", "existing", "own_work", "released", "task_stack", "touch"]


class Held:
    """One held lock: the instance, its class and the stack of its acquisition. `context` is a reservation lock's acquire context."""

    __slots__ = ("cls", "context", "depth", "lock", "where")

    def __init__(self, lock: object, cls: LockClass, where: Trace, context: object = None) -> None:
        self.lock = lock
        self.cls = cls
        self.where = where
        self.context = context
        self.depth = 1


class Stack:
    """Held locks, oldest first, and how deep signalling and atomic sections are nested."""

    __slots__ = ("atomic", "context", "counted", "held", "name", "reporting", "reserve", "signalling")

    def __init__(self, name: str) -> None:
        self.name = name
        self.held: list[Held] = []
        self.signalling = 0
        self.atomic = 0
        self.context: object = None
        self.counted: tuple[int, int] | None = None
        self.reserve: Reserve | None = None
        self.reporting = False


class _Local(threading.local):
    stack: Stack | None = None


_local = _Local()


def current() -> Stack:
    """The stack of the running task, or else of the running thread."""
    stack = _local.stack
    if stack is None:
        stack = _local.stack = Stack(threading.current_thread().name)
    return stack


def existing() -> Stack | None:
    """As `current`, but None for a thread that has held nothing so far: for callers that may run in half-made threads."""
    return _local.stack


@contextmanager
def own_work() -> Iterator[None]:
    """What the validator or a test's tools do here is not the section's doing: no import or file inside breaks a rule."""
    stack = existing()
    if stack is None or stack.reporting:
        yield
        return
    stack.reporting = True
    try:
        yield
    finally:
        stack.reporting = False


def drop_left_over() -> list[str]:
    """At the end of a test: what the calling thread still holds, as text; its stack is then started anew."""
    stack = _local.stack
    _local.stack = None
    if stack is None:
        return []
    left = [f"{held.cls.label} is still held, taken at {show(held.where)}" for held in stack.held]
    if stack.signalling or stack.atomic:
        left.append(f"{stack.name} is still in a signalling or atomic section")
    return left


class task_stack:
    """A stack of its own for code that switches tasks on one thread: `with` it around each run of the task.

    The object may be entered again later, by any thread: what the task still holds is then held again.
    """

    def __init__(self, name: str) -> None:
        self._own = Stack(name)
        self._outer: list[Stack | None] = []

    def __enter__(self) -> Stack:
        self._outer.append(_local.stack)
        _local.stack = self._own
        return self._own

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        _local.stack = self._outer.pop()


def before(lock: object, cls: LockClass, *, blocking: bool, context: object = None) -> None:
    """Check an acquisition before it can block; a try-lock makes no edge, for it cannot deadlock."""
    if not blocking:
        return
    stack = _local.stack or current()
    if stack.atomic and not cls.leaf:
        broken("L7.sleep", f"{cls.label} may sleep, in an atomic section of {stack.name}", now=show(trace(2)))
    for held in stack.held:
        other = held.cls
        if held.lock is lock:
            broken("L1.self", f"{cls.label} in {stack.name}", now=show(trace(2)), before=show(held.where))
        elif other is cls:
            _same_class(held, cls, context)
        elif other.leaf:
            broken("L1.leaf", f"{cls.label} under {other.label}", now=show(trace(2)), before=show(held.where))
        elif cls not in other.after:
            add_edge(other, held.where, cls)


def _same_class(held: Held, cls: LockClass, context: object) -> None:
    """L1: many of one class only as subclasses, or as reservation locks under one context."""
    if not cls.ww:
        broken("L1.nesting", f"{cls.label} under {cls.label}", now=show(trace(3)), before=show(held.where))
    elif context is None or held.context is not context:
        broken("L1.ww-context", cls.label, now=show(trace(3)), before=show(held.where))


def acquired(lock: object, cls: LockClass, context: object = None) -> None:
    """Note a lock as held."""
    (_local.stack or current()).held.append(Held(lock, cls, trace(3, HELD_DEPTH), context))


def released(lock: object, cls: LockClass) -> None:
    """Note a lock as given back."""
    stack = _local.stack or current()
    held = stack.held
    for index in range(len(held) - 1, -1, -1):
        if held[index].lock is lock:
            del held[index]
            return
    broken("L2.owner", f"{cls.label} released by {stack.name}", now=show(trace(2)))


def touch(cls: LockClass) -> None:
    """Take and drop a pseudo lock: edges from everything held to it (L4)."""
    for held in current().held:
        other = held.cls
        if other is not cls and cls not in other.after:
            if other.leaf:
                broken("L7.sleep", f"{cls.label} under leaf lock {other.label}", now=show(trace(2)), before=show(held.where))
            else:
                add_edge(other, held.where, cls)


def enter_path(stack: Stack) -> None:
    """Hold the pseudo lock `fence` for reading, as a try-lock: no edge from what is held already (L6)."""
    stack.held.append(Held(FENCE, FENCE, trace(3, HELD_DEPTH)))


def leave_path(stack: Stack) -> None:
    """Drop the pseudo lock `fence`."""
    for index in range(len(stack.held) - 1, -1, -1):
        if stack.held[index].lock is FENCE:
            del stack.held[index]
            return
