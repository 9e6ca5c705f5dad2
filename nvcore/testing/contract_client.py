"""The contract checks of a client: its offer as it is, then the client on fake GPUs through every fault and back.

Owns the hosts that it starts, and a double of the driver that watches each call. The test's thread; the watched calls run on the host's.
Needs the lock validator. Internals of the core are used to make faults, never to judge what the client did with its own objects.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Final, Literal
from unittest.mock import patch

import attrs

from nvcore.api.client import Client, ClientContext, ClientDriver, ClientStatus, Function, FunctionKind, QuiesceReason
from nvcore.api.clock import SYSTEM
from nvcore.api.errors import ContractError
from nvcore.api.events import Fault
from nvcore.api.identity import ChipId, GpuIdentity
from nvcore.api.marks import LOCKDEP
from nvcore.api.needs import BootNeeds
from nvcore.api.offers import BusOffer, ClientOffer, FirmwareOffer
from nvcore.gpu.settings import HostSettings
from nvcore.hw.chips import chip_row
from nvcore.testing.contract import BrokenContract, Leftovers, broken, calling, compare, untouched
from nvcore.testing.host import HostKit
from nvcore.testing.lockdep.fence import Fence, published_fences

__all__ = ["check_client"]

_KINDS: Final[tuple[FunctionKind, ...]] = ("vgpu", "graphics", "display")
_AT_ONCE: Final = 0.5
"""Real seconds that a call which must not wait may take on a busy machine."""

Use = Callable[[Any], object]


class _Watch:
    """What the calls of all watched clients did. `sleepers`: sleeps inside on_fault; `open_fences`: left open by it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kit: HostKit | None = None
        self.inside: set[int] = set()  # threads in on_fault
        self.sleepers: list[str] = []
        self.open_fences: list[str] = []
        self.slow: list[str] = []
        self.raised: dict[str, str] = {}
        self.calls: list[str] = []
        self.kept: list[str] = []
        self.found: BrokenContract | None = None  # met on a thread of the host, which does not hand it on
        self.known: list[Fence] = published_fences()

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Record what a call raised, and that it was made."""
        self.calls.append(what)
        try:
            yield
        except BaseException as error:
            self.raised.setdefault(what, f"{type(error).__name__}: {error}")
            raise

    def slept(self, what: str) -> None:
        """Somebody sleeps here: a finding inside on_fault."""
        if threading.get_ident() in self.inside:
            self.sleepers.append(what)

    def grants(self, function: str) -> list[str]:
        """Grants that the client holds for a function."""
        gpus = self.kit.host.gpus if self.kit else ()
        return [grant.name for gpu in gpus if gpu.hardware for grant in gpu.hardware.grants.values() if grant.function == function]


class _Clock:
    """The machine's clock, telling the watch who sleeps."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    def now(self) -> float:
        return SYSTEM.now()

    def sleep(self, seconds: float) -> None:
        self._watch.slept("clock.sleep")
        SYSTEM.sleep(seconds)

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        self._watch.slept("clock.wait")
        return SYSTEM.wait(event, timeout)


class _Watched:
    """A client with its calls watched. The marks are the client's own: the core calls this, this calls the client."""

    def __init__(self, client: Client, watch: _Watch, function: str) -> None:
        self.inner, self._watch, self.function = client, watch, function

    def on_fault(self, fault: Fault) -> None:
        watch, me, began = self._watch, threading.get_ident(), time.monotonic()
        watch.inside.add(me)
        try:
            with watch.during("on_fault"):
                self.inner.on_fault(fault)
        finally:
            watch.inside.discard(me)
            took = time.monotonic() - began
            if took > _AT_ONCE:
                watch.sleepers.append(f"it took {took:.2f} s")
            watch.open_fences += [fence.name for fence in published_fences() if fence not in watch.known]

    def quiesce(self, reason: QuiesceReason, deadline: float, generation: int) -> None:
        with self._watch.during("quiesce"):
            self.inner.quiesce(reason, deadline, generation)

    def resume(self, vram: Literal["kept", "lost"], generation: int) -> None:
        with self._watch.during("resume"):
            self.inner.resume(vram, generation)

    def status(self) -> ClientStatus:
        with self._watch.during("status"):
            return self.inner.status()

    def remove(self) -> None:
        with self._watch.during("remove"):
            self.inner.remove()
        self._watch.kept += self._watch.grants(self.function)


class _WatchedDriver:
    """A driver whose clients are watched."""

    def __init__(self, driver: ClientDriver, watch: _Watch) -> None:
        self._driver, self._watch, self.name = driver, watch, driver.name

    def match(self, function: Function) -> bool:
        return self._driver.match(function)

    def probe(self, context: ClientContext) -> Client:
        with self._watch.during("probe"):
            client = self._driver.probe(context)
        try:
            if client is None:
                broken("client-probe", self._watch.name, "probe() gave None")
            compare(client, Client, self._watch.name, marks="client-marks", signature="client-signature")
        except BrokenContract as found:
            self._watch.found = found
            raise
        return _Watched(client, self._watch, context.function.name)


def check_client(
    offer: ClientOffer,
    *,
    use: Use | None = None,
    busy: Use | None = None,
    chip: str = "TU102",
    share: bool = True,
    config: object = None,
    others: Sequence[BusOffer | FirmwareOffer | ClientOffer | ModuleType] = (),
    sources: Sequence[str] = (),
    deadline: float = 1.0,
) -> None:
    """Hold a client against its contract; raises BrokenContract naming the first clause that it breaks.

    use(client): does something that must work whenever the client runs, and raises otherwise. busy(client): leaves work under way, such as
    a published fence, before each fault. chip, share: of the fake GPUs; share: whether memory can be mapped. config: the client's record.
    others: offers or plugins that it needs beside it; with a bus among them, sources: the devices to use. deadline: seconds for quiesce.
    Takes about a second on fakes.
    Source: DESIGN section 4, and section 5 on faults.
    """
    if not LOCKDEP:
        raise ContractError("contract checks need the lock validator", remedy="run them with pytest, or set NVCORE_LOCKDEP=1")
    from nvcore.testing.lockdep.rules import forget, violations

    _check_offer(offer, chip)
    _check_driver(offer, chip)
    known, before = list(violations()), Leftovers()
    watch = _Watch(offer.name)
    try:
        with TemporaryDirectory(prefix="nvcore-contract-") as folder, _sleeps_told(watch):
            _check_life(
                offer,
                watch,
                Path(folder),
                use or _nothing,
                busy or _nothing,
                chip=chip,
                share=share,
                config=config,
                others=others,
                sources=sources,
                deadline=deadline,
            )
        _check_left(watch, before)
    finally:
        new = [error for error in violations() if error not in known]
        for error in new:
            forget(error)
    if new:
        broken("client-on-fault" if "on_fault" in str(new[0]) else "client-locks", offer.name, new[0])


def _nothing(client: Any) -> None:
    return None


@contextmanager
def _sleeps_told(watch: _Watch) -> Iterator[None]:
    real = time.sleep

    def sleep(seconds: float) -> None:
        watch.slept("time.sleep")
        real(seconds)

    with patch.object(time, "sleep", sleep):
        yield


def _identity(chip: str) -> GpuIdentity:
    return GpuIdentity("0000:f0:00.0", "fake:0", ChipId(chip, chip_row(chip).family, "a1"), 0x1E04)


def _check_offer(offer: ClientOffer, chip: str) -> None:
    if not isinstance(offer, ClientOffer):
        broken("client-offer", repr(offer), f"a {type(offer).__name__}")
    who = offer.name or "a client without a name"
    if not offer.name or not offer.summary:
        broken("client-offer", who, f"name {offer.name!r}, summary {offer.summary!r}")
    if not offer.functions or any(kind not in _KINDS for kind in offer.functions):
        broken("client-offer", who, f"functions {tuple(offer.functions)}, known are {', '.join(_KINDS)}")
    answers = [untouched("client-needs", who, "needs()", lambda: offer.needs(_identity(chip))) for _ in range(2)]
    if not isinstance(answers[0], BootNeeds):
        broken("client-needs", who, f"needs() gave a {type(answers[0]).__name__}")
    if answers[0] != answers[1]:
        broken("client-needs", who, f"first {answers[0]}, then {answers[1]}")


def _check_driver(offer: ClientOffer, chip: str) -> None:
    driver = untouched("client-open", offer.name, "open()", offer.open)
    if not getattr(driver, "name", None):
        broken("client-open", offer.name, f"{type(driver).__name__} without a name")
    compare(driver, ClientDriver, offer.name, marks="client-marks", signature="client-signature")
    for kind in _KINDS:
        function = Function(f"0000:f0:00.0/{kind}", kind, _identity(chip), True)
        answers = [untouched("client-match", offer.name, "match()", partial(driver.match, function)) for _ in range(2)]
        if answers[0] is not answers[1] or not isinstance(answers[0], bool):
            broken("client-match", offer.name, f"for {kind}: first {answers[0]!r}, then {answers[1]!r}")
        if kind in offer.functions and not answers[0]:
            broken("client-match", offer.name, f"the offer claims {kind}, match() says no")


def _check_life(
    offer: ClientOffer,
    watch: _Watch,
    folder: Path,
    use: Use,
    busy: Use,
    *,
    chip: str,
    share: bool,
    config: object,
    others: Sequence[BusOffer | FirmwareOffer | ClientOffer | ModuleType],
    sources: Sequence[str],
    deadline: float,
) -> None:
    watched = attrs.evolve(offer, open=lambda: _WatchedDriver(offer.open(), watch))
    kit = HostKit(
        watched,
        *others,
        state_dir=folder,
        chip=chip,
        share=share,
        gpus=2,
        sources=sources,
        clock=_Clock(watch),
        config={offer.name: config} if config is not None else None,
        settings=HostSettings(quiesce=deadline, boot=20.0, call=5.0, settle=0.0),
    )
    watch.kit = kit
    try:
        kit.start()
        _check_runs(kit, watch, offer, use, "client-probe")
        _check_faults(kit, watch, offer, use, busy)
        with calling("client-again", offer.name, "a reset of the GPU by the operator"):
            kit.host.reset(kit.gpu.name)
        _check_removed(watch, "client-remove")
        _check_runs(kit, watch, offer, use, "client-again")
        _hit(watch, busy, kit, offer)
        kit.lose()
        _after_fault(watch, "client-lost")
        _check_removed(watch, "client-lost")
        watch.kept.clear()  # what is kept of a GPU that is lost, the core takes down
        kit.host.withdraw(offer.plugin or offer.name)
        _check_removed(watch, "client-remove")
    finally:
        for fake in kit.fakes:
            fake.firmware_running = fake.firmware_running and not fake.gone
        left = kit.close()
    if left:
        broken("client-remove", offer.name, "; ".join(left))


def _check_runs(kit: HostKit, watch: _Watch, offer: ClientOffer, use: Use, clause: str) -> None:
    """The client drives what it claims on every GPU, says so, works, and the books balance."""
    if watch.found is not None:
        raise watch.found
    for number, gpu in enumerate(kit.host.gpus):
        if gpu.state.name != "running":
            broken(clause, offer.name, f"the GPU is {gpu.state.name}: {gpu.state.cause}")
        for function in gpu.functions:
            if function.kind in offer.functions and not function.published:
                broken("client-needs", offer.name, f"{function.name} is not published: {function.reason}")
        if not any(attachment.name == offer.name and attachment.client is not None for attachment in gpu.attachments):
            broken(clause, offer.name, kit.host.problems.get(offer.name) or "no function was taken")
        client = kit.client(offer.name, number)
        _check_status(client, offer.name, clause)
        with calling(clause, offer.name, "use"):
            use(client.inner)
    problems = kit.problems()
    if problems:
        broken(clause, offer.name, "; ".join(problems))


def _check_status(client: _Watched, who: str, clause: str) -> None:
    began = time.monotonic()
    with calling("client-status", who, "status()"):
        status = client.status()
    took = time.monotonic() - began
    if not isinstance(status, ClientStatus):
        broken("client-status", who, f"a {type(status).__name__}")
    with calling("client-status", who, "JSON of its detail"):
        json.dumps(dict(status.detail))
    if took > _AT_ONCE:
        broken("client-status", who, f"it took {took:.2f} s")
    if status.state != "running":
        broken(clause, who, f"status() says {status.state}: {status.text}")


def _hit(watch: _Watch, busy: Use, kit: HostKit, offer: ClientOffer) -> None:
    """Leave work under way before a fault."""
    with calling("client-probe", offer.name, "busy"):
        busy(kit.client(offer.name).inner)


def _check_faults(kit: HostKit, watch: _Watch, offer: ClientOffer, use: Use, busy: Use) -> None:
    """Up the ladder: a channel where there is one, the grant where there is one, the GPU."""

    def fault(rung: str, make: Callable[[], None]) -> None:
        _hit(watch, busy, kit, offer)
        make()
        _after_fault(watch, "client-resume", f" ({rung})")
        _check_runs(kit, watch, offer, use, "client-resume")

    hardware = kit.gpu.hardware
    assert hardware is not None  # _check_runs saw it
    channels = [channel for channel in hardware.channels if channel.grant.client == offer.name]
    if channels and kit.backend is not None:
        fault("channel fault", lambda: kit.channel_fault(channels[0].channel, channels[0].engine))
    if watch.grants(kit.client(offer.name).function):
        fault("grant fault", lambda: kit.grant_fault(offer.name))
    fault("GPU fault", kit.gpu_fault)


def _after_fault(watch: _Watch, clause: str, where: str = "") -> None:
    """What on_fault, quiesce and resume did, in the order in which the core needs them."""
    who, raised = watch.name, watch.raised
    if watch.sleepers:
        broken("client-on-fault", who, f"it waits: {watch.sleepers[0]}{where}")
    if "on_fault" in raised:
        broken("client-on-fault", who, f"on_fault raised {raised['on_fault']}{where}")
    if watch.open_fences:
        broken("client-fences", who, f"still open: {', '.join(watch.open_fences)}{where}")
    if "quiesce" in raised:
        broken("client-quiesce", who, f"quiesce raised {raised['quiesce']}{where}")
    if "resume" in raised:
        broken("client-resume", who, f"resume raised {raised['resume']}{where}")
    problem = watch.kit.host.problems.get(who) if watch.kit else None
    if problem:
        broken("client-quiesce" if "missed-deadline" in problem else clause, who, f"{problem}{where}")


def _check_removed(watch: _Watch, clause: str) -> None:
    if "remove" in watch.raised:
        broken(clause, watch.name, f"remove raised {watch.raised['remove']}")
    if watch.kept and clause == "client-remove":
        broken(clause, watch.name, f"grants kept: {', '.join(watch.kept)}")


def _check_left(watch: _Watch, before: Leftovers) -> None:
    left = before.find() + [f"published fence {fence.name}" for fence in published_fences() if fence not in watch.known]
    if left:
        broken("client-remove", watch.name, ", ".join(left))
