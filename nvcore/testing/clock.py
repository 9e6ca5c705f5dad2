"""A clock that moves only when a test says so.

Owns virtual time, the threads that wait in it and its timers. Waits block real threads; `advance` moves time from deadline to deadline,
wakes one sleeper after another in the order of their deadlines and lets each run until it rests again. Safe to use from any thread;
callbacks of `call_at` run in the thread that moves the clock.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from nvcore.api.errors import ContractError, WaitTimeout
from nvcore.testing.settle import Watch, give_way

__all__ = ["VirtualClock"]

_POLL = 0.001
"""Real seconds between two looks of a waiter at its event: a plain `threading.Event` cannot tell a clock that it was set."""

_STRANGERS = 0.05
"""Real seconds granted to running threads that never used this clock."""


class _Waiter:
    """One thread in `sleep` or `wait`. `due`: its deadline has come."""

    __slots__ = ("deadline", "due", "event", "order", "thread", "woken")

    def __init__(self, deadline: float | None, order: int, event: threading.Event | None) -> None:
        self.deadline = deadline
        self.order = order
        self.event = event
        self.thread = threading.current_thread()
        self.due = False
        self.woken = threading.Event()

    def ready(self) -> bool:
        """Whether it is about to leave the clock."""
        return self.due or (self.event is not None and self.event.is_set())


class VirtualClock:
    """Implements `nvcore.api.clock.Clock`.

    start: the first `now()`. auto: jump to the next deadline by itself as soon as every thread that uses the clock rests (for a wait on an
    event: every thread of the process), so that a poll in one thread needs nobody to move time. limit: real seconds after which a wait or a
    move gives up with WaitTimeout, naming the threads.
    """

    def __init__(self, start: float = 0.0, *, auto: bool = False, limit: float = 10.0) -> None:
        self._now = start
        self._auto = auto
        self._limit = limit
        self._lock = threading.Lock()
        self._waiters: list[_Waiter] = []
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._users: set[threading.Thread] = set()
        self._order = itertools.count()
        self._mover: threading.Thread | None = None

    def now(self) -> float:
        """Virtual seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Block until the clock has moved by `seconds`."""
        if seconds > 0:
            self._block(self._now + seconds, None)

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Block until the event is set, or the clock has moved by `timeout`; whether it is set."""
        if event.is_set() or (timeout is not None and timeout <= 0):
            return event.is_set()
        self._block(None if timeout is None else self._now + timeout, event)
        return event.is_set()

    def call_at(self, when: float, fn: Callable[[], object]) -> None:
        """Call `fn()` when the clock reaches `when`, in the thread that moves it. A time in the past counts as now."""
        with self._lock:
            heapq.heappush(self._timers, (max(when, self._now), next(self._order), fn))

    def blocked(self) -> list[str]:
        """Names of the threads that wait in this clock, in the order of their deadlines."""
        with self._lock:
            waiters = sorted(self._waiters, key=_when)
        return [waiter.thread.name for waiter in waiters]

    def advance(self, seconds: float) -> None:
        """Move time by `seconds`, stopping at each deadline and timer on the way.

        Raises WaitTimeout when the threads that use the clock do not come to rest within the real-time limit, ContractError when called
        from a timer or while another thread moves the clock.
        """
        self._begin_move()
        try:
            end = self._now + seconds
            self._settle()
            while self._step(end):
                self._settle()
            self._now = max(self._now, end)
        finally:
            self._mover = None

    def wait_blocked(self, number: int) -> None:
        """Wait, in real time, until at least `number` threads wait in this clock. Raises WaitTimeout with who does."""
        give_up = time.monotonic() + self._limit
        while len(self._waiters) < number:
            if time.monotonic() > give_up:
                raise self._stuck(f"fewer than {number} threads wait in it")
            give_way()

    def _begin_move(self) -> None:
        with self._lock:
            if self._mover is not None:
                raise ContractError("the clock is being moved already", seen=self._mover.name, remedy="move it from one place at a time")
            self._mover = threading.current_thread()

    def _step(self, end: float | None) -> bool:
        """Serve the earliest deadline or timer up to `end`; False when there is none."""
        with self._lock:
            pending = [waiter for waiter in self._waiters if waiter.deadline is not None and not waiter.ready()]
            waiter = min(pending, key=_when, default=None)
            timer = self._timers[0] if self._timers else None
            fn = None
            if timer is not None and (waiter is None or timer[:2] < _when(waiter)):
                when, _, fn = timer
            elif waiter is not None and waiter.deadline is not None:
                when = waiter.deadline
            else:
                return False
            if end is not None and when > end:
                return False
            self._now = when
            if fn is not None:
                heapq.heappop(self._timers)
            elif waiter is not None:
                waiter.due = True
                waiter.woken.set()
        if fn is not None:
            fn()
        return True

    def _block(self, deadline: float | None, event: threading.Event | None) -> None:
        waiter = _Waiter(deadline, next(self._order), event)
        with self._lock:
            self._users.add(waiter.thread)
            self._waiters.append(waiter)
        give_up = time.monotonic() + self._limit
        try:
            while not waiter.ready():
                if self._auto:
                    self._jump(waiter)
                if event is not None:
                    event.wait(_POLL)
                else:
                    waiter.woken.wait(_POLL if self._auto else self._limit)
                if not waiter.ready() and time.monotonic() > give_up and self._mover is None:
                    raise self._stuck(f"{waiter.thread.name} waits for virtual time {deadline} and nobody moves the clock")
        finally:
            with self._lock:
                self._waiters.remove(waiter)

    def _jump(self, waiter: _Waiter) -> None:
        """Auto mode: move on if everyone rests and this thread is the one to do it."""
        with self._lock:
            if self._mover is not None or waiter.ready():
                return
            others = [thread for thread in self._users if thread is not waiter.thread and thread.is_alive()]
            self._mover = waiter.thread
        try:
            everyone = waiter.event is not None  # any thread may be about to set it
            if others or (everyone and threading.active_count() > 1):
                self._settle(everyone)
            if not waiter.ready():
                self._step(None)
        finally:
            self._mover = None

    def _settle(self, everyone: bool = True) -> None:
        """Let the other threads run until they rest in this clock, rest elsewhere or have ended.

        Raises WaitTimeout, naming them, when threads that use this clock still run after the limit. Strangers are granted less and then
        ignored; with `everyone` false they are not looked at.
        """
        start = time.monotonic()
        watches: dict[threading.Thread, Watch] = {}
        while True:
            with self._lock:
                inside = {waiter.thread: waiter for waiter in self._waiters}
                self._users = {thread for thread in self._users if thread.is_alive()}
            running = []
            for thread in threading.enumerate() if everyone else self._users:
                waiter = inside.get(thread)
                if thread is threading.current_thread() or (waiter is not None and not waiter.ready()):
                    watches.pop(thread, None)
                elif not watches.setdefault(thread, Watch(thread)).resting():
                    running.append(thread)
            spent = time.monotonic() - start
            if not running or (spent > _STRANGERS and not any(thread in self._users for thread in running)):
                return
            if spent > self._limit:
                raise self._stuck(f"threads still run: {sorted(thread.name for thread in running)}")
            give_way()

    def _stuck(self, what: str) -> WaitTimeout:
        return WaitTimeout(
            f"the virtual clock cannot move: {what}",
            expected=f"rest within {self._limit:g} s of real time",
            seen=f"now {self._now:g}, waiting in the clock: {self.blocked()}",
            remedy="advance the clock, use auto=True, or end the thread that runs",
        )


def _when(waiter: _Waiter) -> tuple[float, int]:
    """Sort key: deadlines first come first served; waits without one last."""
    return (float("inf") if waiter.deadline is None else waiter.deadline, waiter.order)
