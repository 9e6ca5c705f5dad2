"""Time as an argument: every wait of the host, the backends and the software GPU goes through a clock, so tests can own it.

`SYSTEM` is the real one. `nvcore.testing.VirtualClock` moves only when a test says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from nvcore.api.errors import WaitTimeout

__all__ = ["SYSTEM", "Clock", "SystemClock", "wait_until"]


class Clock(Protocol):
    """A monotonic clock and the two ways to wait on it. Seconds, as float.

    Its methods bear no marks: `now` may be read anywhere, and a `sleep` or a `wait` is legal wherever its caller may spend that much time:
    in a signalling section as long as it is bounded (a poll of a register is such), never on a receiver thread.
    """

    def now(self) -> float:
        """Monotonic seconds; the origin means nothing."""

    def sleep(self, seconds: float) -> None:
        """Block the calling thread."""

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Wait for an event; False when `timeout` seconds of this clock passed first."""


class SystemClock:
    """The machine's monotonic clock."""

    now, sleep = staticmethod(time.monotonic), staticmethod(time.sleep)

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Wait for an event; False on time-out."""
        return event.wait(timeout)


# The real time.
SYSTEM: Final[Clock] = SystemClock()


def wait_until(
    read: Callable[[], int], done: Callable[[int], bool], *, timeout: float, what: str, clock: Clock = SYSTEM, poll: float = 0.0002,
    where: str | None = None, decode: Callable[[int], str] = hex,
) -> int:  # fmt: skip
    """Poll `read` until `done(value)`; the value is returned.

    timeout: seconds. what: what is waited for, in words. Raises WaitTimeout with the limit and the last value, decoded; `DeviceGone` and
    others from `read` pass through. The value is read once more after the limit, so that a stalled host never reports a stale time-out.
    """
    deadline = clock.now() + timeout
    while True:
        late = clock.now() >= deadline
        value = read()
        if done(value):
            return value
        if late:
            seen = f"last value {decode(value)}"
            raise WaitTimeout(f"no end of the wait for {what}", expected=f"within {timeout:g} s", seen=seen, where=where)
        clock.sleep(poll)
