"""The contract checks of a firmware backend: its offer as it is, then a firmware started, used, killed, left behind and taken down.

Owns the device that it makes, a thread that stands for the core's receiver, and the saved states. The test's thread makes the calls. Needs
the lock validator. Asks nothing of a firmware but what `nvcore.api.firmware` and `nvcore.api.families` promise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, cast

from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.device import Device
from nvcore.api.errors import BootError, ContractError, FirmwareDead, NvcoreError
from nvcore.api.events import FirmwareEvent
from nvcore.api.families import ChannelFamily, ChannelSpec, DiagnosticsFamily, Family, InventoryFamily, MemoryFamily, Tenant
from nvcore.api.families.vgpu import VgpuFamily
from nvcore.api.firmware import BootReport, BootStage, FirmwareBackend, FirmwareSession, OpenContext, SavedState, UnloadReport
from nvcore.api.identity import ChipId
from nvcore.api.inventory import Inventory
from nvcore.api.marks import LOCKDEP
from nvcore.api.needs import NO_NEEDS, BootNeeds
from nvcore.api.offers import FirmwareOffer
from nvcore.gpu.boot import read_inventory
from nvcore.hw.chips import CHIPS, chip_row
from nvcore.locks import atomic, start_thread
from nvcore.testing.contract import Leftovers, broken, calling, compare, raised_by, untouched
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
_CAUSE: Final = "declared dead by the contract test"


class _Bench:
    """One device and what a core would hold of it. `stages`, `events`, `saved`: what the backend told."""

    def __init__(
        self, make: Callable[[], Device], chip: str, needs: BootNeeds, version: str | None, time_scale: float, clock: Clock
    ) -> None:
        self._make, self.device = make, make()
        self.needs, self.version, self.time_scale, self.clock = needs, version, time_scale, clock
        self.chip = ChipId(chip, chip_row(chip).family, "a1")
        self.stages: list[BootStage] = []
        self.events: list[FirmwareEvent] = []
        self.saved: SavedState | None = None
        self.raised: list[BaseException] = []
        self.wrong: list[str] = []  # answers of receive() that are no number
        self._turns = 0
        self._session: FirmwareSession | None = None
        self._stopping = False
        self._thread = start_thread("contract receiver", self._receive)

    def context(self, saved: SavedState | None = None) -> OpenContext:
        """For one start. Bus mastering is on, as the core has it."""
        self.stages = []
        if not self.device.gone:
            self.device.set_bus_master(True)
        return OpenContext(
            self.device, self.chip, self.needs, self.clock, self.events.append, self.stages.append, _nothing,
            self.version, saved, self._save, self.time_scale,
        )  # fmt: skip

    def _save(self, saved: SavedState) -> None:
        self.saved = saved

    def serve(self, session: FirmwareSession | None) -> None:
        """Have this session received from now on; returns after a whole turn."""
        self._session = session
        wanted, end = self._turns + 2, time.monotonic() + 5.0
        while self._turns < wanted and time.monotonic() < end:
            time.sleep(0.001)

    def _receive(self) -> None:
        while not self._stopping:
            session = self._session
            if session is not None:
                try:
                    with atomic():
                        taken: object = session.receive()
                    if not isinstance(taken, int):
                        self.wrong.append(repr(taken))
                except Exception as error:  # isolation boundary: worker
                    self.raised.append(error)
                    self._session = None
            self._turns += 1
            time.sleep(0.001)

    def reopen(self) -> None:
        """What the end of a process does to a device: host memory goes, the hardware stays as it is."""
        self.serve(None)
        self.device.close()
        self.device = self._make()

    def close(self) -> None:
        """End the receiver."""
        self._stopping = True
        self._thread.join(5.0)


def _nothing() -> None:
    return None


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
    bench, before = _Bench(device or (lambda: cast(Device, fake)), name, needs, version, time_scale, SYSTEM), Leftovers()
    gone: Callable[[Device], None] | None = _leave if device is None else leave
    try:
        _check_life(backend, bench, who, offer, in_name_only)
        if device is not None:
            before = Leftovers()  # a device may make a thread of its own when it is first used
        _check_left(bench, before, who)
        _check_dead(backend, bench, who)
        _check_leftover(backend, bench, who)
        if gone is not None:
            _check_gone(backend, bench, who, gone)
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


def _start(backend: FirmwareBackend, bench: _Bench, who: str, clause: str) -> FirmwareSession:
    with calling(clause, who, "open()"):
        session = backend.open(bench.context())
    compare(session, FirmwareSession, who, marks="backend-marks", signature="backend-signature")
    bench.serve(session)
    return session


@contextmanager
def _served(bench: _Bench, who: str) -> Iterator[None]:
    """A receiver that raised is the cause of what fails after it."""
    try:
        yield
    finally:
        if bench.raised:
            error = bench.raised.pop()
            broken("backend-receive", who, f"{type(error).__name__}: {error}")


def _check_life(backend: FirmwareBackend, bench: _Bench, who: str, offer: FirmwareOffer, in_name_only: Collection[str]) -> None:
    session = _start(backend, bench, who, "backend-boots")
    with _served(bench, who):
        _check_session(session, bench, who, offer)
        _check_families(session, who, in_name_only)
        _check_inventory(session, who)
        _check_objects(session, bench, who, in_name_only)
        if bench.wrong:
            broken("backend-receive", who, f"it gave {bench.wrong[0]}")
    _unload(session, bench, who)
    if session.dead is None:
        broken("backend-unload", who, "the session counts as alive afterwards")


def _check_session(session: FirmwareSession, bench: _Bench, who: str, offer: FirmwareOffer) -> None:
    report = session.report
    if not isinstance(report, BootReport) or report.cause is not None or session.dead is not None:
        broken("backend-boots", who, f"it opened with report {report!r}, dead {session.dead!r}")
    if not report.stages or tuple(report.stages) != tuple(bench.stages):
        told = [stage.name for stage in bench.stages]
        broken("backend-boots", who, f"stages told {told}, reported {[stage.name for stage in report.stages]}")
    if session.image.version not in offer.versions or session.image != report.image:
        broken("backend-boots", who, f"image {session.image.version}, the offer names {', '.join(offer.versions)}")
    if not isinstance(bench.saved, SavedState):
        broken("backend-saves", who, "nothing was saved")


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


def _check_objects(session: FirmwareSession, bench: _Bench, who: str, in_name_only: Collection[str]) -> None:
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


def _make_channel(channels: ChannelFamily, session: FirmwareSession, bench: _Bench, space: Any) -> int:
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
    wanted = {kind: empty.get(kind, 0) + count for kind, count in made.items()} if made else empty
    seen = {kind: now.get(kind, 0) for kind in wanted}
    if seen != wanted:
        broken("backend-objects", who, f"after {when} it counts {seen}, expected {wanted}")


def _unload(session: FirmwareSession, bench: _Bench, who: str, *, clean: bool = True) -> None:
    with calling("backend-unload", who, "unload()"):
        report = session.unload()
        bench.serve(None)
        again = session.unload()
    if not isinstance(report, UnloadReport) or report != again:
        broken("backend-unload", who, f"first {report!r}, then {again!r}")
    if clean and not report.clean:
        broken("backend-unload", who, f"not clean: {report.cause}")


def _check_dead(backend: FirmwareBackend, bench: _Bench, who: str) -> None:
    session = _start(backend, bench, who, "backend-again")
    with _served(bench, who), calling("backend-objects", who, "open_tenant()"):
        tenant = session.open_tenant("contract")
    inventory = cast(InventoryFamily, session.family("inventory"))
    session.declare_dead(_CAUSE)
    session.declare_dead("a later cause")
    if session.dead != _CAUSE:
        broken("backend-dead", who, f"dead is {session.dead!r}, the first cause was {_CAUSE!r}")
    calls: dict[str, Callable[[], object]] = {"open_tenant": lambda: session.open_tenant("late"), "inventory.read": inventory.read}
    family: Family | None = session.family("memory")
    if family is not None:
        calls["memory.create_space"] = lambda: cast(MemoryFamily, family).create_space(tenant)
    for what, call in calls.items():
        began = time.monotonic()
        error = raised_by(call)
        if error is None:
            broken("backend-dead", who, f"{what} was answered")
        if not isinstance(error, FirmwareDead) or _CAUSE not in str(error):
            broken("backend-dead", who, f"{what} raised {type(error).__name__}, where FirmwareDead with the first cause belongs: {error}")
        if time.monotonic() - began > _AT_ONCE:
            broken("backend-dead", who, f"{what} took {time.monotonic() - began:.1f} s to fail")
    with calling("backend-dead", who, "closing a tenant of a dead firmware"):
        tenant.close()
    _unload(session, bench, who)


def _check_leftover(backend: FirmwareBackend, bench: _Bench, who: str) -> None:
    _start(backend, bench, who, "backend-again")
    bench.reopen()
    saved = bench.saved
    _refused(backend, bench, who)
    with calling("backend-leftover", who, "recover()"):
        report = backend.recover(bench.context(saved))
    if not isinstance(report, UnloadReport) or not report.clean:
        broken("backend-leftover", who, f"recover() gave {report!r}")


def _refused(backend: FirmwareBackend, bench: _Bench, who: str) -> None:
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


def _check_gone(backend: FirmwareBackend, bench: _Bench, who: str, leave: Callable[[Device], None]) -> None:
    session = _start(backend, bench, who, "backend-again")
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


def _check_left(bench: _Bench, before: Leftovers, who: str) -> None:
    left = before.find()
    buffers = bench.device.buffers if isinstance(bench.device, FakeGpu) else ()
    left += [f"host memory {buffer.label}" for buffer in buffers]
    if left:
        broken("backend-leaves", who, ", ".join(left))
