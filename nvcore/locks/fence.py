"""Fences: a promise that something will be done in bounded time, and the checks of its life (rule L9).

A fence is unpublished, published (others may wait for it: from here on its job cannot fail), then signalled, with or without an error.
Owns a private lock, held for a few assignments only; callbacks run without it, inside `signalling()`. Any thread.
Source: drivers/dma-buf/dma-fence.c, Linux 7.3.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.errors import ContractError
from nvcore.api.marks import LOCKDEP, may_sleep, signalling_safe
from nvcore.locks import allocate, might_wait, signalling

__all__ = ["Fence", "FenceState", "Timeline", "check_all_signalled", "publish_observers", "published_fences"]

FenceState = Literal["unpublished", "published", "signalled"]

_published: dict[int, Fence] = {}
"""Fences that others wait for, kept alive so that a forgotten one is still found. Filled with the validator on only."""

publish_observers: list[Callable[[Fence], object]] = []
"""Called at each publication with the validator on, in the publishing thread: the freeze test's way in."""


class Fence:
    """One promise. `error` is None, or the exception that the job ended with."""

    __slots__ = ("_after", "_callbacks", "_event", "_fallible", "_guard", "error", "name", "state")

    @may_sleep
    def __init__(self, name: str) -> None:
        allocate(f"fence {name}")
        self.name = name
        self.state: FenceState = "unpublished"
        self.error: BaseException | None = None
        self._event = threading.Event()
        self._guard = threading.Lock()
        self._callbacks: deque[Callable[[Fence], object]] = deque()
        self._after: list[Fence] = []
        self._fallible = 0

    def __repr__(self) -> str:
        return f"<fence {self.name} {self.state}>"

    @property
    def signalled(self) -> bool:
        """Whether the job is over, either way."""
        return self.state == "signalled"

    @contextmanager
    def may_fail(self, what: str) -> Iterator[None]:
        """The part of the job that can still fail: it must end before `publish`."""
        if self.state == "published":
            _broken("L9.can-fail", f"{what} of published fence {self.name}")
        self._fallible += 1
        try:
            yield
        finally:
            self._fallible -= 1

    def after(self, *others: Fence) -> None:
        """Declare that this fence's job waits for `others` first. A cycle would wait for ever: L9.cycle."""
        for other in others:
            if LOCKDEP and _reaches(other, self):
                _broken("L9.cycle", f"{self.name} waits for {other.name}, which waits for {self.name}")
                continue
            if not other.signalled:
                self._after.append(other)

    def publish(self) -> None:
        """Let others wait for it. From here to `signal` the job runs in `signalling()` sections and cannot fail."""
        if self._fallible:
            _broken("L9.can-fail", f"{self.name} is published inside may_fail")
        with self._guard:
            again = self.state != "unpublished"
            if not again:
                self.state = "published"
        if again:
            _refused(f"{self.name} is published while {self.state}")
        elif LOCKDEP:
            _published[id(self)] = self
            for observer in publish_observers:
                observer(self)

    @signalling_safe
    def signal(self, error: BaseException | None = None) -> None:
        """End the promise; wakes waiters, then runs callbacks in this thread, in order, inside `signalling()`.

        An unpublished fence may be signalled too: its job failed before anyone could wait. Raises ContractError on a second signal.
        Its mark is what puts the callbacks in the signalling path.
        """
        with self._guard:
            again = self.state == "signalled"
            if not again:
                self.error = error
                self.state = "signalled"
        if again:
            _refused(f"{self.name} is signalled again")
            return
        self._after.clear()
        _published.pop(id(self), None)
        self._event.set()
        self._run()

    def _run(self) -> None:
        """All callbacks run, even when one breaks its promise not to raise."""
        try:
            while self._callbacks:
                self._callbacks.popleft()(self)
        finally:
            if self._callbacks:
                self._run()

    @may_sleep
    def add_callback(self, callback: Callable[[Fence], object]) -> None:
        """Call `callback(fence)` when it is signalled, at once if it is. It may neither sleep, allocate nor raise."""
        with self._guard:
            late = self.state == "signalled"
            if not late:
                self._callbacks.append(callback)
        if late:
            with signalling():
                callback(self)

    def wait(self, timeout: float, clock: Clock = SYSTEM) -> bool:
        """Wait for the signal; False when `timeout` seconds of `clock` passed first. Then look at `error`."""
        might_wait(self.name)
        return clock.wait(self._event, timeout)


class Timeline:
    """Fences whose jobs run one after another: each is `after` the one made before it."""

    __slots__ = ("_last", "name", "number")

    def __init__(self, name: str) -> None:
        self.name = name
        self.number = 0
        self._last: Fence | None = None

    def fence(self) -> Fence:
        """The next fence in order, named after the timeline and its number."""
        self.number += 1
        made = Fence(f"{self.name}:{self.number}")
        if self._last is not None:
            made.after(self._last)
        self._last = made
        return made


def _reaches(start: Fence, goal: Fence) -> bool:
    """Whether `start` is `goal` or waits for it."""
    seen = {id(start)}
    found = [start]
    for fence in found:
        if fence is goal:
            return True
        for other in fence._after:
            if id(other) not in seen:
                seen.add(id(other))
                found.append(other)
    return False


def published_fences() -> list[Fence]:
    """Fences that are published and not signalled (with the validator on), by name."""
    return sorted(_published.values(), key=lambda fence: fence.name)


def check_all_signalled() -> None:
    """L9 at the end of a test: no published fence may be left. Those found are dropped from the list, so that they are reported once."""
    left = published_fences()
    if left:
        _published.clear()
        _broken("L9.never-signalled", ", ".join(fence.name for fence in left))


def _refused(detail: str) -> None:
    """Twice: with the validator on a broken rule, else a ContractError."""
    if not LOCKDEP:
        raise ContractError(f"fence {detail}", remedy="publish and signal a fence once each")
    _broken("L9.twice", detail)


def _broken(rule: str, detail: str) -> None:
    if LOCKDEP:
        from nvcore.locks.graph import show, trace
        from nvcore.locks.rules import broken

        broken(rule, detail, now=show(trace(3)))
