"""What the contract checks of a client see of it: a double of its driver, whose clients are watched at each call.

Owns the record of what the calls did, and which fences were published in them. The watched calls run on the host's threads, the record is
read in the test's. Judges nothing but what a driver's `probe` gives; `contract_client` does the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from unittest.mock import patch

from nvcore.api.client import Client, ClientContext, ClientDriver, ClientStatus, Function, QuiesceReason
from nvcore.api.clock import SYSTEM
from nvcore.api.events import Fault
from nvcore.testing.contract import BrokenContract, broken, compare
from nvcore.testing.host import HostKit
from nvcore.testing.lockdep.fence import Fence, publish_observers, published_fences

__all__ = ["Watch", "Watched", "WatchedDriver", "WatchingClock", "watching"]


class Watch:
    """What the calls of all watched clients did. sleepers: sleeps inside on_fault; stood_still: the longest real time in which one on_fault
    did not run, since this was last set to 0; open_fences: left open by it; kept: grants that remove() left."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kit: HostKit | None = None
        self.sleepers: list[str] = []
        self.stood_still = 0.0
        self.open_fences: list[str] = []
        self.raised: dict[str, str] = {}
        self.kept: list[str] = []
        self.found: BrokenContract | None = None  # met on a thread of the host, which does not hand it on
        self.known: list[Fence] = published_fences()
        self._inside: set[int] = set()  # threads in on_fault
        self._acting: dict[int, str] = {}  # the function for which a client was called, by thread
        self._published: list[tuple[str, Fence]] = []  # in such calls

    @contextmanager
    def acting(self, function: str) -> Iterator[None]:
        """What this thread publishes in the block is its client's, on that function."""
        me = threading.get_ident()
        outer = self._acting.get(me)
        self._acting[me] = function
        try:
            yield
        finally:
            if outer is None:
                del self._acting[me]
            else:
                self._acting[me] = outer

    @contextmanager
    def during(self, what: str, function: str) -> Iterator[None]:
        """A call of a client: record what it raised."""
        try:
            with self.acting(function):
                yield
        except BaseException as error:
            self.raised.setdefault(what, f"{type(error).__name__}: {error}")
            raise

    @contextmanager
    def fault(self, function: str) -> Iterator[None]:
        """An on_fault: record whether it slept or stood still, and which fences it left open of those that were published before it."""
        me, fences = threading.get_ident(), self._fences(function)
        began, worked = time.monotonic(), time.thread_time()
        self._inside.add(me)
        try:
            with self.during("on_fault", function):
                yield
        finally:
            self._inside.discard(me)
            self.stood_still = max(self.stood_still, time.monotonic() - began - (time.thread_time() - worked))
            self.open_fences += [fence.name for fence in fences if not fence.signalled]

    def published(self, fence: Fence) -> None:
        """A fence was published, in this thread."""
        function = self._acting.get(threading.get_ident())
        if function is not None:
            self._published.append((function, fence))

    def _fences(self, function: str) -> list[Fence]:
        return [fence for owner, fence in list(self._published) if owner == function and not fence.signalled]

    def slept(self, what: str) -> None:
        """Somebody sleeps here: a finding inside on_fault."""
        if threading.get_ident() in self._inside:
            self.sleepers.append(what)

    def grants(self, function: str) -> list[str]:
        """Grants that the client holds for a function."""
        gpus = self.kit.host.gpus if self.kit else ()
        return [grant.name for gpu in gpus if gpu.hardware for grant in gpu.hardware.grants.values() if grant.function == function]


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Tell it of each `time.sleep` and each publication in the block."""
    real = time.sleep

    def sleep(seconds: float) -> None:
        watch.slept("time.sleep")
        real(seconds)

    publish_observers.append(watch.published)
    try:
        with patch.object(time, "sleep", sleep):
            yield
    finally:
        publish_observers.remove(watch.published)


class WatchingClock:
    """The machine's clock, telling the watch who sleeps."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def now(self) -> float:
        """As the machine's."""
        return SYSTEM.now()

    def sleep(self, seconds: float) -> None:
        """Sleep, and say so."""
        self._watch.slept("clock.sleep")
        SYSTEM.sleep(seconds)

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Wait, and say so."""
        self._watch.slept("clock.wait")
        return SYSTEM.wait(event, timeout)


class Watched:
    """A client with its calls watched. The marks are the client's own: the core calls this, this calls the client."""

    def __init__(self, client: Client, watch: Watch, function: str) -> None:
        self.inner, self._watch, self.function = client, watch, function

    def on_fault(self, fault: Fault) -> None:
        """As of the client."""
        with self._watch.fault(self.function):
            self.inner.on_fault(fault)

    def quiesce(self, reason: QuiesceReason, deadline: float, generation: int) -> None:
        """As of the client."""
        with self._watch.during("quiesce", self.function):
            self.inner.quiesce(reason, deadline, generation)

    def resume(self, vram: Literal["kept", "lost"], generation: int) -> None:
        """As of the client."""
        with self._watch.during("resume", self.function):
            self.inner.resume(vram, generation)

    def status(self) -> ClientStatus:
        """As of the client."""
        with self._watch.during("status", self.function):
            return self.inner.status()

    def remove(self) -> None:
        """As of the client; what it keeps is recorded."""
        with self._watch.during("remove", self.function):
            self.inner.remove()
        self._watch.kept += self._watch.grants(self.function)


class WatchedDriver:
    """A driver whose clients are watched."""

    def __init__(self, driver: ClientDriver, watch: Watch) -> None:
        self._driver, self._watch, self.name = driver, watch, driver.name

    def match(self, function: Function) -> bool:
        """As of the driver."""
        return self._driver.match(function)

    def probe(self, context: ClientContext) -> Client:
        """What the driver gives, watched."""
        with self._watch.during("probe", context.function.name):
            client = self._driver.probe(context)
        try:
            if client is None:
                broken("client-probe", self._watch.name, "probe() gave None")
            compare(client, Client, self._watch.name, marks="client-marks", signature="client-signature")
        except BrokenContract as found:
            self._watch.found = found
            raise
        return Watched(client, self._watch, context.function.name)
