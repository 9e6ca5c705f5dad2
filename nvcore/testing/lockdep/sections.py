"""Sections and assertions: the signalling path, atomic code, and what may not happen there (rules L4, L6, L7).

Owns nesting of sections on the current stack. Runs in any thread; takes no lock.
Source: drivers/dma-buf/dma-fence.c (`dma_fence_begin_signalling`, `__dma_fence_might_wait`), Linux 7.3.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

from nvcore.testing.lockdep import count
from nvcore.testing.lockdep.graph import FENCE, MMAP, USER_COPY, show, trace
from nvcore.testing.lockdep.rules import broken
from nvcore.testing.lockdep.stack import current, enter_path, leave_path, touch

__all__ = [
    "assert_held",
    "assert_none_held",
    "atomic",
    "begin_signalling",
    "end_signalling",
    "might_sleep",
    "might_wait",
    "mmap_lock",
    "signalling",
    "user_copy",
]


def begin_signalling() -> bool:
    """Enter the signalling path. Returns a cookie for `end_signalling`: True when this is the outermost section of the thread or task."""
    stack = current()
    stack.signalling += 1
    if stack.signalling > 1:
        return False
    enter_path(stack)
    count.before(stack)
    return True


def end_signalling(cookie: bool) -> None:
    """Leave the signalling path; only the outermost end has an effect."""
    stack = current()
    if stack.signalling == 0 or cookie != (stack.signalling == 1):
        broken("L6.unbalanced", f"signalling section, in {stack.name}", now=show(trace(2)))
        return
    stack.signalling -= 1
    if cookie:
        leave_path(stack)
        count.after(stack)


class _Signalling:
    """The section as a context manager. Nesting lives on the stack, so one object serves all."""

    def __enter__(self) -> bool:
        return begin_signalling()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        end_signalling(current().signalling == 1)


class _Atomic:
    """A section in which nothing may sleep."""

    def __enter__(self) -> None:
        current().atomic += 1

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        stack = current()
        if stack.atomic == 0:
            broken("L6.unbalanced", f"atomic section, in {stack.name}", now=show(trace(2)))
            return
        stack.atomic -= 1


_SIGNALLING: Final = _Signalling()
_ATOMIC: Final = _Atomic()


def signalling() -> _Signalling:
    """The code between a fence's publication and its signal: re-entrant, no edge from locks held at entry."""
    return _SIGNALLING


def atomic() -> _Atomic:
    """An interrupt handler, or one turn of a receiver thread: leaf locks only, nothing that sleeps, no allocation without a reserve."""
    return _ATOMIC


def might_sleep(where: str) -> None:
    """Say that the caller may block, allocate or call the firmware: never in atomic code, under a leaf lock or in the signalling path."""
    stack = current()
    if stack.atomic or stack.signalling:
        section = "an atomic section" if stack.atomic else "a signalling section"
        broken("L7.sleep", f"{where} in {section} of {stack.name}", now=show(trace(2)))
    for held in stack.held:
        if held.cls.leaf:
            broken("L7.sleep", f"{where} under leaf lock {held.cls.label}", now=show(trace(2)), before=show(held.where))


def might_wait(what: str = "a fence") -> None:
    """Say that the caller may wait for a fence: everything held now must never be taken in the signalling path."""
    stack = current()
    if stack.signalling:
        broken("L6.wait-in-path", f"{what}, in {stack.name}", now=show(trace(2)))
    if stack.atomic:
        broken("L7.sleep", f"wait for {what} in an atomic section of {stack.name}", now=show(trace(2)))
    touch(FENCE)


def user_copy(what: str = "client memory") -> None:
    """Say that client memory is copied here, which may fault: never in the path, nor under a reservation lock."""
    _no_fault(what)
    touch(USER_COPY)


def mmap_lock(what: str = "a client's memory map") -> None:
    """Say that the lock of a client's memory map is taken here."""
    _no_fault(what)
    touch(MMAP)


def _no_fault(what: str) -> None:
    stack = current()
    if stack.atomic:
        broken("L7.sleep", f"{what} in an atomic section of {stack.name}", now=show(trace(3)))


def assert_held(lock: object) -> None:
    """The caller needs `lock` (a lock of this package) to be held by this thread or task (V4)."""
    stack = current()
    for held in stack.held:
        if held.lock is lock:
            return
    broken("L7.not-held", f"{getattr(lock, 'cls', lock)!r} in {stack.name}", now=show(trace(2)))


def assert_none_held(where: str = "here") -> None:
    """The caller is about to wait for the user: no lock may be held and no section open."""
    for held in current().held:
        broken("L7.held", f"{held.cls.label} {where}", now=show(trace(2)), before=show(held.where))
