"""The host fixture: an embedded host with chosen offers on fake devices, and the check of what it left behind.

Owns the fakes, their firmware where no other is given, the host and its state directory. A test's thread; what it starts runs on the host's
own threads. `nvcore_host` is the pytest fixture; `HostKit` is the same without pytest. Imports no plugin: modules and offers come from the
test.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from nvcore.api.client import FunctionKind
from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.errors import NotFoundError, UsageError
from nvcore.api.events import ChannelFault
from nvcore.api.offers import BusOffer, ClientOffer, FirmwareOffer, MetricOffer
from nvcore.gpu.life import Gpu
from nvcore.gpu.settings import HostSettings
from nvcore.host import Host
from nvcore.testing.contract import broken, waits_in
from nvcore.testing.fakes import FakeGpu, fake_bus
from nvcore.testing.firmware import FakeBackend, FakeSession, fake_firmware
from nvcore.testing.modules import offers_of, record_of

__all__ = ["HostKit", "until"]

Offer = BusOffer | FirmwareOffer | ClientOffer


def until(claim: Callable[[], bool], what: str, limit: float = 5.0) -> None:
    """Wait in real time until `claim()` is true: other threads get there. Raises AssertionError with `what` after `limit` seconds."""
    end = time.monotonic() + limit
    while not claim():
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit:g} s: {what}")
        time.sleep(0.002)


class HostKit:
    """A host on fakes. Made with offers and plugin modules, started by `start`, ended by `close`.

    what: offers (bus, firmware, client) and plugin modules, whose hooks are called as a host would; modules of one package are one plugin.
    Without a firmware offer for `chip` the fake firmware boots; without a bus offer the sources are `gpus` fakes, "fake:0" and so on.
    sources: of a bus of your own. config: configuration records, by offer name for clients, by top-level package for modules. A client
    without one gets its plugin's, and a plugin without one the defaults of its own section. settings: the host's limits; its `clients` are
    replaced by these.
    """

    def __init__(
        self,
        *what: Offer | ModuleType,
        state_dir: Path,
        chip: str = "TU102",
        gpus: int = 1,
        share: bool = True,
        clock: Clock = SYSTEM,
        sources: Sequence[str] = (),
        config: Mapping[str, object] | None = None,
        settings: HostSettings | None = None,
    ) -> None:
        offers = _offers(what, config or {}, clock, state_dir)
        self._metrics = [offer for offer in offers if isinstance(offer, MetricOffer)]
        self.clients = [offer for offer in offers if isinstance(offer, ClientOffer)]
        self.backends = [offer for offer in offers if isinstance(offer, FirmwareOffer)]
        buses = [offer for offer in offers if isinstance(offer, BusOffer)]
        self.fakes = [] if buses else [FakeGpu(f"fake:{n}", chip=chip, address=f"0000:f{n:x}:00.0", share=share) for n in range(gpus)]
        self.backend: FakeBackend | None = None
        if not any(chip in offer.chips for offer in self.backends):
            firmware, self.backend = fake_firmware(chip)
            self.backends.append(firmware)
        self.settings = settings or HostSettings(quiesce=2.0, boot=20.0, call=5.0, settle=0.0)
        self.settings.clients = {offer.name: record_of(offer) for offer in self.clients} | dict(config or {})
        self.host = Host(
            sources or [fake.source for fake in self.fakes],
            buses=buses or [fake_bus(*self.fakes)],
            backends=self.backends,
            clients=self.clients,
            clock=clock,
            state_dir=state_dir,
            config=self.settings,
        )
        self._closed = False

    def start(self) -> HostKit:
        """Bring all GPUs up. What did not come up is a state: see `gpu.state`."""
        self.host.start()
        return self

    @property
    def fake(self) -> FakeGpu:
        """The first fake device: its registers, log and fault script."""
        return self.fakes[0]

    @property
    def gpu(self) -> Gpu:
        """The first GPU of the host."""
        return self.host.gpus[0]

    @property
    def session(self) -> FakeSession:
        """The newest session of the fake firmware. Raises UsageError where another firmware runs."""
        if self.backend is None or not self.backend.sessions:
            raise UsageError("no fake firmware runs in this host", remedy="leave the firmware offer out")
        return self.backend.sessions[-1]

    def client(self, name: str, gpu: int = 0, *, kind: FunctionKind | None = None) -> Any:
        """The client object that the driver `name` gave for a GPU. kind: of the function, for a driver of several. Raises NotFoundError
        naming what went wrong with it, UsageError where there are several."""
        mine = {one.function.name: one.client for one in self.host.gpus[gpu].attachments if one.name == name and one.client is not None}
        found = [client for function, client in mine.items() if kind in (None, function.rpartition("/")[2])]
        if not found:
            raise NotFoundError(f"client {name} drives nothing", seen=self.host.problems.get(name), expected="a function that it matches")
        if len(found) > 1:
            raise UsageError(f"{name} has several clients on this GPU", seen=", ".join(mine), remedy="say which: kind=…")
        return found[0]

    def function(self, kind: FunctionKind) -> Any:
        """The function of a kind on the first GPU."""
        return next(function for function in self.gpu.functions if function.kind == kind)

    # what goes wrong; each returns when the way back has ended, and raises BrokenContract for a client whose `on_fault` waited through it

    def channel_fault(self, channel: int, engine: str | None = None, cause: str = "mmu-fault") -> None:
        """The fake firmware of the first GPU reports that it stopped a channel. Raises NotFoundError where no grant holds its id, or it was
        stopped before: such a report is ignored."""
        hardware = self.gpu.hardware
        if hardware is None or hardware.ledger.owner_of("channels", channel) is None:
            raise NotFoundError(f"nobody holds channel {channel}")
        if (known := [one for one in hardware.channels if one.channel == channel]) and not any(one.alive for one in known):
            raise NotFoundError(f"channel {channel} was stopped before")
        self._and_back(lambda: self.session.emit(ChannelFault(channel, engine, cause, None, 0x1000)), f"fault of channel {channel}")

    def grant_fault(self, client: str, cause: str = "test-fault", *, kind: FunctionKind | None = None) -> None:
        """A fault of everything that a client was granted on the first GPU. kind: for this function; without, for the first that it was
        granted something for. Raises NotFoundError without a grant."""
        hardware = self.gpu.hardware
        grants = [grant for grant in hardware.grants.values() if grant.client == client and grant.parent is None] if hardware else []
        grants = [grant for grant in grants if kind in (None, grant.function.rpartition("/")[2])]
        if not grants:
            raise NotFoundError(f"{client} holds no grant")
        self._and_back(lambda: self.gpu.ladder.meet_grant(grants[0], cause), f"fault of a grant of {client}")

    def gpu_fault(self, cause: str = "test-halt") -> None:
        """The firmware of the first GPU dies: it runs again afterwards under a new generation, or the GPU is lost."""
        generation = self.gpu.generation
        self.gpu.ladder.meet_gpu(cause)
        until(lambda: self.gpu.state.name == "lost" or self._runs_after(generation), "restart of the firmware", 30.0)
        self._idle()

    def lose(self) -> None:
        """The first device leaves its bus: its GPU is lost."""
        if self.fakes:
            self.fake.leave()
        self.gpu.ladder.meet_gpu("device-gone: removed from its bus")
        until(lambda: self.gpu.state.name == "lost", "loss of the GPU", 30.0)
        self._idle()

    def _and_back(self, make: Callable[[], object], what: str) -> None:
        recovered, attached = self._recoveries(), len(self.gpu.attachments)
        make()
        until(
            lambda: self._recoveries() > recovered or len(self.gpu.attachments) < attached or self.gpu.state.name == "lost",
            f"the way back from a {what}",
            30.0,
        )
        self._idle()

    def _idle(self) -> None:
        """Wait for the life-cycle thread to end what it is at."""
        self.gpu.life.call(lambda: None, "idle", 30.0)
        for name, problem in self.host.problems.items():
            if "on_fault did not end" in problem:  # all that follows of it, such as LeaseRevoked, names another reason
                still = " and".join(where for thread in threading.enumerate() if (where := waits_in("on_fault", thread)))
                broken("client-on-fault", name, f"it waited: {problem}{still and f'; it still is{still}'}")

    def _runs_after(self, generation: int) -> bool:
        return self.gpu.state.name == "running" and self.gpu.generation > generation

    def _recoveries(self) -> int:
        return sum(event.kind == "recovery" for event in self.host.events.since())

    # the end

    def problems(self) -> list[str]:
        """What is wrong with the running host, by its own doctor and its clients; empty when all is well."""
        found = [finding.text for finding in self.host.doctor() if finding.severity in ("warning", "error")]
        return found + [f"{name}: {text}" for name, text in self.host.problems.items()]

    def metrics(self) -> dict[str, float]:
        """What the metrics of the plugin modules give now: `name{label="value"}`, labels as declared, to the value. Raises BrokenContract
        for a sample that its offer does not declare."""
        from nvcore.testing.contract_looks import samples

        found = {}
        for offer in self._metrics:
            for sample in samples(offer, offer.name):
                labels = ",".join(f'{label}="{sample.labels[label]}"' for label in offer.labels)
                found[f"{offer.name}{{{labels}}}" if labels else offer.name] = sample.value
        return found

    def close(self) -> list[str]:
        """Stop the host and scrap the fakes. What hung or was left behind in the devices; idempotent."""
        if self._closed:
            return []
        self._closed = True
        left = [f"hangs: {what}" for what in self.host.stop(10.0)]
        for fake in self.fakes:
            left += [f"{fake.source}: host memory left mapped: {buffer.label}" for buffer in fake.buffers]
            left += [f"{fake.source}: the device was not closed"] if fake.opened else []
            left += [f"{fake.source}: the firmware was left running"] if fake.firmware_running and not fake.gone else []
            fake.scrap()
        return left


def _offers(what: Iterable[Offer | ModuleType], config: Mapping[str, object], clock: Clock, state_dir: Path) -> list[Any]:
    """Offers as given; modules of one package are one plugin."""
    found: list[Any] = []
    plugins: dict[str, list[ModuleType]] = {}
    for one in what:
        if isinstance(one, ModuleType):
            plugins.setdefault(one.__name__.partition(".")[0], []).append(one)
        else:
            found.append(one)
    for name, modules in plugins.items():
        by_hook = offers_of(*modules, config=config.get(name), clock=clock, state_dir=state_dir / "plugins" / name)
        found += [offer for offers in by_hook.values() for offer in offers]
    return found
