"""The event log: sequence numbers, the ring, and fan-out to bounded subscriber queues.

Owns the order of events of one host. `publish` may be called from any thread, also a receiver thread or a signalling section: it takes one
leaf lock, appends, and wakes; a subscriber that does not read loses its own oldest events and delays nobody. Must never call into a client.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Event as Flag
from typing import Final

from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.events import Event, EventKind, Fault
from nvcore.api.marks import interrupt_safe, may_sleep, signalling_safe
from nvcore.locks import Lock

__all__ = ["EventLog", "Subscription"]

RING: Final = 4096
"""Events kept in the ring of a host."""

QUEUE: Final = 1024
"""Default bound of a subscriber's queue."""


class Subscription:
    """One subscriber's bounded queue. Read it from one thread; `close` from any."""

    def __init__(
        self, close: Callable[[Subscription], None], clock: Clock, limit: int, kinds: Iterable[str] | None, owners: Iterable[str] | None,
        on_ready: Callable[[], None] | None,
    ) -> None:  # fmt: skip
        self._close, self._clock, self._limit, self._on_ready = close, clock, max(1, limit), on_ready
        self._kinds = None if kinds is None else frozenset(kinds)
        self._owners = None if owners is None else frozenset(owners)
        self._queue: deque[Event] = deque()
        self._lost = 0
        self._flag = Flag()
        self.closed = False

    @interrupt_safe
    def offer(self, event: Event) -> None:
        """Take the event if it passes the filters; called by the log under its lock."""
        if (self._kinds is not None and event.kind not in self._kinds) or (self._owners is not None and event.owner not in self._owners):
            return
        queue = self._queue
        if len(queue) >= self._limit:
            queue.popleft()
            self._lost += 1
        queue.append(event)
        if not self._flag.is_set():
            self._flag.set()
            if self._on_ready is not None:
                self._on_ready()

    def drain(self) -> list[Event]:
        """Everything queued now, oldest first. A gap is told as one event of kind "lost-events" in front, with the sequence of the last one
        lost."""
        self._flag.clear()
        events: list[Event] = []
        with suppress(IndexError):  # until it is empty; the log may drop our oldest in between
            while True:
                events.append(self._queue.popleft())
        lost, self._lost = self._lost, 0
        if lost:
            first = events[0] if events else None
            sequence, at, wall = (first.sequence - 1, first.time, first.wall) if first else (0, self._clock.now(), time.time())
            events.insert(0, Event(sequence, at, wall, "lost-events", None, f"{lost} events lost: this subscriber was too slow"))
        return events

    @may_sleep
    def wait(self, timeout: float | None = None) -> list[Event]:
        """As `drain`, after waiting up to `timeout` seconds for the first event; empty on time-out or after `close`."""
        if not self._queue and not self.closed:
            self._clock.wait(self._flag, timeout)
        return self.drain()

    def close(self) -> None:
        """End the subscription; a waiting reader returns. Idempotent."""
        self.closed = True
        self._close(self)
        self._flag.set()


class EventLog:
    """The events of one host."""

    def __init__(self, clock: Clock = SYSTEM, *, ring: int = RING, wall: Callable[[], float] = time.time) -> None:
        self._clock, self._wall = clock, wall
        self._lock = Lock("events", leaf=True)
        self._ring: deque[Event] = deque(maxlen=ring)
        self._sequence = 0
        self._sinks: tuple[Callable[[Event], None], ...] = ()  # replaced as a whole, so that publishing is a loop over a local

    @interrupt_safe
    @signalling_safe
    def publish(
        self, kind: EventKind, text: str, *, gpu: str | None = None, code: str | None = None, function: str | None = None,
        grant: str | None = None, owner: str | None = None, channel: int | None = None, vm: str | None = None, action: str | None = None,
        fault: Fault | None = None,
    ) -> Event:  # fmt: skip
        """Write one line into the log; the event, with its sequence number."""
        now, wall = self._clock.now(), self._wall()
        with self._lock:
            self._sequence += 1
            event = Event(self._sequence, now, wall, kind, gpu, text, code, function, grant, owner, channel, vm, action, fault)
            self._ring.append(event)
            for sink in self._sinks:
                sink(event)
        return event

    def since(self, sequence: int = 0, *, limit: int = RING) -> list[Event]:
        """Up to `limit` newest events of the ring behind `sequence`, oldest first."""
        with self._lock:
            events = [event for event in self._ring if event.sequence > sequence]
        return events[-limit:] if limit > 0 else []

    @property
    def last(self) -> int:
        """Sequence number of the newest event; 0 when there is none."""
        return self._sequence

    def subscribe(
        self, *, limit: int = QUEUE, kinds: Iterable[str] | None = None, owners: Iterable[str] | None = None,
        on_ready: Callable[[], None] | None = None,
    ) -> Subscription:  # fmt: skip
        """A bounded queue of events from now on, of these kinds and owners (None = all).

        on_ready: called, under the log's lock, when the queue stops being empty; it must only wake somebody (write an eventfd).
        """
        subscription = Subscription(self._unsubscribe, self._clock, limit, kinds, owners, on_ready)
        with self._lock:
            self._sinks = (*self._sinks, subscription.offer)
        return subscription

    def _unsubscribe(self, subscription: Subscription) -> None:
        with self._lock:
            self._sinks = tuple(sink for sink in self._sinks if getattr(sink, "__self__", None) is not subscription)
