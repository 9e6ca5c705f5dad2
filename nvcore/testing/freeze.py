"""The freeze test: whoever publishes a fence must be able to signal it while the world stands still.

At every publication inside `with Freeze(locks):` adversaries take all those locks as soon as they can and keep them, and every allocator
that draws on no reserve fails, until the fence is signalled. Owns its adversary threads (one per lock and fence, so that it adds no order
of its own). Needs the validator on. Times are real seconds: a job under test that never ends is the very thing looked for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType

from nvcore.api.errors import ContractError
from nvcore.api.marks import LOCKDEP
from nvcore.locks import Fence, LockLike, WwLock
from nvcore.locks.fence import publish_observers
from nvcore.locks.reserve import starved

__all__ = ["Freeze"]


class Freeze:
    """locks: what the adversary takes at each publication (plain and reservation locks). limit: seconds in which a fence must signal.

    `published` names the fences seen. At the end of the block AssertionError names those that did not signal while frozen; they are then
    waited for no longer, and signalling them stays the test's business.
    """

    def __init__(self, locks: Sequence[LockLike | WwLock], limit: float = 5.0) -> None:
        if not LOCKDEP:
            raise ContractError("the freeze test needs the lock validator", expected="NVCORE_LOCKDEP=1", seen="off")
        self.published: list[str] = []
        self.stuck: list[str] = []
        self._locks = list(locks)
        self._limit = limit
        self._threads: list[threading.Thread] = []

    def _on_publish(self, fence: Fence) -> None:
        """Runs in the publishing thread: it may still hold the locks, which the adversaries then get as soon as it lets go."""
        self.published.append(fence.name)
        over = threading.Event()
        starved.append(over)
        watch = threading.Thread(target=self._watch, args=(fence, over), name=f"freeze {fence.name}", daemon=True)
        takers = [threading.Thread(target=_hold, args=(lock, over, self._limit), name="freeze lock", daemon=True) for lock in self._locks]
        for thread in (*takers, watch):
            thread.start()
        self._threads += (*takers, watch)

    def _watch(self, fence: Fence, over: threading.Event) -> None:
        if not fence.wait(self._limit):
            self.stuck.append(fence.name)
        starved.remove(over)
        over.set()

    def __enter__(self) -> Freeze:
        publish_observers.append(self._on_publish)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        publish_observers.remove(self._on_publish)
        for thread in self._threads:
            thread.join(self._limit * 2)
        if self.stuck and value is None:
            raise AssertionError(f"not signalled while frozen: {', '.join(self.stuck)}")


def _hold(lock: LockLike | WwLock, over: threading.Event, limit: float) -> None:
    """Take one lock when it is free, unless the fence is signalled by then, and keep it until then."""
    while not over.is_set():
        taken = lock.try_acquire() if isinstance(lock, WwLock) else lock.acquire(blocking=False)
        if taken:
            over.wait(limit * 2)
            lock.release()
            return
        over.wait(0.0005)
