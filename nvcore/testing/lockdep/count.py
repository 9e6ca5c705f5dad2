"""Descriptors and threads counted before and after a signalling section (rule L8, for what raises no audit event).

The numbers are the whole process's, so a comparison says something only when no other thread could have changed them: with one thread
alive, or inside `counting()`, by which a test promises that the others are quiet. Runs in the thread of the section.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nvcore.testing.lockdep.graph import show, trace
from nvcore.testing.lockdep.rules import broken
from nvcore.testing.lockdep.stack import Stack

__all__ = ["counting"]

_forced = 0


@contextmanager
def counting() -> Iterator[None]:
    """Count in every signalling section of this process until the end, however many threads there are."""
    global _forced
    _forced += 1
    try:
        yield
    finally:
        _forced -= 1


def _numbers() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), len(threading.enumerate())


def before(stack: Stack) -> None:
    """Remember the numbers at the start of an outermost section."""
    stack.counted = _numbers() if _forced or threading.active_count() == 1 else None


def after(stack: Stack) -> None:
    """Compare at its end. A drop is fine: something was released."""
    then = stack.counted
    stack.counted = None
    if then is None:
        return
    now = _numbers()
    if now[0] > then[0] or now[1] > then[1]:
        detail = f"descriptors {then[0]} to {now[0]}, threads {then[1]} to {now[1]}, in {stack.name}"
        broken("L8.count", detail, now=show(trace(3)))
