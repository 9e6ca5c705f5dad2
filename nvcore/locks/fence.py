"""Fences: a promise that something will be done in bounded time.

A fence is unpublished, published (others may wait for it: from here on its job cannot fail), then signalled, with or without an error.
Owns a private lock, held for a few assignments only; callbacks run without it, inside `signalling()`. Any thread.
The validator's half (rule L9) is `nvcore.testing.lockdep.fence`.
Source: drivers/dma-buf/dma-fence.c, Linux 7.3.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Literal

from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.errors import ContractError
from nvcore.api.marks import may_sleep, signalling_safe
from nvcore.locks import NOTHING, allocate, might_wait, signalling

__all__ = ["Fence"]


class Fence:
    """One promise. `error` is None, or the exception that the job ended with."""

    __slots__ = ("_callbacks", "_event", "_guard", "error", "name", "state")

    @may_sleep
    def __init__(self, name: str) -> None:
        allocate(f"fence {name}")
        self.name = name
        self.state: Literal["unpublished", "published", "signalled"] = "unpublished"
        self.error: BaseException | None = None
        self._event = threading.Event()
        self._guard = threading.Lock()
        self._callbacks: list[Callable[[Fence], object]] = []

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
            if self.state == "unpublished":
                self.state = "published"
                return
        self._refuse(f"{self.name} is published while {self.state}")

    @signalling_safe
    def signal(self, error: BaseException | None = None) -> None:
        """End the promise; wakes waiters, then runs callbacks in this thread, in order, inside `signalling()`.

        An unpublished fence may be signalled too: its job failed before anyone could wait. Raises ContractError on a second signal.
        Its mark is what puts the callbacks in the signalling path.
        """
        with self._guard:
            again = self.signalled
            if not again:
                self.error, self.state = error, "signalled"
        if again:
            self._refuse(f"{self.name} is signalled again")
            return
        self._event.set()
        with ExitStack() as callbacks:  # runs all of them, even when one breaks its promise not to raise; what is pushed last is first
            while self._callbacks:
                callbacks.callback(self._callbacks.pop(), self)

    def _refuse(self, detail: str) -> None:
        raise ContractError(f"fence {detail}", remedy="publish and signal a fence once each")

    @may_sleep
    def add_callback(self, callback: Callable[[Fence], object]) -> None:
        """Call `callback(fence)` when it is signalled, at once if it is. It may neither sleep, allocate nor raise."""
        with self._guard:
            if not self.signalled:
                self._callbacks.append(callback)
                return
        with signalling():
            callback(self)

    def wait(self, timeout: float, clock: Clock = SYSTEM) -> bool:
        """Wait for the signal; False when `timeout` seconds of `clock` passed first. Then look at `error`."""
        might_wait(self.name)
        return clock.wait(self._event, timeout)
