"""A fake firmware: a backend and a session whose answers come through the receiver thread, with faults by name.

Owns the objects that "live in the firmware" of a fake GPU, and the calls that wait. It keeps the contract's edges: a dead session is asked
nothing more, `receive` completes calls and delivers events, `unload` works from anywhere. It follows no firmware's layout.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

from nvcore.api.clock import Clock
from nvcore.api.errors import BootError, ContractError, FirmwareDead, FirmwareRefused, WaitTimeout
from nvcore.api.events import FirmwareEvent, FirmwareHalted
from nvcore.api.families import ChannelSpec, Family
from nvcore.api.firmware import BootReport, BootStage, FirmwareImage, OpenContext, SavedState, UnloadReport
from nvcore.api.identity import ChipId
from nvcore.api.inventory import Engine, Inventory, MemoryRegion, Range, VgpuSupport
from nvcore.api.marks import may_sleep
from nvcore.api.offers import FirmwareOffer
from nvcore.locks import Lock
from nvcore.testing.fakes import FakeGpu

__all__ = ["FakeBackend", "FakeSession", "fake_firmware"]

_Answer = TypeVar("_Answer")
FIRMWARE_VECTOR = 155
CALL_LIMIT = 30.0


class _Pending:
    __slots__ = ("answer", "call", "done", "due", "error", "name")

    def __init__(self, name: str, call: Callable[[], object], due: float) -> None:
        self.name, self.call, self.due = name, call, due
        self.done = threading.Event()
        self.answer: object = None
        self.error: Exception | None = None


class FakeTenant:
    """A root for objects."""

    def __init__(self, session: FakeSession, label: str) -> None:
        self._session, self.label = session, label
        self._open = True

    @property
    def open(self) -> bool:
        """Whether it can be used."""
        return self._open and self._session.dead is None

    @may_sleep
    def close(self) -> None:
        """Free everything below, channels first."""
        if not self._open:
            return
        self._open = False
        if self._session.dead is None:
            self._session.call(f"close-tenant {self.label}", lambda: self._session.drop_tenant(self))


class FakeSpace:
    """An address space. `root` is the linked directory."""

    def __init__(self, tenant: FakeTenant) -> None:
        self.tenant = tenant
        self.root: int | None = None


class FakeChannel:
    """A channel."""

    def __init__(self, space: FakeSpace, spec: ChannelSpec, runlist: int) -> None:
        self.tenant, self.space, self.spec = space.tenant, space, spec
        self.channel, self.token = spec.channel, runlist << 16 | spec.channel
        self.enabled = False


class FakeSession:
    """A running fake firmware. `spaces`, `channels`, `tenants` are the device's own view; `calls` what was asked."""

    def __init__(self, gpu: FakeGpu, context: OpenContext, report: BootReport) -> None:
        self.gpu, self._context, self.report, self.image = gpu, context, report, report.image
        self._clock: Clock = context.clock
        self._dead: str | None = None
        self._lock = threading.Lock()
        self.rpc_lock = Lock("fake-rpc")  # a sender's: held from the question to the answer, never by the receiver
        self._pending: list[_Pending] = []
        self._events: deque[FirmwareEvent] = deque()
        self.tenants: list[FakeTenant] = []
        self.spaces: list[FakeSpace] = []
        self.channels: list[FakeChannel] = []
        self.calls: list[str] = []
        self._unloaded: UnloadReport | None = None
        own: tuple[Family, ...] = (_InventoryOf(self), _MemoryOf(self), _ChannelOf(self), _Empty("vgpu"), _Empty("display"))
        self._families = {family.name: family for family in own}
        gpu.on_halt = self.halt

    # what the core sees

    @property
    def dead(self) -> str | None:
        """The first cause of death."""
        return self._dead

    @property
    def families(self) -> Mapping[str, int]:
        """inventory, memory, channel; vgpu and display in name only."""
        return {name: family.version for name, family in self._families.items()}

    @may_sleep
    def family(self, name: str) -> Family | None:
        """One of them."""
        return self._families.get(name)

    @may_sleep
    def open_tenant(self, label: str) -> FakeTenant:
        """A root."""

        def make() -> FakeTenant:
            tenant = FakeTenant(self, label)
            self.tenants.append(tenant)
            return tenant

        return self.call("open-tenant", make)

    def receive(self) -> int:
        """Complete calls that are due, deliver events."""
        taken, now = 0, self._clock.now()
        while self._events:
            taken += 1
            self._context.deliver(self._events.popleft())
        with self._lock:
            due = [pending for pending in self._pending if pending.due <= now and self._dead is None]
            self._pending = [pending for pending in self._pending if pending not in due]
        for pending in due:
            taken += 1
            try:
                pending.answer = pending.call()
            except FirmwareRefused as error:
                pending.error = error
            pending.done.set()
        return taken

    @property
    def waiting(self) -> int:
        """Calls without an answer."""
        return len(self._pending)

    def declare_dead(self, cause: str) -> None:
        """Fail everything with the first cause."""
        with self._lock:
            if self._dead is not None:
                return
            self._dead = cause
            pending, self._pending = self._pending, []
        for item in pending:
            item.error = self._death()
            item.done.set()

    @may_sleep
    def unload(self) -> UnloadReport:
        """Take it down; a dead one without a call."""
        if self._unloaded is None:
            self.gpu.log.append("unload" if self._dead is None else "unload of a dead firmware")
            dirty = self.gpu.gone or self.gpu.faults.take("unload-dirty") is not None
            self.gpu.firmware_running = dirty
            self.tenants.clear()
            self.spaces.clear()
            self.channels.clear()
            self.declare_dead("unloaded")
            stage = BootStage("unload", 0.0, "failed" if dirty else "ok")
            self._unloaded = UnloadReport((stage,), not dirty, dirty, "left something behind" if dirty else None)
        return self._unloaded

    @may_sleep
    def objects(self) -> Mapping[str, int]:
        """Counted by kind."""
        return {"client": len(self.tenants), "space": len(self.spaces), "channel": len(self.channels)}

    # what a test does

    def emit(self, event: FirmwareEvent) -> None:
        """The firmware reports something by itself."""
        self._events.append(event)
        self.gpu.raise_vector(FIRMWARE_VECTOR)

    def halt(self, cause: str) -> None:
        """The firmware dies, and says so with its last breath."""
        self.gpu.log.append(f"halt: {cause}")
        self.emit(FirmwareHalted("firmware-halt", cause))

    # calls

    def _death(self) -> FirmwareDead:
        return FirmwareDead("the firmware is dead", seen=self._dead, remedy="wait for resume")

    @may_sleep
    def call(self, name: str, call: Callable[[], _Answer]) -> _Answer:
        """Ask the firmware: `call` runs when the answer is received. Raises FirmwareDead, FirmwareRefused, WaitTimeout."""
        with self.rpc_lock:
            return self._ask(name, call)

    def _ask(self, name: str, call: Callable[[], _Answer]) -> _Answer:
        if self._dead is not None:
            raise self._death()
        self.calls.append(name)
        kind = name.split()[0]
        if self.gpu.faults.take("rpc-refuse", kind) is not None:
            raise FirmwareRefused(f"{name} was refused", seen="fault rpc-refuse")
        if kind == "unset-pdb" and self.gpu.faults.take("gsp-halt@unset-pdb") is not None:
            self.halt("halted when a page directory was unlinked")
        delay = self.gpu.faults.take("rpc-delay", kind)
        due = self._clock.now() + (float(delay.split(",")[0]) if delay else 0.0)
        pending = _Pending(name, call, due)
        with self._lock:
            if self._dead is not None:
                raise self._death()
            self._pending.append(pending)
        self._context.wake()
        if not self._clock.wait(pending.done, CALL_LIMIT) and not pending.done.is_set():
            self.declare_dead(f"no answer to {name}")
            raise WaitTimeout(f"no answer to {name}", expected=f"within {CALL_LIMIT:g} s")
        if pending.error is not None:
            raise pending.error
        return pending.answer  # type: ignore[return-value]  # the answer of this very call

    def drop_tenant(self, tenant: FakeTenant) -> None:
        """Free what hangs below a root."""
        self.channels = [channel for channel in self.channels if channel.tenant is not tenant]
        self.spaces = [space for space in self.spaces if space.tenant is not tenant]
        self.tenants = [other for other in self.tenants if other is not tenant]


class _Empty:
    """A family without operations: functions that need it are published, and that is all."""

    def __init__(self, name: str) -> None:
        self.name, self.version = name, 1


class _InventoryOf:
    name, version = "inventory", 1

    def __init__(self, session: FakeSession) -> None:
        self._session = session

    @may_sleep
    def read(self) -> Inventory:
        gpu, needs = self._session.gpu, self._session._context.needs
        top = gpu.vram_size - (8 << 20)
        usable = top - (4 << 20 if gpu.faults.take("inventory-differs") is not None else 0)
        engines = (Engine("GRAPHICS0", "graphics", 0, 0, 32, 33), Engine("COPY0", "copy", 0, 1, 0, 1), Engine("COPY1", "copy", 1, 2, 2, 3))
        inventory = Inventory(
            name=f"fake {gpu.chip.name}",
            uuid=f"GPU-{gpu.identity.address}",
            memory_size=gpu.vram_size,
            regions=(
                MemoryRegion(Range(0, usable), True, "clients"),
                MemoryRegion(Range(usable, gpu.vram_size - usable), False, "firmware"),
            ),
            engines=engines,
            first_channel=1,
            channels=512,
            vmmu_segment=2 << 20,
            page_tables=gpu.chip.page_tables,
            bar1_size=256 << 20,
            firmware_vector=FIRMWARE_VECTOR,
            heads=4 if needs.display else 0,
            vgpu=VgpuSupport(needs.vgpu_host, 4 if needs.vgpu_host else 0, None if needs.vgpu_host else "not asked for"),
            firmware="fake 1.0",
            capabilities=frozenset({"fake"}),
        )
        return self._session.call("inventory", lambda: inventory)

    @may_sleep
    def bar1_directory(self) -> int:
        return self._session.gpu.vram_size - 0x1000


class _MemoryOf:
    name, version = "memory", 1

    def __init__(self, session: FakeSession) -> None:
        self._session = session

    @may_sleep
    def create_space(self, tenant: FakeTenant) -> FakeSpace:
        def make() -> FakeSpace:
            space = FakeSpace(tenant)
            self._session.spaces.append(space)
            return space

        return self._session.call("create-space", make)

    @may_sleep
    def set_page_directory(self, space: FakeSpace, address: int, *, entries: int, aperture: Literal["vram", "system"] = "vram") -> None:
        self._session.call("set-pdb", lambda: setattr(space, "root", address))

    @may_sleep
    def unset_page_directory(self, space: FakeSpace) -> None:
        self._session.call("unset-pdb", lambda: setattr(space, "root", None))

    @may_sleep
    def free_space(self, space: FakeSpace) -> None:
        session = self._session

        def free() -> None:
            if any(channel.space is space for channel in session.channels):
                raise FirmwareRefused("the space has channels")
            session.spaces = [other for other in session.spaces if other is not space]

        session.call("free-space", free)


class _ChannelOf:
    name, version = "channel", 1

    def __init__(self, session: FakeSession) -> None:
        self._session = session

    @may_sleep
    def fault_buffer_size(self) -> int:
        return 0x1000

    @may_sleep
    def create(self, space: FakeSpace, spec: ChannelSpec) -> FakeChannel:
        session = self._session
        runlist = {"GRAPHICS0": 0, "COPY0": 1, "COPY1": 2}[spec.engine]

        def make() -> FakeChannel:
            if any(other.token == runlist << 16 | spec.channel for other in session.channels):
                raise FirmwareRefused(f"channel {spec.channel} of runlist {runlist} exists")
            channel = FakeChannel(space, spec, runlist)
            session.channels.append(channel)
            return channel

        return session.call("create-channel", make)

    @may_sleep
    def create_engine_object(self, channel: FakeChannel) -> None:
        self._session.call("engine-object", lambda: None)

    @may_sleep
    def enable(self, channel: FakeChannel) -> None:
        self._session.call("enable", lambda: setattr(channel, "enabled", True))

    @may_sleep
    def disable(self, channel: FakeChannel) -> None:
        self._session.call("disable", lambda: setattr(channel, "enabled", False))

    @may_sleep
    def destroy(self, channel: FakeChannel) -> None:
        session = self._session
        session.call("destroy-channel", lambda: setattr(session, "channels", [other for other in session.channels if other is not channel]))


class FakeBackend:
    """Starts fake firmware on fakes. `sessions` are those opened, newest last."""

    name = "fake-firmware"

    def __init__(self, chips: Sequence[str] = ("TU102",)) -> None:
        self._chips = tuple(chips)
        self.sessions: list[FakeSession] = []
        self.contexts: list[OpenContext] = []

    def supports(self, chip: ChipId) -> Sequence[FirmwareImage]:
        """One image."""
        return [self._image(chip)] if chip.name in self._chips else []

    def _image(self, chip: ChipId) -> FirmwareImage:
        return FirmwareImage(chip.name, "1.0", "synthetic", "nowhere")

    @may_sleep
    def open(self, context: OpenContext) -> FakeSession:
        """Start it. Raises BootError for the fault boot-fails, with what was started taken down again, and where a firmware runs already
        (F01)."""
        device = context.device
        if not isinstance(device, FakeGpu):
            raise ContractError("fake firmware runs on fakes only", seen=type(device).__name__)
        self.contexts.append(context)
        image = self._image(context.chip)
        if device.firmware_running:
            raise self._failed(context, "a firmware runs already", None)
        if context.save is not None:
            context.save(SavedState(self.name, "1.0", {"address": device.identity.address}))
        cause = device.faults.take("boot-fails")
        if cause is not None:
            device.firmware_running = device.faults.take("unload-dirty") is not None
            clean = not device.firmware_running
            stage = BootStage("unload", 0.0, "ok" if clean else "failed")
            unload = UnloadReport((stage,), clean, not clean, None if clean else "left something behind")
            raise self._failed(context, cause or "fault boot-fails", unload)
        device.log.append("boot")
        device.firmware_running = True
        stage = BootStage("start", 0.0, "ok")
        context.progress(stage)
        session = FakeSession(device, context, BootReport(context.chip.name, image, (stage,)))
        self.sessions.append(session)
        return session

    def _failed(self, context: OpenContext, cause: str, unload: UnloadReport | None) -> BootError:
        stages = (BootStage("start", 0.0, "failed", cause), *(unload.stages if unload is not None else ()))
        report = BootReport(context.chip.name, self._image(context.chip), stages, cause, "NVC-2100", "retry", unload=unload)
        return BootError("the fake firmware did not start", report=report, seen=cause, remedy="retry")

    @may_sleep
    def recover(self, context: OpenContext) -> UnloadReport:
        """Take a left-over down by the saved unload."""
        device = context.device
        if not isinstance(device, FakeGpu) or context.saved is None:
            raise ContractError("there is nothing to recover from")
        device.log.append("saved unload")
        device.firmware_running = False
        return UnloadReport((BootStage("saved-unload", 0.0, "ok"),), True)


def fake_firmware(*chips: str, name: str = "fake-firmware") -> tuple[FirmwareOffer, FakeBackend]:
    """An offer for these chips (TU102 without) and the backend that it opens."""
    backend = FakeBackend(chips or ("TU102",))
    return FirmwareOffer(name, "a firmware of a few calls", chips or ("TU102",), ("1.0",), lambda: backend, plugin=name), backend
