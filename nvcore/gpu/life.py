"""One GPU: its state, its threads, and the way from a source to running and back.

Owns the state machine (found, identified, unsupported, booting, running, failed, resetting, lost, unloading, released) and the order in
which the parts start and stop. All transitions run on the life-cycle thread; the fault ladder calls back here for a restart or a loss. Two
GPUs share nothing but the event log and the offers: one failing touches no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from nvcore.api.clock import Clock
from nvcore.api.device import Bus, Device, VirtualFunction
from nvcore.api.errors import BootError, ConflictError, DeviceGone, NotRunningError, NotSupportedError, NvcoreError
from nvcore.api.events import Rung
from nvcore.api.firmware import BootReport, BootStage, FirmwareBackend, FirmwareSession, OpenContext, UnloadReport
from nvcore.api.function import Function
from nvcore.api.identity import GpuIdentity
from nvcore.api.marks import may_sleep
from nvcore.api.needs import NO_NEEDS, BootNeeds
from nvcore.gpu import boot
from nvcore.gpu.attach import attach_clients
from nvcore.gpu.clients import Attachment
from nvcore.gpu.doorbell import Gate
from nvcore.gpu.faults import Ladder
from nvcore.gpu.grants import GpuGrant
from nvcore.gpu.hardware import Hardware
from nvcore.gpu.interrupts import InterruptTree
from nvcore.gpu.invalidate import Invalidator
from nvcore.gpu.memory import VramAccess
from nvcore.gpu.receiver import Receiver
from nvcore.gpu.threads import Worker, describe_error
from nvcore.hw.chips import chip_row, identify

if TYPE_CHECKING:
    from nvcore.events import EventLog
    from nvcore.gpu.settings import HostSettings
    from nvcore.hostlib.parts import Parts

__all__ = ["Gpu", "GpuState", "StateName"]

StateName = Literal["found", "identified", "unsupported", "booting", "running", "failed", "resetting", "lost", "unloading", "released"]


class GpuState:
    """A state with its reason. cause: the first one, in words; since: monotonic seconds; wall: seconds since the epoch."""

    __slots__ = ("cause", "code", "name", "remedy", "since", "wall")

    def __init__(self, name: StateName, since: float, cause: str | None = None, code: str | None = None, remedy: str | None = None) -> None:
        self.name, self.since, self.wall = name, since, time.time()
        self.cause, self.code, self.remedy = cause, code, remedy


class Gpu:
    """One GPU of a host, named by its `source` until its bus address is known."""

    def __init__(self, source: str, bus: Bus, parts: Parts) -> None:
        self.source, self._bus, self._parts = source, bus, parts
        self.clock: Clock = parts.clock
        self.events: EventLog = parts.events
        self.settings: HostSettings = parts.settings
        self.name = source
        self.state = GpuState("found", self.clock.now())
        self.identity: GpuIdentity | None = None
        self.device: Device | None = None
        self.backend: FirmwareBackend | None = None
        self.hardware: Hardware | None = None
        self.needs: BootNeeds = NO_NEEDS
        self.functions: tuple[Function, ...] = ()
        self.virtual_functions: Sequence[VirtualFunction] = ()
        self.attachments: list[Attachment] = []
        self.conflicts: list[str] = []
        self.boot_report: BootReport | None = None
        self.unload_report: UnloadReport | None = None
        self.stages: list[BootStage] = []
        self.ladder = Ladder(self)
        self._generation = 0
        self.life = Worker(f"life {source}", self.clock, self._job_failed)
        self.calls = Worker(f"calls {source}", self.clock)
        self._receiver: Receiver | None = None

    # state

    @property
    def generation(self) -> int:
        """Of the GPU; grows with every firmware start (and is never reused after a grant's reset)."""
        return self.hardware.gate.generation if self.hardware is not None else self._generation

    def next_generation(self) -> int:
        """A generation that nobody had."""
        self._generation += 1
        return self._generation

    @property
    def receiver(self) -> Receiver:
        """The receiver thread. Raises NotRunningError before the device was opened."""
        if self._receiver is None:
            raise NotRunningError(f"GPU {self.name} has no receiver", seen=self.state.name)
        return self._receiver

    def set_state(self, name: StateName, cause: str | None = None, code: str | None = None, remedy: str | None = None) -> None:
        """Enter a state and say so in the event log."""
        self.state = GpuState(name, self.clock.now(), cause, code, remedy)
        self.events.publish("state", f"{name}: {cause}" if cause else name, gpu=self.name, code=code, action=remedy)
        self._parts.changed()

    def _job_failed(self, what: str, error: BaseException) -> None:
        self.events.publish("state", f"{what} failed: {describe_error(error)[0]}", gpu=self.name, code="NVC-1000")

    def attachment_of(self, grant: GpuGrant) -> Attachment | None:
        """The client that holds a grant."""
        for attachment in tuple(self.attachments):
            if attachment.function.name == grant.function:
                return attachment
        return None

    @may_sleep
    def run(self, call: Callable[[], object], what: str, timeout: float) -> object:
        """Run `call` where session calls are legal: on the life-cycle thread, or at once when this already is one of its callbacks."""
        if self.life.here() or self.calls.here():
            return call()
        return self.life.call(call, what, timeout)

    # up

    @may_sleep
    def bring_up(self) -> None:
        """From wherever it stands to running, or to a state that says why not. Life-cycle thread; raises nothing: buses, backends and the
        clients' needs are plugins, and one that breaks its contract fails this GPU, not the host."""
        try:
            device, identity = self._open_device()
            offer = boot.choose_backend(identity.chip, self._parts.backends, self._gpu_settings.backend)
            self.backend = self._parts.open_backend(offer)
            self.needs = boot.needs_of(identity, self._parts.clients)
            self.set_state("booting")
            self._boot(device, identity)
            attach_clients(self, self._parts)
        except Exception as error:  # isolation boundary: worker
            self._boot_failed(error)
            return
        if self.hardware is not None and self.hardware.gate.open:
            self.set_state("running")  # else a fault came first, and the ladder's job waits for this thread

    @property
    def _gpu_settings(self) -> Any:
        return self.settings.gpu(self.source)

    def _open_device(self) -> tuple[Device, GpuIdentity]:
        if self.device is None:
            self.device = self._bus.open(self.source)
        device = self.device
        if self.identity is None:
            chip = identify(device.bars[0])
            self.name = device.identity.address
            self.identity = GpuIdentity(self.name, self.source, chip, device.identity.device)
            self.set_state("identified")
        return device, self.identity

    def _boot(self, device: Device, identity: GpuIdentity) -> None:
        row = chip_row(identity.chip.name)
        if self._receiver is None:
            self._receiver = Receiver(f"receive {self.name}", self._session_died, self._device_gone, self._job_failed)
        receiver = self._receiver
        session = self._open_session(device, identity)
        tree = InterruptTree(device.bars[0], row.interrupt_leaves)
        invalidator = Invalidator(device.bars[0], self.clock, self._invalidate_stuck, self.settings.invalidate, receiver.wake)
        receiver.connect(device)
        receiver.attach(session, tree, invalidator, device)
        try:
            inventory = boot.read_inventory(session)
            functions = min(self.needs.virtual_functions, inventory.vgpu.functions) if inventory.vgpu.host else 0
            self.virtual_functions = device.enable_functions(functions) if functions else ()
            ledger = boot.make_ledger(inventory, functions)
            tree.open()
            if inventory.firmware_vector is not None:
                tree.listen(inventory.firmware_vector)
        except NvcoreError:
            self._disable_functions(device)
            self._unload(session)
            raise
        vram, gate = VramAccess(device, page_tables=inventory.page_tables), Gate(self.next_generation())
        self.hardware = Hardware(
            self.name,
            device,
            self.clock,
            self.events,
            inventory=inventory,
            ledger=ledger,
            vram=vram,
            tree=tree,
            invalidator=invalidator,
            session=session,
            gate=gate,
        )
        self.identity = GpuIdentity(identity.address, identity.source, identity.chip, identity.device_id, inventory.uuid)
        self.functions = boot.functions_of(self.identity, inventory, session.families, self.needs)
        self.events.publish("boot", f"{inventory.name} booted on {inventory.firmware}", gpu=self.name)

    def _open_session(self, device: Device, identity: GpuIdentity) -> FirmwareSession:
        """Open the firmware; what an earlier process of ours left running is taken down first, by its own saved unload."""
        assert self.backend is not None
        settings, store = self._gpu_settings, self._parts.saved_states
        self.stages = []
        self.boot_report, self.unload_report = None, None
        device.set_bus_master(True)
        context = OpenContext(
            device,
            identity.chip,
            self.needs,
            self.clock,
            self.ladder.deliver,
            self.stages.append,
            self.receiver.wake,
            settings.version,
            store.load(self.name),
            lambda saved: store.store(self.name, saved),
            settings.time_scale,
        )
        said = boot.take_down_leftover(self.backend, context, device.reset)
        if said is not None:
            store.drop(self.name)
            self.events.publish("boot", said, gpu=self.name, action="saved unload")
            device.set_bus_master(True)
        session = self.backend.open(context)
        self.boot_report = session.report
        return session

    def _boot_failed(self, error: Exception) -> None:
        if isinstance(error, BootError) and isinstance(error.report, BootReport):
            self.boot_report = error.report
        if isinstance(error, ConflictError):
            self.conflicts = [error.what]
        device = self.device
        if self.hardware is not None:
            self._take_firmware_down()
        self._forget_hardware()
        if device is None or device.gone:
            self._close_device()
        else:
            with suppress(NvcoreError):
                device.set_bus_master(False)
        gone = device is not None and device.gone
        state: StateName = "lost" if gone else "unsupported" if isinstance(error, NotSupportedError) else "failed"
        cause, code, remedy = describe_error(error)
        if isinstance(error, BootError) and isinstance(error.report, BootReport):
            code = error.report.code or code  # what ended the boot, not that it ended: this is what is explained
        if gone:
            remedy = "put the device back, then: nvcore gpus retry"
        self.set_state(state, cause, code, remedy or "see the boot report (nvcore gpus describe), then: nvcore gpus retry")

    # faults that others report

    def _session_died(self, cause: str) -> None:
        self.ladder.meet_gpu(cause)

    def removed(self) -> None:
        """The bus says that the device left. Any thread."""
        self._device_gone("removed from its bus")

    def _device_gone(self, cause: str) -> None:
        self.ladder.meet_gpu(f"device-gone: {cause}", rung=Rung.LOST)

    def _invalidate_stuck(self, cause: str) -> None:
        self.ladder.meet_gpu(cause)

    # what the ladder asks for

    @may_sleep
    def restart_firmware(self) -> None:
        """Take the dead firmware down and start it again; grants keep their resources, zeroed, under a new generation. Raises
        NvcoreError."""
        hardware = self.hardware
        assert hardware is not None and self.device is not None and self.identity is not None
        self._unload(hardware.session)
        self.device.reset()  # also after a clean unload: engines or the MMU may hang, and quarantine ends with a reset only
        session = self._open_session(self.device, self.identity)
        self.receiver.connect(self.device)
        self.receiver.attach(session, hardware.tree, hardware.invalidator, self.device)
        try:
            inventory = boot.read_inventory(session)
            boot.same_resources(hardware.inventory, inventory)
            if self.virtual_functions:
                self.virtual_functions = self.device.enable_functions(len(self.virtual_functions))
        except NvcoreError:
            self._unload(session)
            raise
        hardware.inventory, hardware.session, hardware.vram.mapped = inventory, session, None
        generation = self.next_generation()
        hardware.invalidator.revive()
        hardware.gate = Gate(generation)  # grants are quiescing: nobody but the core uses it yet
        if not hardware.vram.shares:
            hardware.map_behind_bar1()  # before the scrub, which goes through it
        for grant in tuple(hardware.grants.values()):
            if grant.parent is None:
                grant.renew(generation)
        self._lift_quarantine(hardware)
        hardware.tree.open()
        for grant in tuple(hardware.grants.values()):
            grant.set_quiescing(False)

    def _lift_quarantine(self, hardware: Hardware) -> None:
        for item in hardware.ledger.quarantined("vram"):
            extent = hardware.vram.extent(item)
            if extent is None:
                hardware.vram.zero(item)
            else:
                extent.zero(item)
                extent.close()
        hardware.ledger.lift_quarantine()
        limbo, hardware.limbo = hardware.limbo, []
        for buffer in limbo:
            buffer.close()

    @may_sleep
    def lose(self, cause: str) -> None:
        """The last rung: clients leave, nothing more is asked of the hardware, until an operator retries."""
        self._leave_all(cause)
        hardware = self.hardware
        if hardware is not None:
            hardware.gate.close(cause)
            self._disable_functions(hardware.device)
            self._unload(hardware.session)
        self._forget_hardware()
        gone = self.device is not None and self.device.gone
        if gone:
            self._close_device()
        elif self.device is not None:
            with suppress(NvcoreError):
                self.device.set_bus_master(False)
        remedy = "put the device back, then: nvcore gpus retry" if gone else "nvcore gpus retry; if it fails again, power-cycle"
        self.set_state("lost", cause, "NVC-5002", remedy)

    @may_sleep
    def abandon(self, attachment: Attachment, cause: str) -> None:
        """A client missed its deadline or failed: the core revokes alone, and the function is free again."""
        if attachment in self.attachments:
            self.attachments.remove(attachment)
        attachment.hung = attachment.hung or cause
        self._revoke_grants(attachment, cause)
        attachment.remove(0.0)
        self.own(attachment.function, None)
        self.events.publish(
            "client",
            f"{attachment.name} abandoned: {cause}",
            gpu=self.name,
            owner=attachment.name,
            function=attachment.function.name,
            action="revoked",
        )
        self._parts.problems[attachment.name] = cause

    # down

    @may_sleep
    def detach(self, attachment: Attachment) -> None:
        """A client leaves in order; what it leaves behind, the core takes down. Life-cycle thread."""
        if attachment not in self.attachments:
            return
        cause = attachment.remove(self.settings.call)
        self.attachments.remove(attachment)
        self._revoke_grants(attachment, cause or "its client left")
        self.own(attachment.function, None)
        text = f"{attachment.name} left" + (f", not in order: {cause}" if cause else "")
        self.events.publish("client", text, gpu=self.name, owner=attachment.name, function=attachment.function.name)

    def _revoke_grants(self, attachment: Attachment, cause: str) -> None:
        hardware = self.hardware
        if hardware is None:
            return
        for grant in reversed(tuple(hardware.grants.values())):
            if grant.function == attachment.function.name and grant.parent is None:
                grant.revoke(cause)

    def _leave_all(self, cause: str) -> None:
        for attachment in reversed(tuple(self.attachments)):
            self.detach(attachment)
        for grant in tuple(self.hardware.grants.values()) if self.hardware else ():
            if grant.parent is None:
                grant.revoke(cause)

    def own(self, function: Function, owner: str | None) -> None:
        """Enter the owner of a function."""
        self.functions = tuple(
            Function(f.name, f.kind, f.gpu, f.published, f.reason, f.remedy, owner) if f.name == function.name else f
            for f in self.functions
        )

    def _unload(self, session: FirmwareSession) -> UnloadReport:
        """Unload; a firmware that takes its own protection down reads host memory for it, so the bus master that a fault stopped is let go
        again. No channel's memory is free by now, whatever still runs."""
        if self.device is not None and not self.device.gone:
            with suppress(DeviceGone):
                self.device.set_bus_master(True)
        report = session.unload()
        self.unload_report = report
        self.receiver.detach()
        if report.clean:
            self._parts.saved_states.drop(self.name)
        return report

    def _disable_functions(self, device: Device) -> None:
        """No virtual function outlives its firmware; on a device that is in trouble, as far as it lets itself be told."""
        if self.virtual_functions and not device.gone:
            with suppress(NvcoreError):
                device.enable_functions(0)

    def _forget_hardware(self) -> None:
        if self._receiver is not None:
            self._receiver.detach()
            self._receiver.disconnect()
        if self.hardware is not None:
            for buffer in self.hardware.limbo:
                buffer.close()
        self.hardware, self.functions, self.virtual_functions = None, (), ()

    def _close_device(self) -> None:
        device, self.device = self.device, None
        self.identity = None
        if device is not None:
            device.close()

    @may_sleep
    def take_down(self) -> None:
        """Back from wherever it stands, to `released`: clients leave in reverse order, the firmware is unloaded, the device released."""
        if self.state.name == "released":
            return
        self.set_state("unloading")
        problems = self._take_firmware_down()
        self._close_device()
        self.set_state("released", "; ".join(problems) or None)

    def _take_firmware_down(self) -> list[str]:
        hardware, problems = self.hardware, []
        self._leave_all("the GPU is unloaded")
        if hardware is not None:
            try:
                if self.virtual_functions and not hardware.device.gone:
                    hardware.device.enable_functions(0)
                hardware.tree.mask_all()
            except NvcoreError as error:
                problems.append(str(error))
            hardware.gate.close("unloaded")
            report = self._unload(hardware.session)
            if report.needs_reset and self.device is not None and not self.device.gone:
                try:
                    self.device.reset()
                except NvcoreError as error:
                    problems.append(str(error))
            if not report.clean:
                problems.append(f"the unload was not clean: {report.cause}")
            self.events.publish("unload", "firmware unloaded" if report.clean else problems[-1], gpu=self.name)
            with suppress(NvcoreError):
                hardware.device.set_bus_master(False)
        self._forget_hardware()
        return problems

    @may_sleep
    def retry(self) -> None:
        """Operator: try again from a state that is not running. Raises NotRunningError when it runs (reset it then)."""
        if self.state.name in ("running", "booting", "resetting"):
            raise ConflictError(f"GPU {self.name} is {self.state.name}", remedy="use reset for a running GPU")
        self.ladder.forget()
        self.conflicts = []
        if self.hardware is not None:
            self._take_firmware_down()
        self.bring_up()

    @may_sleep
    def reset(self) -> None:
        """Operator: everything down, the device reset, and up again with new needs."""
        self.set_state("unloading", "operator asked for a reset")
        self._take_firmware_down()
        try:
            if self.device is not None:
                self.device.reset()
        except NvcoreError as error:
            self._boot_failed(error)
            return
        self.ladder.forget()
        self.bring_up()

    @may_sleep
    def end_threads(self, timeout: float) -> list[str]:
        """Stop the threads; the names of those that hang."""
        hanging = [worker.name for worker in (self.calls, self.life) if not worker.stop(timeout)]
        if self._receiver is not None and not self._receiver.stop(timeout):
            hanging.append(f"receive {self.name}")
        self._receiver = None
        return hanging + [what for worker in (self.calls, self.life) for what in worker.abandoned]
