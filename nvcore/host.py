"""The embedded host: what `nvcore run` starts, and what a test or a program can hold in its hand.

Owns the GPUs and the event log of one host, and what offers open for all of them: buses, backends, client drivers, one of each. Offers come
from outside (the plugin host, or a test): this module imports no plugin. The caller's thread waits; everything else happens on the threads
of each GPU, so that two GPUs are two failure domains. Nothing here is imported that a host without GPUs does not need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.errors import ConflictError, ContractError, NotFoundError, PluginError, WaitTimeout
from nvcore.api.marks import may_sleep
from nvcore.events import EventLog
from nvcore.gpu.settings import HostSettings
from nvcore.locks import Lock

if TYPE_CHECKING:
    from pathlib import Path

    from nvcore.api import client, device, firmware, offers
    from nvcore.gpu.life import Gpu
    from nvcore.gpu.threads import Job

_T = TypeVar("_T")


class Host:
    """A driver host.

    sources: devices to drive, as in "softgpu:ga100?vram=40G". buses, backends, clients: offers. state_dir: where saved states and the
    clients' folders live; None: a temporary folder that goes with the host. Use it as a context manager, or `start` and `stop` it.
    problems: what went wrong with buses, backends and clients, by name.
    """

    def __init__(
        self, sources: Iterable[str] = (), *, buses: Sequence[offers.BusOffer] = (), backends: Sequence[offers.FirmwareOffer] = (),
        clients: Sequence[offers.ClientOffer] = (), clock: Clock = SYSTEM, state_dir: Path | None = None,
        config: HostSettings | None = None, events: EventLog | None = None,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.settings = config or HostSettings()
        self.events = events or EventLog(clock)
        self.sources = tuple(dict.fromkeys(sources))
        self.backends, self.clients = tuple(backends), tuple(clients)
        self.problems: dict[str, str] = {}  # replaced as a whole: any thread reads it
        self._state_dir = state_dir
        self._bus_offers = tuple(buses)
        self._opened: dict[tuple[str, str], Any] = {}
        self._endings: list[tuple[str, Callable[[], None]]] = []  # what lets go of a bus, by its scheme, or of the folder
        self._lock = Lock("host-offers")
        self.gpus: tuple[Gpu, ...] = ()  # in the order of the sources, whatever their state

    # what there is

    @property
    def functions(self) -> tuple[client.Function, ...]:
        """All functions of all booted GPUs."""
        return tuple(function for gpu in self.gpus for function in gpu.functions)

    def gpu(self, name: str) -> Gpu:
        """A GPU by bus address, UUID or source. Raises NotFoundError."""
        for gpu in self.gpus:
            if name in (gpu.name, gpu.source) or (gpu.identity is not None and name == gpu.identity.uuid):
                return gpu
        from nvcore.plugins.names import did_you_mean

        known = [gpu.name for gpu in self.gpus]
        remedy = did_you_mean(name, known, "nvcore gpus lists them")
        raise NotFoundError(f"no GPU {name!r}", expected=", ".join(known) or "none configured", remedy=remedy)

    # start and stop

    @may_sleep
    def start(self, *, wait: bool = True) -> Host:
        """Bring all GPUs up, in parallel. With `wait` returns when each runs or has a state that says why not; a GPU that does not get
        there within `settings.boot` goes on by itself. Raises ContractError when started before."""
        if self.gpus:
            raise ContractError("this host was started before", remedy="make a new one")
        if not self.sources:
            return self
        from nvcore.gpu.life import Gpu

        self.gpus = tuple(Gpu(source, self) for source in self.sources)
        jobs = [(gpu, gpu.life.post(gpu.bring_up, "boot")) for gpu in self.gpus]
        for gpu, error in self._late(jobs, self.clock.now() + self.settings.boot) if wait else ():
            self.events.publish("boot", str(error), gpu=gpu.name)
        return self

    def _late(self, jobs: Iterable[tuple[Gpu, Job]], deadline: float) -> Iterator[tuple[Gpu, WaitTimeout]]:
        """Wait for jobs of GPUs; those that do not end before `deadline`."""
        for gpu, job in jobs:
            try:
                job.wait(self.clock, max(0.0, deadline - self.clock.now()))
            except WaitTimeout as error:
                yield gpu, error

    # what its GPUs share

    @property
    def state_dir(self) -> Path:
        """The folder of saved states and clients; made when it is first needed."""
        if self._state_dir is None:
            from pathlib import Path
            from tempfile import TemporaryDirectory

            folder = TemporaryDirectory(prefix="nvcore-", ignore_cleanup_errors=True)
            self._endings.append(("", folder.cleanup))
            self._state_dir = Path(folder.name)
        self._state_dir.mkdir(parents=True, exist_ok=True)
        return self._state_dir

    def blame(self, name: str, cause: str) -> None:
        """Enter what went wrong with a bus, a backend or a client."""
        self.problems = {**self.problems, name: cause}

    def _once(self, what: str, name: str, open: Callable[[], _T]) -> _T:
        """What an offer opens, opened once per host. Raises PluginError when it cannot be; it is among the problems then."""
        with self._lock:
            if (what, name) not in self._opened:
                try:
                    self._opened[what, name] = open()
                except BaseException as error:  # isolation boundary: hook
                    from nvcore.gpu.threads import describe_error

                    seen, _, remedy = describe_error(error)
                    self.blame(name, seen)
                    remedy = remedy or "see: nvcore plugins doctor"
                    raise PluginError(f"{what} {name} cannot be opened", seen=seen, remedy=remedy) from error
            opened: _T = self._opened[what, name]
            return opened

    @may_sleep
    def open_device(self, source: str) -> device.Device:
        """The device that a source names, on the one bus that serves its scheme. Raises NotFoundError, PluginError, what the bus raises."""
        scheme = source.partition(":")[0]
        serving = [offer for offer in self._bus_offers if scheme in offer.schemes]
        if not serving:
            known = ", ".join(scheme for offer in self._bus_offers for scheme in offer.schemes) or "none"
            remedy = f"name a device of a scheme that is served ({known}), or install the device plugin that serves {scheme}"
            if scheme == "pci":
                remedy = f"devices on the PCI bus are not driven yet; schemes that are served: {known}"
            raise NotFoundError(f"no bus serves {scheme!r}", expected=known, remedy=remedy)
        if len(serving) > 1:
            both = " and ".join(offer.name for offer in serving)
            raise PluginError(f"buses {both} both serve {scheme!r}", expected="one", remedy="select only one of the plugins")

        def open() -> device.Bus:
            bus = serving[0].open(self.settings.buses.get(scheme, {}))
            self._endings.append((scheme, bus.close))
            self._endings.append((scheme, bus.subscribe(self._bus_event)))
            return bus

        return self._once("bus", scheme, open).open(source)

    @may_sleep
    def open_backend(self, offer: offers.FirmwareOffer) -> firmware.FirmwareBackend:
        """The backend behind an offer. Raises PluginError when it cannot be opened."""
        return self._once("firmware backend", offer.name, offer.open)

    @may_sleep
    def open_driver(self, offer: offers.ClientOffer) -> client.ClientDriver:
        """The driver behind an offer. Raises PluginError when it cannot be opened."""
        return self._once("client", offer.name, offer.open)

    def _bus_event(self, event: device.BusEvent) -> None:
        """A device came or went. Runs in the bus's thread: stores and hands over."""
        self.events.publish("device", f"{event.source} {event.kind}")
        for gpu in self.gpus:
            if gpu.source == event.source and event.kind == "removed":
                gpu.ladder.meet_gpu("device-gone: removed from its bus")

    @may_sleep
    def stop(self, timeout: float = 60.0) -> list[str]:
        """Everything down in reverse order, within `timeout` seconds: clients leave, firmware is unloaded, devices and buses are released.
        The names of what hung and was abandoned. Idempotent."""
        jobs = [(gpu, gpu.life.post(gpu.take_down, "unload")) for gpu in reversed(self.gpus) if gpu.state.name != "released"]
        deadline = self.clock.now() + timeout
        hanging = [f"unload of {gpu.name}" for gpu, _ in self._late(jobs, deadline)]
        for gpu in reversed(self.gpus):
            hanging += gpu.end_threads(max(0.1, min(5.0, deadline - self.clock.now())))
        self._end({scheme for scheme, _ in self._endings})
        self._opened.clear()
        if jobs:
            import gc

            gc.collect()  # sessions, grants and channels refer to one another; the memory that they kept goes now, not at some later boot
        return hanging

    def _end(self, schemes: set[str]) -> None:
        """Let go of what was opened for these, the last first."""
        for ending in reversed([one for one in self._endings if one[0] in schemes]):
            self._endings.remove(ending)
            try:
                ending[1]()
            except Exception as error:  # isolation boundary: hook
                self.events.publish("plugin", f"a bus was not closed in order: {type(error).__name__}: {error}", code="NVC-1010")

    def __enter__(self) -> Host:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # what an operator asks

    @may_sleep
    def retry(self, name: str, *, timeout: float | None = None) -> Gpu:
        """Try a GPU again that is not running. Raises NotFoundError, ConflictError when it runs, WaitTimeout."""
        gpu = self.gpu(name)
        gpu.life.call(gpu.retry, f"retry of {gpu.name}", timeout or self.settings.boot)
        return gpu

    @may_sleep
    def reset(self, name: str, *, timeout: float | None = None) -> Gpu:
        """Everything of a GPU down, the device reset, and up again. Raises NotFoundError, WaitTimeout."""
        gpu = self.gpu(name)
        gpu.life.call(gpu.reset, f"reset of {gpu.name}", timeout or self.settings.boot)
        return gpu

    @may_sleep
    def withdraw(self, plugin: str) -> None:
        """Let go of all that a plugin offered (an offer without one is its own plugin): its clients leave all GPUs, in order, and nothing
        of it is used again. The GPUs run on. Raises ConflictError, with nothing done, while a GPU runs on a bus or a backend of it."""

        def theirs(offer: offers.Offer) -> bool:
            return plugin == (offer.plugin or offer.name)

        schemes = {scheme for offer in filter(theirs, self._bus_offers) for scheme in offer.schemes}
        backends = [self._opened.get(("firmware backend", offer.name)) for offer in filter(theirs, self.backends)]
        for gpu in self.gpus:
            rests = gpu.state.name in ("failed", "unsupported", "lost", "released")
            drives = bool(backends) and (gpu.backend is None or gpu.backend in backends)  # None: it may be about to choose one
            if (drives and not rests) or (gpu.source.partition(":")[0] in schemes and (gpu.device or not rests)):
                remedy = f"stop the GPUs first: nvcore stop, then start without it: nvcore run -p no:{plugin}"
                raise ConflictError(f"plugin {plugin} cannot be stopped: GPU {gpu.name} is {gpu.state.name} on it", remedy=remedy)
        asked = [gpu for gpu in self.gpus if gpu.state.name != "released"] if any(map(theirs, self.clients)) else []
        self._bus_offers = tuple(offer for offer in self._bus_offers if not theirs(offer))
        self.backends = tuple(offer for offer in self.backends if not theirs(offer))
        self.clients = tuple(offer for offer in self.clients if not theirs(offer))
        self._end(schemes)  # no GPU has a device of them, and none will get one
        # each on its own thread: one may be attaching it right now, and one that takes long keeps it from leaving no other
        jobs = [(gpu, gpu.life.post(partial(gpu.detach_all_of, plugin), f"stop of {plugin} on {gpu.name}")) for gpu in asked]
        for _, error in list(self._late(jobs, self.clock.now() + 2 * self.settings.call)):
            raise error

    @may_sleep
    def doctor(self) -> list[offers.Finding]:
        """Findings about this host: every GPU's state, its books, its objects in the firmware."""
        from nvcore.hostlib.doctor import check_gpu

        return [finding for gpu in self.gpus for finding in check_gpu(gpu)]

    @may_sleep
    def dump(self, folder: Path) -> list[Path]:
        """Write a post-mortem bundle into `folder`; the files."""
        from nvcore.hostlib.dump import write_bundle

        return write_bundle(self, folder)

    def describe(self) -> dict[str, Any]:
        """The host as a JSON-able object."""
        from nvcore import __version__
        from nvcore.hostlib.describe import describe_gpu

        gpus, last = [describe_gpu(gpu) for gpu in self.gpus], self.events.last
        return {"version": __version__, "sources": list(self.sources), "gpus": gpus, "problems": self.problems, "last_event": last}

    def summary(self) -> list[dict[str, Any]]:
        """One JSON-able row a GPU."""
        from nvcore.hostlib.describe import summarise_gpu

        return [summarise_gpu(gpu) for gpu in self.gpus]
