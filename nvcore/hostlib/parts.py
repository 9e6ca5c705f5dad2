"""The parts that all GPUs of a host share: event log, clock, offers, opened backends and drivers, saved states.

Owns the opened backends and client drivers (one of each per host). Any thread; opening happens on life-cycle threads, under one lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nvcore.api.client import ClientDriver
from nvcore.api.clock import Clock
from nvcore.api.errors import PluginError
from nvcore.api.firmware import FirmwareBackend
from nvcore.api.offers import ClientOffer, FirmwareOffer
from nvcore.events import EventLog
from nvcore.gpu.settings import HostSettings
from nvcore.gpu.threads import describe_error
from nvcore.hostlib.saved import SavedStates
from nvcore.locks import Lock

__all__ = ["Parts"]


class Parts:
    """Shared parts. problems: what went wrong with a client or a backend, by name. changed: called after every change of a GPU's state."""

    def __init__(
        self, *, clock: Clock, events: EventLog, settings: HostSettings, backends: Sequence[FirmwareOffer], clients: Sequence[ClientOffer],
        state_dir: Path, changed: Callable[[], None],
    ) -> None:  # fmt: skip
        self.clock, self.events, self.settings = clock, events, settings
        self.backends, self.clients = tuple(backends), list(clients)
        self.state_dir, self.changed = state_dir, changed
        self.saved_states = SavedStates(state_dir / "gpus")
        self.problems: dict[str, str] = {}
        self._lock = Lock("host-parts")
        self._backends: dict[str, FirmwareBackend] = {}
        self._drivers: dict[str, ClientDriver | None] = {}

    def open_backend(self, offer: FirmwareOffer) -> FirmwareBackend:
        """The backend behind an offer, opened once per host. Raises PluginError when it cannot be."""
        with self._lock:
            backend = self._backends.get(offer.name)
            if backend is None:
                try:
                    backend = offer.open()
                except Exception as error:  # isolation boundary: hook
                    seen = self.problems[offer.name] = describe_error(error)[0]
                    what = f"firmware backend {offer.name} cannot be opened"
                    raise PluginError(what, seen=seen, remedy="see: nvcore plugins doctor") from error
                self._backends[offer.name] = backend
            return backend

    def client_driver(self, offer: ClientOffer) -> ClientDriver | None:
        """The driver behind an offer, opened once per host; None when it cannot be (then it is among the problems)."""
        with self._lock:
            if offer.name not in self._drivers:
                try:
                    self._drivers[offer.name] = offer.open()
                except Exception as error:  # isolation boundary: hook
                    self._drivers[offer.name] = None
                    self.problems[offer.name] = describe_error(error)[0]
                    self.events.publish("plugin", f"client {offer.name} cannot be opened: {self.problems[offer.name]}", owner=offer.name)
            return self._drivers[offer.name]

    def drop_client(self, name: str) -> None:
        """Forget a client that was stopped: it is matched no more."""
        self.clients = [offer for offer in self.clients if offer.name != name]
        self._drivers.pop(name, None)
