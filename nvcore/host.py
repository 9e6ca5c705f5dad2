"""The embedded host: what `nvcore run` starts, and what a test or a program can hold in its hand.

Owns the GPUs, the buses and the event log of one host. Offers come from outside (the plugin host, or a test): this module imports no
plugin. The caller's thread waits; everything else happens on the threads of each GPU, so that two GPUs are two failure domains. Nothing
here is imported that a host without GPUs does not need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.errors import ContractError, NotFoundError, NvcoreError, PluginError, WaitTimeout
from nvcore.api.marks import may_sleep
from nvcore.events import EventLog
from nvcore.gpu.settings import HostSettings

if TYPE_CHECKING:
    from pathlib import Path

    from nvcore.api.device import Bus, BusEvent, Device
    from nvcore.api.function import Function
    from nvcore.api.offers import BusOffer, ClientOffer, Finding, FirmwareOffer
    from nvcore.gpu.life import Gpu
    from nvcore.gpu.threads import Job
    from nvcore.hostlib.parts import Parts

__all__ = ["Host"]


class _NoBus:
    """Stands for a bus that is not there: a GPU on it fails with the reason."""

    def __init__(self, error: NvcoreError) -> None:
        self._error = error

    def open(self, source: str) -> Device:
        raise self._error

    def scan(self) -> Sequence[str]:
        return ()

    def subscribe(self, callback: Callable[[BusEvent], None]) -> Callable[[], None]:
        return self.close

    def close(self) -> None:
        return None


class Host:
    """A driver host.

    sources: devices to drive, as in "softgpu:ga100?vram=40G". buses, backends, clients: offers. state_dir: where saved states and the
    clients' folders live; None: a temporary folder that goes with the host. Use it as a context manager, or `start` and `stop` it.
    """

    def __init__(
        self, sources: Iterable[str] = (), *, buses: Sequence[BusOffer] = (), backends: Sequence[FirmwareOffer] = (),
        clients: Sequence[ClientOffer] = (), clock: Clock = SYSTEM, state_dir: Path | None = None, config: HostSettings | None = None,
        events: EventLog | None = None, on_change: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.settings = config or HostSettings()
        self.events = events or EventLog(clock)
        self.sources = tuple(dict.fromkeys(sources))
        self._bus_offers, self._backends, self._clients = tuple(buses), tuple(backends), tuple(clients)
        self._state_dir, self._temporary = state_dir, state_dir is None
        self._on_change = on_change
        self._buses: dict[str, Bus] = {}
        self._endings: list[Callable[[], None]] = []
        self._gpus: list[Gpu] = []
        self._parts: Parts | None = None
        self.hanging: list[str] = []

    # what there is

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs, in the order of the sources, whatever their state."""
        return tuple(self._gpus)

    @property
    def functions(self) -> tuple[Function, ...]:
        """All functions of all booted GPUs."""
        return tuple(function for gpu in self._gpus for function in gpu.functions)

    @property
    def problems(self) -> dict[str, str]:
        """What went wrong with backends and clients, by name."""
        return dict(self._parts.problems) if self._parts else {}

    def gpu(self, name: str) -> Gpu:
        """A GPU by bus address, UUID or source. Raises NotFoundError."""
        for gpu in self._gpus:
            if name in (gpu.name, gpu.source) or (gpu.identity is not None and name == gpu.identity.uuid):
                return gpu
        raise NotFoundError(f"no GPU {name!r}", expected=", ".join(gpu.name for gpu in self._gpus) or "none configured", seen=name)

    # start and stop

    @may_sleep
    def start(self, *, wait: bool = True) -> Host:
        """Bring all GPUs up, in parallel. With `wait` returns when each runs or has a state that says why not; a GPU that does not get
        there within `settings.boot` goes on by itself. Raises ContractError when started before."""
        if self._parts is not None:
            raise ContractError("this host was started before", remedy="make a new one")
        if self.sources:
            self._start_gpus(wait)
        return self

    def _start_gpus(self, wait: bool) -> None:
        from nvcore.gpu.life import Gpu
        from nvcore.hostlib.parts import Parts

        self._parts = Parts(
            clock=self.clock, events=self.events, settings=self.settings, backends=self._backends, clients=self._clients,
            state_dir=self._folder(), changed=self._changed,
        )  # fmt: skip
        self._gpus = [Gpu(source, self._bus(source), self._parts) for source in self.sources]
        jobs = []
        for gpu in self._gpus:
            gpu.life.start()
            gpu.calls.start()
            jobs.append((gpu, gpu.life.post(gpu.bring_up, "boot")))
        for gpu, error in self._late(jobs, self.clock.now() + self.settings.boot) if wait else ():
            self.events.publish("boot", str(error), gpu=gpu.name)

    def _late(self, jobs: Iterable[tuple[Gpu, Job]], deadline: float) -> Iterator[tuple[Gpu, WaitTimeout]]:
        """Wait for jobs of GPUs; those that do not end before `deadline`."""
        for gpu, job in jobs:
            try:
                job.wait(self.clock, max(0.0, deadline - self.clock.now()))
            except WaitTimeout as error:
                yield gpu, error

    def _folder(self) -> Path:
        if self._state_dir is None:
            from pathlib import Path
            from tempfile import mkdtemp

            self._state_dir = Path(mkdtemp(prefix="nvcore-"))
        self._state_dir.mkdir(parents=True, exist_ok=True)
        return self._state_dir

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()

    def _bus(self, source: str) -> Bus:
        scheme = source.partition(":")[0]
        if scheme not in self._buses:
            bus = self._open_bus(scheme)
            self._buses[scheme] = bus
            self._endings.append(bus.subscribe(self._bus_event))
        return self._buses[scheme]

    def _open_bus(self, scheme: str) -> Bus:
        offers = [offer for offer in self._bus_offers if scheme in offer.schemes]
        names = ", ".join(scheme for offer in self._bus_offers for scheme in offer.schemes)
        if not offers:
            remedy = "install the plugin of this bus"
            return _NoBus(NotFoundError(f"no bus serves {scheme!r}", expected=names or "a device plugin", remedy=remedy))
        if len(offers) > 1:
            both = " and ".join(offer.name for offer in offers)
            return _NoBus(PluginError(f"buses {both} both serve {scheme!r}", expected="one", remedy="select only one of the plugins"))
        try:
            return offers[0].open(self.settings.buses.get(scheme, {}))
        except Exception as error:  # isolation boundary: hook
            if isinstance(error, NvcoreError):
                return _NoBus(error)
            return _NoBus(PluginError(f"bus {scheme} cannot be opened", seen=f"{type(error).__name__}: {error}"))

    def _bus_event(self, event: BusEvent) -> None:
        """A device came or went. Runs in the bus's thread: stores and hands over."""
        self.events.publish("device", f"{event.source} {event.kind}")
        for gpu in self._gpus:
            if gpu.source == event.source and event.kind == "removed":
                gpu.removed()

    @may_sleep
    def stop(self, timeout: float = 60.0) -> list[str]:
        """Everything down in reverse order, within `timeout` seconds: clients leave, firmware is unloaded, devices and buses are released.
        The names of what hung and was abandoned. Idempotent."""
        jobs = [(gpu, gpu.life.post(gpu.take_down, "unload")) for gpu in reversed(self._gpus) if gpu.state.name != "released"]
        deadline = self.clock.now() + timeout
        self.hanging += [f"unload of {gpu.name}" for gpu, _ in self._late(jobs, deadline)]
        for gpu in reversed(self._gpus):
            self.hanging += gpu.end_threads(max(0.1, min(5.0, deadline - self.clock.now())))
        for end in reversed(self._endings):
            end()
        self._endings.clear()
        for bus in reversed(tuple(self._buses.values())):
            bus.close()
        self._buses.clear()
        if jobs:
            import gc

            gc.collect()  # sessions, grants and channels refer to one another; the memory that they kept goes now, not at some later boot
        if self._temporary and self._state_dir is not None:
            from shutil import rmtree

            rmtree(self._state_dir, ignore_errors=True)
            self._state_dir = None
        return list(self.hanging)

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
    def stop_client(self, name: str, *, timeout: float | None = None) -> int:
        """Have a client leave all GPUs, in order, for good; from how many functions it left. The GPUs run on."""
        left = 0
        for gpu in reversed(self._gpus):
            for attachment in [attachment for attachment in gpu.attachments if attachment.name == name]:
                limit = timeout or 2 * self.settings.call
                gpu.life.call(partial(gpu.detach, attachment), f"stop of {name} on {gpu.name}", limit)
                left += 1
        if self._parts is not None:
            self._parts.drop_client(name)
        return left

    @may_sleep
    def doctor(self) -> list[Finding]:
        """Findings about this host: every GPU's state, its books, its objects in the firmware."""
        from nvcore.hostlib.doctor import check_gpus

        return check_gpus(self._gpus)

    @may_sleep
    def dump(self, folder: Path) -> list[Path]:
        """Write a post-mortem bundle into `folder`; the files."""
        from nvcore.hostlib.dump import write_bundle

        return write_bundle(self, folder)

    def describe(self) -> dict[str, Any]:
        """The host as a JSON-able object."""
        from nvcore import __version__
        from nvcore.hostlib.describe import describe_gpu

        return {
            "version": __version__,
            "sources": list(self.sources),
            "gpus": [describe_gpu(gpu) for gpu in self._gpus],
            "problems": self.problems,
            "last_event": self.events.last,
        }

    def summary(self) -> list[dict[str, Any]]:
        """One JSON-able row a GPU."""
        from nvcore.hostlib.describe import summarise_gpu

        return [summarise_gpu(gpu) for gpu in self._gpus]
