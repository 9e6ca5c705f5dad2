"""Fences: a promise that something will be done in bounded time.

A fence is unpublished, published (others may wait for it: from here on its job cannot fail), then signalled, with or without an error.
Owns a private lock, held for a few assignments only; callbacks run without it, inside `signalling()`. Any thread.
The validator's half (rule L9) is `nvcore.testing.lockdep.fence`.
Source: drivers/dma-buf/dma-fence.c, Linux 7.3.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.errors import ContractError
from nvcore.api.marks import may_sleep, signalling_safe
from nvcore.locks import NOTHING, allocate, might_wait, signalling

__all__ = ["Fence", "FenceState", "Timeline"]

FenceState = Literal["unpublished", "published", "signalled"]


class Fence:
    """One promise. `error` is None, or the exception that the job ended with."""

    __slots__ = ("_callbacks", "_event", "_guard", "error", "name", "state")

    @may_sleep
    def __init__(self, name: str) -> None:
        allocate(f"fence {name}")
        self.name = name
        self.state: FenceState = "unpublished"
        self.error: BaseException | None = None
        self._event = threading.Event()
        self._guard = threading.Lock()
        self._callbacks: deque[Callable[[Fence], object]] = deque()

    def __repr__(self) -> str:
        return f"<fence {self.name} {self.state}>"

    @property
    def signalled(self) -> bool:
        """Whether the job is over, either way."""
        return self.state == "signalled"

    def may_fail(self, what: str) -> AbstractContextManager[None]:
        """The part of the job that can still fail: it must end before `publish`."""
        return NOTHING

    def after(self, *others: Fence) -> None:
        """Declare that this fence's job waits for `others` first, for the validator to find a cycle of fences."""

    def publish(self) -> None:
        """Let others wait for it. From here to `signal` the job runs in `signalling()` sections and cannot fail."""
        with self._guard:
            was = self.state
            if was == "unpublished":
                self.state = "published"
        if was != "unpublished":
            self._refuse(f"{self.name} is published while {was}")

    @signalling_safe
    def signal(self, error: BaseException | None = None) -> None:
        """End the promise; wakes waiters, then runs callbacks in this thread, in order, inside `signalling()`.

        An unpublished fence may be signalled too: its job failed before anyone could wait. Raises ContractError on a second signal.
        Its mark is what puts the callbacks in the signalling path.
        """
        with self._guard:
            again = self.state == "signalled"
            if not again:
                self.error, self.state = error, "signalled"
        if again:
            self._refuse(f"{self.name} is signalled again")
            return
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

    def _refuse(self, detail: str) -> None:
        raise ContractError(f"fence {detail}", remedy="publish and signal a fence once each")

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
    fence_class: type[Fence] = Fence

    def __init__(self, name: str) -> None:
        self.name, self.number = name, 0
        self._last: Fence | None = None

    def fence(self) -> Fence:
        """The next fence in order, named after the timeline and its number."""
        self.number += 1
        made = self.fence_class(f"{self.name}:{self.number}")
        if self._last is not None:
            made.after(self._last)
        self._last = made
        return made
