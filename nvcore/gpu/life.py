"""One GPU: its state, its threads, and the way from a source to running and back.

Owns the state machine (found, identified, unsupported, booting, running, failed, resetting, lost, unloading, released) and the order in
which the parts start and stop. All transitions run on the life-cycle thread; the fault ladder calls back here for a restart or a loss. Two
GPUs share nothing but the event log and the offers: one failing touches no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import attrs

from nvcore.api.client import Function
from nvcore.api.device import Device, VirtualFunction
from nvcore.api.errors import BootError, ConflictError, DeviceGone, NotSupportedError, NvcoreError
from nvcore.api.events import EventKind
from nvcore.api.firmware import BootReport, BootStage, FirmwareBackend, FirmwareSession, OpenContext, UnloadReport
from nvcore.api.identity import GpuIdentity
from nvcore.api.marks import may_sleep
from nvcore.api.needs import NO_NEEDS
from nvcore.gpu import boot
from nvcore.gpu.clients import Attachment, attach_clients
from nvcore.gpu.faults import Ladder
from nvcore.gpu.hardware import Hardware
from nvcore.gpu.interrupts import InterruptTree
from nvcore.gpu.invalidate import Invalidator
from nvcore.gpu.receiver import Receiver
from nvcore.gpu.threads import Worker, describe_error, fails
from nvcore.hostlib.saved import SavedStates
from nvcore.hw.chips import chip_row, identify

if TYPE_CHECKING:
    from nvcore.host import Host

StateName = Literal["found", "identified", "unsupported", "booting", "running", "failed", "resetting", "lost", "unloading", "released"]


class GpuState:
    """A state with its reason. cause: the first one, in words; since: monotonic seconds; wall: seconds since the epoch."""

    def __init__(self, name: StateName, since: float, cause: str | None = None, code: str | None = None, remedy: str | None = None) -> None:
        self.name, self.since, self.wall = name, since, time.time()
        self.cause, self.code, self.remedy = cause, code, remedy


class Gpu:
    """One GPU of a host, named by its `source` until its bus address is known."""

    def __init__(self, source: str, host: Host) -> None:
        self.source, self.name, self._host = source, source, host
        self.clock, self.events, self.settings = host.clock, host.events, host.settings
        self.state = GpuState("found", self.clock.now())
        self.identity: GpuIdentity | None = None
        self.device: Device | None = None
        self.backend: FirmwareBackend | None = None
        self.hardware: Hardware | None = None
        self._session: FirmwareSession | None = None  # from its opening to its unload, whether or not it came to run
        self.needs = NO_NEEDS
        self.functions: tuple[Function, ...] = ()
        self.unasked: list[Function] = []  # of which no client was asked yet, or the GPU died meanwhile
        self.left_out: dict[str, str] = {}  # by function: whose client failed on it, and why; replaced as a whole
        self.virtual_functions: Sequence[VirtualFunction] = ()
        self.attachments: list[Attachment] = []
        self.conflicts: list[str] = []
        self.boot_report: BootReport | None = None
        self.unload_report: UnloadReport | None = None
        self.stages: list[BootStage] = []
        self.ladder = Ladder(self)
        self.generations = count(1)  # of the GPU with each firmware start, of a grant with each reset: none is used twice
        self.generation = 0
        self._saved = SavedStates(host.state_dir / "gpus")
        self.life = Worker(f"life {source}", self.clock, self._job_failed)
        self.calls = Worker(f"calls {source}", self.clock)
        self.receiver = Receiver(f"receive {source}", self.ladder.meet_gpu, self._job_failed)

    # state

    def publish(self, kind: EventKind, text: str, **about: Any) -> None:
        """Write a line about this GPU into the event log; about: as in `EventLog.publish`."""
        self.events.publish(kind, text, gpu=self.name, **about)

    def set_state(self, name: StateName, cause: str | None = None, code: str | None = None, remedy: str | None = None) -> None:
        """Enter a state and say so in the event log."""
        self.state = GpuState(name, self.clock.now(), cause, code, remedy)
        self.publish("state", f"{name}: {cause}" if cause else name, code=code, action=remedy)

    def _job_failed(self, what: str, error: BaseException) -> None:
        self.publish("state", f"{what} failed: {describe_error(error)[0]}", code="NVC-1000")

    @may_sleep
    def run(self, call: Callable[[], object], what: str, timeout: float) -> object:
        """Run `call` where session calls are legal: on the life-cycle thread, or at once when this already is one of its callbacks."""
        if self.life.here() or self.calls.here():
            return call()
        return self.life.call(call, what, timeout)

    # up

    def bring_up(self, reset: bool = False) -> None:
        """From wherever it stands to running, or to a state that says why not. reset: of the device, before anything. Life-cycle thread;
        raises nothing: buses, backends and the clients' needs are plugins, and one that breaks its contract fails this GPU, not the
        host."""
        self.ladder.tried.clear()  # whatever comes is a new incident
        self.conflicts = []
        try:
            device, identity = self._open_device()
            if reset:
                device.reset()
            offer = boot.choose_backend(identity.chip, self._host.backends, self.settings.gpu(self.source).backend)
            self.backend = self._host.open_backend(offer)
            self.needs = boot.needs_of(identity, self._host.clients)
            self.set_state("booting")
            hardware = self._start(device, identity)
            inventory = hardware.inventory
            self.identity = attrs.evolve(identity, uuid=inventory.uuid)
            self.functions = boot.functions_of(self.identity, inventory, hardware.session.families, self.needs, self._host.clients)
            self.unasked, self.left_out = list(self.functions), {}
            self.publish("boot", f"{inventory.name} booted on {inventory.firmware}")
            attach_clients(self, self._host)
        except BaseException as error:  # isolation boundary: worker
            if isinstance(error, ConflictError):
                self.conflicts = [error.what]
            cause, code, remedy = describe_error(error)
            usual = f"see the boot report (nvcore gpus show {self.name}), then: nvcore gpus retry {self.name}"
            state: StateName = "unsupported" if isinstance(error, NotSupportedError) else "failed"
            self._fall(state, "the boot failed", cause, code, remedy or usual)
            return
        if hardware.gate.open:
            self.set_state("running")  # else a fault came first, and the ladder's job waits for this thread

    def _open_device(self) -> tuple[Device, GpuIdentity]:
        if self.device is None:
            self.device = self._host.open_device(self.source)
        device = self.device
        if self.identity is None:
            chip = identify(device.bars[0])
            self.name = device.identity.address
            self.identity = GpuIdentity(self.name, self.source, chip, device.identity.device)
            self.set_state("identified")
        return device, self.identity

    def _start(self, device: Device, identity: GpuIdentity) -> Hardware:
        """Start the firmware, for the first time or again; then what is there goes on with it, as `Hardware.admit` says."""
        session, known = self._open_session(device, identity), self.hardware
        tree = known.tree if known else InterruptTree(device.bars[0], chip_row(identity.chip.name).interrupt_leaves)
        invalidator = known.invalidator if known else Invalidator(
            device.bars[0], self.clock, self.ladder.meet_gpu, self.settings.invalidate, self.receiver.wake
        )  # fmt: skip
        self.receiver.attach(device, session, tree, invalidator)
        inventory = boot.read_inventory(session)
        functions = min(self.needs.virtual_functions, inventory.vgpu.functions) if inventory.vgpu.host else 0
        self.virtual_functions = device.enable_functions(functions) if functions else ()
        hardware = known or Hardware(device, self.publish, inventory, functions, tree, invalidator)
        self.generation = next(self.generations)
        hardware.admit(session, inventory, self.generation)
        self.hardware = hardware
        return hardware

    def _open_session(self, device: Device, identity: GpuIdentity) -> FirmwareSession:
        """Open the firmware; what an earlier boot of ours left running is taken down first, by its own saved unload."""
        assert self.backend is not None
        settings, store = self.settings.gpu(self.source), self._saved
        self.boot_report, self.unload_report, self.stages = None, None, []
        device.set_bus_master(True)
        context = OpenContext(
            device, identity.chip, self.needs, self.clock, deliver=self.ladder.deliver, progress=self.stages.append,
            wake=self.receiver.wake, version=settings.version, saved=store.load(self.name), save=partial(store.store, self.name),
            time_scale=settings.time_scale,
        )  # fmt: skip
        if said := boot.take_down_leftover(self.backend, context, device.reset):
            store.drop(self.name)
            self.publish("boot", said)
            device.set_bus_master(True)
        try:
            session = self._session = self.backend.open(context)
        except BootError as error:
            if isinstance(error.report, BootReport):
                self.boot_report = error.report
                if error.report.unload is not None:
                    self._taken_down(error.report.unload)
            raise
        self.boot_report = session.report
        return session

    # what the ladder asks for

    def restart_firmware(self) -> None:
        """Take the dead firmware down and start it again; clients that it died before, or under, are asked now. Raises NvcoreError."""
        assert self.device is not None and self.identity is not None and self._session is not None
        self._unload(self.device, self._session)
        self.device.reset()  # also after a clean unload: engines or the MMU may hang, and quarantine ends with a reset only
        self._start(self.device, self.identity)
        attach_clients(self, self._host)

    def lose(self, cause: str) -> None:
        """The last rung: clients leave, nothing more is asked of the hardware, until an operator retries."""
        self._fall("lost", cause, cause, "NVC-5002", f"nvcore gpus retry {self.name}; if it fails again, power-cycle", reset=False)

    def detach(self, attachment: Attachment, abandoned: str | None = None) -> None:
        """A client leaves; what it leaves behind, the core takes down, and its function is free again. abandoned: why it is not asked to:
        it missed its deadline, or failed. Life-cycle thread."""
        if attachment not in self.attachments:
            return
        cause = attachment.remove()
        self._revoke_grants(abandoned or cause or "its client left", attachment)
        self.attachments.remove(attachment)
        self.own(attachment.function, None)
        if abandoned is not None:
            attachment.publish(f"{attachment.name} abandoned: {abandoned}", action="revoked")
            self.leave_out(attachment.name, attachment.function, abandoned)
        else:
            attachment.publish(f"{attachment.name} left, not in order: {cause}" if cause else f"{attachment.name} left")

    def leave_out(self, client: str, function: Function, why: str) -> None:
        """Enter that a client, which could have had a function, does not drive it."""
        self._host.blame(client, why)
        self.left_out = {**self.left_out, function.name: f"{client}: {why}"}

    def detach_all_of(self, plugin: str) -> None:
        """All clients of a plugin leave. Life-cycle thread."""
        for attachment in [one for one in self.attachments if one.plugin == plugin]:
            self.detach(attachment)

    # down

    def _revoke_grants(self, cause: str, attachment: Attachment | None = None) -> None:
        """Those of one client, or of all."""
        for grant in reversed(self.hardware.top_grants if self.hardware is not None else []):
            if attachment is None or grant.function == attachment.function.name:
                grant.revoke(cause)

    def own(self, function: Function, owner: str | None) -> None:
        """Enter the owner of a function."""
        self.functions = tuple(attrs.evolve(one, owner=owner) if one.name == function.name else one for one in self.functions)

    def _unload(self, device: Device, session: FirmwareSession) -> UnloadReport:
        """Unload; a firmware that takes its own protection down reads host memory for it, so the bus master that a fault stopped is let go
        again. No channel's memory is free by now, whatever still runs."""
        with suppress(DeviceGone):
            device.set_bus_master(True)
        try:
            report = session.unload()
        except BaseException as error:  # isolation boundary: worker
            report = UnloadReport((), clean=False, needs_reset=True, cause=describe_error(error)[0])
        self._session = None
        self.receiver.detach()
        self._taken_down(report)
        return report

    def _taken_down(self, report: UnloadReport) -> None:
        """A firmware of this GPU was unloaded: what the next process would need for that is kept only where something is left."""
        self.unload_report = report
        if report.clean:
            self._saved.drop(self.name)

    def _fall(self, state: StateName, why: str, cause: str, code: str | None, remedy: str, *, reset: bool = True) -> None:
        """Down, to rest in a state that says why; lost when the device is gone. why: for those who lose something by it."""
        self._take_firmware_down(why, reset=reset)
        if self.device is not None and self.device.gone:
            with suppress(NvcoreError):
                self._close_device()
            state, remedy = "lost", f"put the device back, then: nvcore gpus retry {self.name}"
        self.set_state(state, cause, code, remedy)

    def _close_device(self) -> None:
        device, self.device, self.identity = self.device, None, None
        if device is not None:
            device.close()

    def take_down(self) -> None:
        """Back from wherever it stands, to `released`: clients leave in reverse order, the firmware is unloaded, the device released."""
        self.set_state("unloading")
        problems = self._take_firmware_down("the GPU is unloaded")
        fails(problems, "device", self._close_device)
        self.set_state("released", "; ".join(problems) or None)

    def _take_firmware_down(self, cause: str, *, reset: bool = True) -> list[str]:
        """Clients leave in reverse order, the firmware is unloaded, the books close, DMA stops; the problems met. reset: where the unload
        asks for it."""
        problems: list[str] = []
        for attachment in reversed(tuple(self.attachments)):
            self.detach(attachment)
        self._revoke_grants(cause)
        hardware, device, session = self.hardware, self.device, self._session
        if device is not None and self.virtual_functions and not device.gone:  # none outlives its firmware
            fails(problems, "virtual functions", device.enable_functions, 0)
        if hardware is not None:
            fails(problems, "interrupts", hardware.tree.mask_all)
            hardware.gate.close(cause)
            hardware.invalidator.fail_all(cause)
        if device is not None and session is not None:
            report = self._unload(device, session)
            if reset and report.needs_reset and not device.gone:
                fails(problems, "reset", device.reset)
            if not report.clean:
                problems.append(f"the unload was not clean: {report.cause}")
            self.publish("unload", "firmware unloaded" if report.clean else problems[-1])
        if device is not None:
            with suppress(NvcoreError):
                device.set_bus_master(False)
        for buffer in hardware.limbo if hardware is not None else ():
            fails(problems, "DMA buffer", buffer.close)
        self.hardware, self.functions, self.virtual_functions = None, (), ()
        return problems

    def retry(self) -> None:
        """Operator: try again from a state that is not running. Raises ConflictError when it runs (reset it then)."""
        if self.state.name in ("running", "booting", "resetting"):
            raise ConflictError(f"GPU {self.name} is {self.state.name}", remedy="use reset for a running GPU")
        self._take_firmware_down("an operator retries")
        self.bring_up()

    def reset(self) -> None:
        """Operator: everything down, the device reset, and up again with new needs."""
        self.set_state("unloading", "operator asked for a reset")
        self._take_firmware_down("an operator resets the GPU")
        self.bring_up(reset=True)

    def end_threads(self, timeout: float) -> list[str]:
        """Stop the threads; the names of those that hang."""
        hanging = [worker.name for worker in (self.calls, self.life, self.receiver) if not worker.stop(timeout)]
        return hanging + [what for worker in (self.calls, self.life) for what in worker.abandoned]
