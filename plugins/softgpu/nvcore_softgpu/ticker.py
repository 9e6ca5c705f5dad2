"""Time for the model: what is due later.

Owns one heap of due calls and the daemon thread that makes them under the device's lock; the thread starts with the first channel, because
later calls can come from a section in which no thread may be made. A clock that calls back by itself (a test's) is left to do so, and no
thread is made at all.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from typing import Final, cast

from nvcore.api.clock import Clock

__all__ = ["ModelTicker"]

_IDLE: Final = 60.0
"""Seconds that the thread sleeps at most while nothing is due."""


class ModelTicker:
    """`ports.Ticker`."""

    def __init__(self, clock: Clock, lock: threading.RLock) -> None:
        self._clock = clock
        self._lock = lock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._clock_calls: Callable[[float, Callable[[], None]], None] | None = getattr(clock, "call_at", None)
        self.now = clock.now

    def prepare(self) -> None:
        """Make the thread, where one is needed and there is none."""
        if self._thread is None and self._clock_calls is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="softgpu-ticker", daemon=True)
            self._thread.start()

    def call_at(self, when: float, what: object) -> None:
        """Call `what` at or after `when`. Called under the device's lock."""
        if self._closed:
            return
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, cast("Callable[[], None]", what)))
        if self._clock_calls is not None:
            self._clock_calls(when, self._due)
            return
        self.prepare()
        if self._heap[0][1] == self._number:
            self._changed.set()

    def run_due(self) -> None:
        """Make every call that is due. Under the device's lock."""
        heap = self._heap
        while heap and heap[0][0] <= self._clock.now() and not self._closed:
            heapq.heappop(heap)[2]()

    def close(self) -> None:
        """Forget what is due and end the thread. Not under the device's lock."""
        self._closed = True
        self._heap.clear()
        self._changed.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(2.0)

    def _due(self) -> None:
        with self._lock:
            self.run_due()

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    return
                self.run_due()
                wait = self._heap[0][0] - self._clock.now() if self._heap else _IDLE
                self._changed.clear()
            self._clock.wait(self._changed, max(wait, 0.0))
