"""The contract checks of a client: its offer as it is, then the client on fake GPUs through every fault and back.

Owns the hosts that it starts; what the client did there is told by `contract_watch`. The test's thread; the watched calls run on the
host's. Needs the lock validator. Internals of the core are used to make faults, never to judge what the client did with its own objects.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Final, NoReturn, get_args

import attrs

from nvcore.api.client import ClientDriver, ClientStatus, Function, FunctionKind
from nvcore.api.errors import ContractError
from nvcore.api.identity import ChipId, GpuIdentity
from nvcore.api.marks import LOCKDEP
from nvcore.api.needs import BootNeeds
from nvcore.api.offers import BusOffer, ClientOffer, FirmwareOffer
from nvcore.gpu.settings import HostSettings
from nvcore.hw.chips import chip_row
from nvcore.testing.contract import Leftovers, broken, calling, compare, untouched
from nvcore.testing.contract_watch import Watch, Watched, WatchedDriver, WatchingClock, watching
from nvcore.testing.host import HostKit
from nvcore.testing.lockdep.fence import published_fences
from nvcore.testing.modules import record_of

__all__ = ["check_client"]

_KINDS: Final[tuple[FunctionKind, ...]] = get_args(FunctionKind)
_STATES: Final = ("running", "quiesced", "failed", "gone")
_AT_ONCE: Final = 0.5
"""Real seconds that a call which must not wait may take on a busy machine, where it cannot be tried again."""

_STILL: Final = 0.05
"""Real seconds for which a call that waits for nothing may stand still, as on a busy machine; once more, however long, is no evidence."""

_TRIES: Final = 3
"""In so many faults of a rung, one after the other, it is."""

Use = Callable[[Any], object]


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
    a published fence, before each fault. chip, share: of the fake GPUs; share: whether memory can be mapped. config: the client's record;
    None: the one with which `check_plugin_module` or `offers_of` called the hook that gave this offer.
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
    watch = Watch(offer.name)
    try:
        with TemporaryDirectory(prefix="nvcore-contract-") as folder, watching(watch):
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
    watch: Watch,
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
    watched = attrs.evolve(offer, open=lambda: WatchedDriver(offer.open(), watch))
    kit = HostKit(
        watched,
        *others,
        state_dir=folder,
        chip=chip,
        share=share,
        gpus=2,
        sources=sources,
        clock=WatchingClock(watch),
        config={offer.name: config if config is not None else record_of(offer)},
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
        if watch.stood_still > _AT_ONCE:  # a GPU is lost only once
            _waits(watch.name, f"it stood still for {watch.stood_still:.2f} s")
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


def _clients(kit: HostKit, name: str, gpu: int = 0) -> list[Watched]:
    """Every client that the driver gave for a GPU: one for each function that it drives there."""
    mine = [one.client for one in kit.host.gpus[gpu].attachments if one.name == name]
    return [client for client in mine if isinstance(client, Watched)]


def _check_runs(kit: HostKit, watch: Watch, offer: ClientOffer, use: Use, clause: str) -> None:
    """The client drives what it claims on every GPU, says so, works, and the books balance."""
    if watch.found is not None:
        raise watch.found
    for number, gpu in enumerate(kit.host.gpus):
        if gpu.state.name != "running":
            broken(clause, offer.name, f"the GPU is {gpu.state.name}: {gpu.state.cause}")
        clients = _clients(kit, offer.name, number)
        driven = {client.function for client in clients}
        for function in gpu.functions:
            if function.kind in offer.functions and not function.published:
                broken("client-needs", offer.name, f"{function.name} is not published: {function.reason}")
            if function.kind in offer.functions and function.name not in driven:
                broken(clause, offer.name, kit.host.problems.get(offer.name) or f"{function.name} was not taken")
        for client in clients:
            _check_status(client, offer.name, clause)
            with calling(clause, offer.name, f"use of {client.function}"), watch.acting(client.function):
                use(client.inner)
    problems = kit.problems()
    if problems:
        broken(clause, offer.name, "; ".join(problems))


def _check_status(client: Watched, who: str, clause: str) -> None:
    began = time.monotonic()
    with calling("client-status", who, "status()"):
        status = client.status()
    took = time.monotonic() - began
    if not isinstance(status, ClientStatus):
        broken("client-status", who, f"a {type(status).__name__}")
    with calling("client-status", who, "JSON of its detail"):
        json.dumps(dict(status.detail), allow_nan=False)
    if not isinstance(status.text, str) or status.state not in _STATES:
        broken("client-status", who, f"state {status.state!r}, text {status.text!r}; states are {', '.join(_STATES)}")
    if took > _AT_ONCE:
        broken("client-status", who, f"it took {took:.2f} s")
    if status.state != "running":
        broken(clause, who, f"status() says {status.state} of {client.function}: {status.text}")


def _hit(watch: Watch, busy: Use, kit: HostKit, offer: ClientOffer) -> None:
    """Leave work under way before a fault."""
    for client in _clients(kit, offer.name):
        with calling("client-probe", offer.name, f"busy of {client.function}"), watch.acting(client.function):
            busy(client.inner)


def _check_faults(kit: HostKit, watch: Watch, offer: ClientOffer, use: Use, busy: Use) -> None:
    """Up the ladder: for each function a channel where there is one, the grant where there is one; then the GPU."""

    def fault(rung: str, make: Callable[[], None]) -> None:
        """One, and where on_fault stood still, a few more: a busy machine may do that once."""
        for _ in range(_TRIES):
            watch.stood_still = 0.0
            _hit(watch, busy, kit, offer)
            make()
            _after_fault(watch, "client-resume", f" ({rung})")
            _check_runs(kit, watch, offer, use, "client-resume")
            if watch.stood_still < _STILL:
                return
        seen = f"in each of {_TRIES} faults it stood still for {_STILL:g} s or more, now {watch.stood_still:.2f} s ({rung})"
        _waits(offer.name, seen)

    def stop_channel(function: Function) -> None:
        hardware = kit.gpu.hardware
        channels = [one for one in hardware.channels if one.grant.function == function.name and one.alive] if hardware else []
        if channels:
            kit.channel_fault(channels[0].channel, channels[0].engine)

    assert kit.gpu.hardware is not None  # _check_runs saw it
    for function in [one for one in kit.gpu.functions if one.owner == offer.name]:
        if kit.backend is not None and any(channel.grant.function == function.name for channel in kit.gpu.hardware.channels):
            fault(f"channel fault, {function.name}", partial(stop_channel, function))
        if watch.grants(function.name):
            fault(f"grant fault, {function.name}", partial(kit.grant_fault, offer.name, kind=function.kind))
    fault("GPU fault", kit.gpu_fault)


def _waits(who: str, seen: str) -> NoReturn:
    broken("client-on-fault", who, f"it waits: {seen}; what has to wait belongs into quiesce()")


def _after_fault(watch: Watch, clause: str, where: str = "") -> None:
    """What on_fault, quiesce and resume did, in the order in which the core needs them."""
    who, raised = watch.name, watch.raised
    if watch.sleepers:
        _waits(who, f"{watch.sleepers[0]}{where}")
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


def _check_removed(watch: Watch, clause: str) -> None:
    if "remove" in watch.raised:
        broken(clause, watch.name, f"remove raised {watch.raised['remove']}")
    if watch.kept and clause == "client-remove":
        broken(clause, watch.name, f"grants kept: {', '.join(watch.kept)}")


def _check_left(watch: Watch, before: Leftovers) -> None:
    left = before.find() + [f"published fence {fence.name}" for fence in published_fences() if fence not in watch.known]
    if left:
        broken("client-remove", watch.name, ", ".join(left))
