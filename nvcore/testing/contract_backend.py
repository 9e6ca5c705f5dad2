"""The contract checks of a firmware backend: its offer as it is, then a firmware started, used, killed, left behind and taken down.

Owns the fake device that it makes where none is given; the bench (`contract_bench`) owns the rest. The test's thread makes the calls. Needs
the lock validator. Asks nothing of a firmware but what `nvcore.api.firmware` and `nvcore.api.families` promise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import ENOSPC
from functools import partial
from typing import Any, Final, cast

from nvcore.api.clock import SYSTEM
from nvcore.api.device import Device
from nvcore.api.errors import BootError, ContractError, DeviceGone, FirmwareDead, NvcoreError
from nvcore.api.families import ChannelFamily, ChannelSpec, DiagnosticsFamily, InventoryFamily, MemoryFamily, Tenant
from nvcore.api.families.vgpu import VgpuFamily
from nvcore.api.firmware import BootReport, FirmwareBackend, FirmwareSession, SavedState, UnloadReport
from nvcore.api.identity import ChipId
from nvcore.api.inventory import Inventory
from nvcore.api.marks import LOCKDEP
from nvcore.api.needs import NO_NEEDS, BootNeeds
from nvcore.api.offers import FirmwareOffer
from nvcore.gpu.boot import read_inventory
from nvcore.hw.chips import CHIPS
from nvcore.testing.contract import Leftovers, broken, calling, compare, raised_by, untouched
from nvcore.testing.contract_bench import Bench, LeftWaiting
from nvcore.testing.fakes import FakeGpu

__all__ = ["check_backend"]

_FAMILIES: Final[dict[str, type]] = {
    "inventory": InventoryFamily,
    "memory": MemoryFamily,
    "channel": ChannelFamily,
    "vgpu": VgpuFamily,
    "diagnostics": DiagnosticsFamily,
}
_AT_ONCE: Final = 0.5
_FOR_A_CALL: Final = 5.0
_TO_ANSWER: Final = 0.1  # for a sender's thread that answers itself: it counts as waiting meanwhile
_CAUSE: Final = "declared dead by the contract test"


def check_backend(
    offer: FirmwareOffer,
    *,
    chip: str | None = None,
    device: Callable[[], Device] | None = None,
    leave: Callable[[Device], None] | None = None,
    needs: BootNeeds = NO_NEEDS,
    version: str | None = None,
    in_name_only: Collection[str] = (),
    time_scale: float = 1.0,
) -> None:
    """Hold a firmware backend against its contract; raises BrokenContract naming the first clause that it breaks.

    chip: the chip to start, by default the first that the offer claims. device: opens one device with that chip, the same hardware each
    time; by default a fake. leave: makes such a device leave its bus; without it a device of your own is not checked for that. version,
    needs, time_scale: as in OpenContext. in_name_only: families that have a name and no operations. Takes about a second on a fake.
    Source: `nvcore.api.firmware`, DESIGN section 4.
    """
    if not LOCKDEP:
        raise ContractError("contract checks need the lock validator", remedy="run them with pytest, or set NVCORE_LOCKDEP=1")
    from nvcore.testing.lockdep.rules import forget, violations

    who = _check_offer(offer)
    name = chip or offer.chips[0]
    known = list(violations())
    backend = untouched("backend-open", who, "open()", offer.open)
    _check_backend(backend, who, offer, name)
    fake = FakeGpu("fake:contract", chip=name) if device is None else None
    bench, before = Bench(device or (lambda: cast(Device, fake)), name, needs, version, time_scale, SYSTEM), Leftovers()
    gone: Callable[[Device], None] | None = _leave if device is None else leave
    try:
        _check_life(backend, bench, who, offer, in_name_only)
        if device is not None:
            before = Leftovers()  # a device may make a thread of its own when it is first used
        _check_left(bench, before, who)
        _check_dead(backend, bench, who)
        _check_unsaved(backend, bench, who)
        last = _check_leftover(backend, bench, who)
        if gone is not None:
            _check_gone(backend, last, bench, who, gone)
        else:
            _unload(last, bench, who)
        bench.judge(who)
        _check_left(bench, before, who)
    finally:
        bench.close()
        if fake is not None:
            fake.scrap()
        else:
            bench.device.close()
        new = [error for error in violations() if error not in known]
        for error in new:
            forget(error)
    if new:
        broken("backend-locks", who, new[0])


def _leave(device: Device) -> None:
    cast(FakeGpu, device).leave()


def _check_offer(offer: FirmwareOffer) -> str:
    if not isinstance(offer, FirmwareOffer):
        broken("backend-offer", repr(offer), f"a {type(offer).__name__}")
    who = offer.name or "a backend without a name"
    if not offer.name or not offer.summary or not offer.versions or not all(isinstance(label, str) for label in offer.versions):
        broken("backend-offer", who, f"name {offer.name!r}, summary {offer.summary!r}, versions {tuple(offer.versions)!r}")
    unknown = [chip for chip in offer.chips if chip not in {row.name for row in CHIPS}]
    if not offer.chips or unknown:
        broken("backend-offer", who, f"chips {tuple(offer.chips)}, unknown: {', '.join(unknown) or 'none'}")
    return who


def _check_backend(backend: FirmwareBackend, who: str, offer: FirmwareOffer, chip: str) -> None:
    if not getattr(backend, "name", None):
        broken("backend-open", who, f"{type(backend).__name__} without a name")
    compare(backend, FirmwareBackend, who, marks="backend-marks", signature="backend-signature")
    for row in CHIPS:
        chip_id = ChipId(row.name, row.family, "a1")
        images = untouched("backend-supports", who, f"supports({row.name})", partial(backend.supports, chip_id))
        if images and row.name not in offer.chips:
            broken("backend-supports", who, f"{len(images)} images for {row.name}, which the offer does not claim")
        wrong = [image.chip for image in images if image.chip != row.name]
        if wrong:
            broken("backend-supports", who, f"asked for {row.name}, gave an image for {wrong[0]}")
        if row.name == chip and not any(image.problem is None for image in images):
            problems = "; ".join(str(image.problem) for image in images)
            broken("backend-supports", who, f"no usable image for {chip}: {problems or 'none at all'}")


def _start(backend: FirmwareBackend, bench: Bench, who: str, clause: str, what: str = "open()") -> FirmwareSession:
    with calling(clause, who, what):
        session = backend.open(bench.context())
    compare(session, FirmwareSession, who, marks="backend-marks", signature="backend-signature")
    seen = session.dead, session.families, session.waiting
    if not isinstance(seen[0], str | None) or not isinstance(seen[1], Mapping) or not isinstance(seen[2], int):
        broken("backend-signature", who, f"dead {seen[0]!r}, families {seen[1]!r}, waiting {seen[2]!r}")
    if not isinstance(bench.saved, SavedState):
        broken("backend-saves", who, f"{what} saved {bench.saved or 'nothing'}")
    bench.serve(session)
    return session


@contextmanager
def _served(bench: Bench, who: str) -> Iterator[None]:
    """A receiver that raised is the cause of what fails after it."""
    try:
        yield
    finally:
        bench.judge(who)


def _check_life(backend: FirmwareBackend, bench: Bench, who: str, offer: FirmwareOffer, in_name_only: Collection[str]) -> None:
    session = _start(backend, bench, who, "backend-boots")
    with _served(bench, who):
        _check_session(session, bench, who, offer)
        _check_families(session, who, in_name_only)
        _check_inventory(session, who)
        _check_objects(session, bench, who, in_name_only)
    _unload(session, bench, who)
    if session.dead is None:
        broken("backend-unload", who, "the session counts as alive afterwards")


def _check_session(session: FirmwareSession, bench: Bench, who: str, offer: FirmwareOffer) -> None:
    report = session.report
    if not isinstance(report, BootReport) or report.cause is not None or session.dead is not None:
        broken("backend-boots", who, f"it opened with report {report!r}, dead {session.dead!r}")
    if not report.stages or tuple(report.stages) != tuple(bench.stages):
        told = [stage.name for stage in bench.stages]
        broken("backend-boots", who, f"stages told {told}, reported {[stage.name for stage in report.stages]}")
    if session.image.version not in offer.versions or session.image != report.image:
        broken("backend-boots", who, f"image {session.image.version}, the offer names {', '.join(offer.versions)}")
    if bench.version not in (None, session.image.version):
        broken("backend-boots", who, f"it started version {session.image.version}, asked for was {bench.version}")


def _check_families(session: FirmwareSession, who: str, in_name_only: Collection[str]) -> None:
    if "inventory" not in session.families:
        broken("backend-families", who, f"families {', '.join(session.families) or 'none'}")
    for name, version in session.families.items():
        family = session.family(name)
        if family is None or family.name != name or family.version != version:
            broken("backend-families", who, f"{name} version {version} is {family and (family.name, family.version)}")
        if name in _FAMILIES and name not in in_name_only:
            compare(family, _FAMILIES[name], who, marks="backend-marks", signature="backend-signature")
    if session.family("no-such-family") is not None:
        broken("backend-families", who, "an object for a family that does not exist")


def _check_inventory(session: FirmwareSession, who: str) -> None:
    with calling("backend-inventory", who, "reading the inventory"):
        first = read_inventory(session)
        second = cast(InventoryFamily, session.family("inventory")).read()
    if not isinstance(first, Inventory) or first != second:
        broken("backend-inventory", who, f"first {first!r}, then {second!r}")
    if first.usable_memory <= 0:
        broken("backend-inventory", who, "no memory for clients")


def _check_objects(session: FirmwareSession, bench: Bench, who: str, in_name_only: Collection[str]) -> None:
    with calling("backend-objects", who, "making objects"):
        empty = dict(session.objects())
        tenant = session.open_tenant("contract")
        compare(tenant, Tenant, who, marks="backend-marks", signature="backend-signature")
        made = {"client": 1}
        family = session.family("memory")
        if family is not None and "memory" not in in_name_only:
            memory = cast(MemoryFamily, family)
            space = memory.create_space(tenant)
            made["space"] = 1
            channels = session.family("channel")
            if channels is not None and "channel" not in in_name_only:
                made["channel"] = _make_channel(cast(ChannelFamily, channels), session, bench, space)
        _compare_counts(session, empty, made, who, "objects were made")
        if not tenant.open or tenant.label != "contract":
            broken("backend-objects", who, f"a new tenant is called {tenant.label!r} and open is {tenant.open}")
        tenant.close()
        _compare_counts(session, empty, {}, who, "their tenant was closed")
        tenant.close()
    if tenant.open:
        broken("backend-objects", who, "a closed tenant counts as open")


def _make_channel(channels: ChannelFamily, session: FirmwareSession, bench: Bench, space: Any) -> int:
    inventory = cast(InventoryFamily, session.family("inventory")).read()
    engines = [engine for engine in inventory.engines if engine.kind == "copy"]
    if not engines:
        return 0
    base = next(region.range for region in inventory.regions if region.usable)
    size = channels.fault_buffer_size()
    buffer = bench.device.allocate_dma(size, label="contract fault buffer") if size else None
    try:
        address = buffer.bus_address() if buffer else 0
        spec = ChannelSpec(engines[0].name, inventory.first_channel, 0x100000, 64, base.start, base.start + 0x1000, address, size)
        channel = channels.create(space, spec)
        channels.create_engine_object(channel)
        channels.enable(channel)
        channels.disable(channel)
    finally:
        if buffer is not None:
            buffer.close()
    return 1


def _compare_counts(session: FirmwareSession, empty: dict[str, int], made: dict[str, int], who: str, when: str) -> None:
    now = session.objects()
    kinds = (
        made or empty.keys() | now.keys()
    )  # a kind of which there are none may be left out; what a tenant brings along is its own affair
    wanted = {kind: empty.get(kind, 0) + made.get(kind, 0) for kind in kinds}
    seen = {kind: now.get(kind, 0) for kind in kinds}
    if seen != wanted:
        broken("backend-objects", who, f"after {when} it counts {seen}, expected {wanted}")


def _unload(session: FirmwareSession, bench: Bench, who: str, *, clean: bool = True) -> None:
    if session.dead is not None:  # a host stopped its DMA with that, and lets go of it again
        with suppress(DeviceGone):
            bench.device.set_bus_master(True)
    with calling("backend-unload", who, "unload()"):
        report = session.unload()
        bench.serve(None)
        again = session.unload()
    if not isinstance(report, UnloadReport) or report != again:
        broken("backend-unload", who, f"first {report!r}, then {again!r}")
    if clean and not report.clean:
        broken("backend-unload", who, f"not clean: {report.cause}")


def _check_dead(backend: FirmwareBackend, bench: Bench, who: str) -> None:
    session = _start(backend, bench, who, "backend-again")
    with _served(bench, who), calling("backend-objects", who, "open_tenant()"):
        tenant = session.open_tenant("contract")
    waiting = _leave_waiting(session, bench, who)
    session.declare_dead(_CAUSE)
    session.declare_dead("a later cause")
    bench.device.set_bus_master(False)
    if session.dead != _CAUSE:
        broken("backend-dead", who, f"dead is {session.dead!r}, the first cause was {_CAUSE!r}")
    if waiting is not None:
        if not waiting.ended(_AT_ONCE):
            broken("backend-dead", who, f"a call that waited for its answer still waits {_AT_ONCE} s after declare_dead()")
        _check_death(waiting.error, who, "a call that waited for its answer")
    bench.serve(session)  # the core, too, goes on until the unload
    with _served(bench, who):
        _check_late_calls(session, tenant, who)
        with calling("backend-dead", who, "closing a tenant of a dead firmware"):
            tenant.close()
        _unload(session, bench, who)


def _leave_waiting(session: FirmwareSession, bench: Bench, who: str) -> LeftWaiting | None:
    """A call whose answer is not received, once it waits; None of a firmware that answers at once, be it in the sender's thread."""
    bench.serve(None)
    call = LeftWaiting(lambda: session.open_tenant("waiting"))
    end = time.monotonic() + _FOR_A_CALL
    while not call.ended() and not session.waiting:
        if time.monotonic() > end:
            broken(
                "backend-receive", who, f"a call has no answer after {_FOR_A_CALL:g} s and `waiting` is 0: no receiver would poll for it"
            )
        time.sleep(0.001)
    if not call.ended(_TO_ANSWER):
        return call
    with calling("backend-objects", who, "open_tenant()"):
        if call.error is not None:
            raise call.error
    return None


def _check_late_calls(session: FirmwareSession, tenant: Tenant, who: str) -> None:
    inventory, family = cast(InventoryFamily, session.family("inventory")), session.family("memory")
    calls: dict[str, Callable[[], object]] = {"open_tenant": lambda: session.open_tenant("late"), "inventory.read": inventory.read}
    if family is not None:
        calls["memory.create_space"] = lambda: cast(MemoryFamily, family).create_space(tenant)
    for what, call in calls.items():
        began = time.monotonic()
        _check_death(raised_by(call), who, what)
        if time.monotonic() - began > _AT_ONCE:
            broken("backend-dead", who, f"{what} took {time.monotonic() - began:.1f} s to fail")


def _check_death(error: BaseException | None, who: str, what: str) -> None:
    if error is None:
        broken("backend-dead", who, f"{what} was answered")
    if not isinstance(error, FirmwareDead) or _CAUSE not in str(error):
        broken("backend-dead", who, f"{what} raised {type(error).__name__}, where FirmwareDead with the first cause belongs: {error}")


def _check_unsaved(backend: FirmwareBackend, bench: Bench, who: str) -> None:
    """A start whose state cannot be saved: it fails. The start after it shows that nothing runs."""
    asked: list[SavedState] = []

    def save(saved: SavedState) -> None:
        asked.append(saved)
        raise OSError(ENOSPC, "no room for the saved state, says the contract test")

    opened: list[FirmwareSession] = []
    error = raised_by(lambda: opened.append(backend.open(bench.context(save=save))))
    if error is None:
        with calling("backend-saves", who, "unload()"):
            opened[0].unload()
        broken("backend-saves", who, "the firmware was started although save() raised OSError" if asked else "nothing was saved")
    if not asked:
        broken("backend-again", who, f"open() raised {type(error).__name__}: {error}")


def _check_leftover(backend: FirmwareBackend, bench: Bench, who: str) -> FirmwareSession:
    """A firmware whose process ended; returns one that was started after it was taken down."""
    _start(backend, bench, who, "backend-saves", "open(), after one whose save() raised,")
    bench.reopen()
    saved = bench.saved
    _refused(backend, bench, who)
    with calling("backend-leftover", who, "recover()"):
        report = backend.recover(bench.context(saved))
    if not isinstance(report, UnloadReport) or not report.clean:
        broken("backend-leftover", who, f"recover() gave {report!r}")
    return _start(backend, bench, who, "backend-leftover", "open(), after recover() said that the device is clean,")


def _refused(backend: FirmwareBackend, bench: Bench, who: str) -> None:
    """A second start, on a firmware that runs."""
    opened: list[FirmwareSession] = []
    error = raised_by(lambda: opened.append(backend.open(bench.context())))
    if error is None:
        with calling("backend-leftover", who, "unload of the second session"):
            opened[0].unload()
        broken("backend-leftover", who, "a second firmware was started over the first")
    if not isinstance(error, BootError):
        broken("backend-refuses", who, f"{type(error).__name__}: {error}")
    if not isinstance(error.report, BootReport) or not error.report.cause:
        broken("backend-refuses", who, f"BootError with report {error.report!r}")


def _check_gone(backend: FirmwareBackend, session: FirmwareSession, bench: Bench, who: str, leave: Callable[[Device], None]) -> None:
    bench.serve(None)
    leave(bench.device)
    with calling("backend-gone", who, "unload() of a device that left"):
        session.unload()
    calls: dict[str, Callable[[], object]] = {
        "open()": lambda: backend.open(bench.context()),
        "open_tenant()": lambda: session.open_tenant("late"),
    }
    for what, call in calls.items():
        error = raised_by(call)
        if error is None:
            broken("backend-gone", who, f"{what} of a device that left worked")
        if not isinstance(error, NvcoreError):
            broken("backend-gone", who, f"{what} raised {type(error).__name__}: {error}")


def _check_left(bench: Bench, before: Leftovers, who: str) -> None:
    left = before.find()
    buffers = bench.device.buffers if isinstance(bench.device, FakeGpu) else ()
    left += [f"host memory {buffer.label}" for buffer in buffers]
    if left:
        broken("backend-leaves", who, ", ".join(left))
