"""The freeze test's adversary: at every publication of a fence it holds all the locks that anyone could wait for, and makes allocation
fail.

Owns a thread per publication, which takes the locks, lets the publisher go on, and gives the locks back when the fence is signalled or the
limit has passed. In `stuck`: each fence that did not get through, and each publication at which the adversary itself did not get a lock,
which then proves nothing about it. Needs the lock validator (publications are observed by it). Source: drm-uapi.md 11.3, "freeze test";
Linux Documentation/driver-api/dma-buf.rst on what a fence's signalling path may not do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from nvcore.api.errors import ContractError
from nvcore.locks import LOCKDEP, Fence, LockLike
from nvcore.testing.lockdep.fence import publish_observers
from nvcore.testing.lockdep.reserve import starved

__all__ = ["Adversary"]

_POLL = 0.001


class _Holder:
    """Holds one lock in a thread of its own: locks that nobody takes together may be held together here, and no order of them is
    recorded."""

    def __init__(self, lock: LockLike, let_go: threading.Event) -> None:
        self._lock, self._let_go = lock, let_go
        self.held = threading.Event()
        self.thread = threading.Thread(target=self._hold, name="adversary holding a lock")
        self.thread.start()

    def _hold(self) -> None:
        with self._lock:
            self.held.set()
            self._let_go.wait()


class Adversary:
    """Freezes the world at each publication. locks: those that are held by others are waited for. nvcore's own allocating primitives fail
    then; starve(on): make every other allocator fail, or work again. limit: real seconds that a fence may take. Use as a context manager
    around the publishing work."""

    def __init__(self, locks: Callable[[], Sequence[LockLike]], starve: Callable[[bool], None], *, limit: float = 5.0) -> None:
        if not LOCKDEP:
            raise ContractError("the freeze test needs the lock validator", remedy="set NVCORE_LOCKDEP=1")
        self._locks, self._starve, self._limit = locks, starve, limit
        self._threads: list[threading.Thread] = []
        self._turn = threading.Lock()
        self.frozen: list[str] = []
        self.stuck: list[str] = []

    def _publication(self, fence: Fence) -> None:
        ready = threading.Event()
        thread = threading.Thread(target=self._freeze, args=(fence, ready), name=f"adversary of {fence.name}")
        self._threads.append(thread)
        thread.start()
        ready.wait(self._limit)

    def _freeze(self, fence: Fence, ready: threading.Event) -> None:
        with self._turn:
            let_go = threading.Event()
            holders = [_Holder(lock, let_go) for lock in self._locks()]
            if not all([holder.held.wait(self._limit) for holder in holders]):
                self.stuck.append(f"{fence.name}: its publisher holds a lock that the adversary was to take")
            starved.append(fence)
            self._starve(True)
            self.frozen.append(fence.name)
            ready.set()
            end = time.monotonic() + self._limit
            while not fence.signalled and time.monotonic() < end:
                time.sleep(_POLL)
            if not fence.signalled:
                self.stuck.append(fence.name)
            self._starve(False)
            starved.remove(fence)
            let_go.set()
            for holder in holders:
                holder.thread.join(self._limit)

    def thaw(self) -> None:
        """Wait until the freezes so far are over: memory and locks can be had again."""
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.join(self._limit * 2)

    def __enter__(self) -> Adversary:
        publish_observers.append(self._publication)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        publish_observers.remove(self._publication)
        self.thaw()
