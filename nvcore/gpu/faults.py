"""The ladder that faults climb: channel, grant, GPU, lost. Each rung is tried once in an incident.

Owns attribution (whose a fault is), the order (disable first, then tell the owner, then quiesce with a deadline, then resume with a new
generation), and escalation. `deliver` and `meet` run on the receiver thread or in whatever thread met the fault: they store, and hand over.
Disabling a GPU runs on the receiver thread as urgent work; everything that talks to clients or firmware runs on the life-cycle thread.
Source: DESIGN "Faults"; attribution by channel id: open-gpu-kernel-modules before 550.120 names no guest in an RC message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from nvcore.api.errors import NvcoreError
from nvcore.api.events import ChannelFault, Fault, FirmwareEvent, FirmwareHalted, FirmwareMessage, Rung, VgpuPluginEvent
from nvcore.api.marks import interrupt_safe, may_sleep, signalling_safe
from nvcore.gpu.threads import Job, describe_error

if TYPE_CHECKING:
    from nvcore.api.client import QuiesceReason
    from nvcore.gpu.channels import GpuChannel
    from nvcore.gpu.clients import Attachment
    from nvcore.gpu.grants import GpuGrant
    from nvcore.gpu.hardware import Hardware
    from nvcore.gpu.life import Gpu

__all__ = ["Ladder"]

_CODES = {Rung.CHANNEL: "NVC-5010", Rung.GRANT: "NVC-5011", Rung.GPU: "NVC-5012", Rung.LOST: "NVC-5002"}


class Ladder:
    """The ladder of one GPU."""

    __slots__ = ("_gpu", "_grant_resets", "_reset_at", "counts")

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._grant_resets: dict[str, float] = {}
        self._reset_at: float | None = None
        self.counts = dict.fromkeys(Rung, 0)

    # receiver thread

    @interrupt_safe
    def deliver(self, event: FirmwareEvent) -> None:
        """Take what the firmware reported by itself."""
        gpu = self._gpu
        hardware = gpu.hardware
        if isinstance(event, FirmwareMessage):
            gpu.events.publish("firmware-message", f"{event.name}: {event.text}", gpu=gpu.name)
        elif isinstance(event, VgpuPluginEvent):
            gpu.events.publish("vgpu", f"task of VF {event.function}: {event.what}", gpu=gpu.name)
            for attachment in tuple(gpu.attachments):
                attachment.tell_vgpu(event)
        elif hardware is None or not hardware.gate.open:
            gpu.events.publish("firmware-message", f"late, ignored: {event}", gpu=gpu.name)
        elif isinstance(event, FirmwareHalted):
            self.meet_gpu("firmware-halt" if not event.cause else event.cause, event.text)
        elif isinstance(event, ChannelFault):
            self._channel_fault(hardware, event)

    def _channel_fault(self, hardware: Hardware, event: ChannelFault) -> None:
        """Attribute a fault and disable its channel at once, without a call into the firmware."""
        by_channel = hardware.ledger.owner_of("channels", event.channel)
        by_function = hardware.ledger.owner_of("functions", event.function) if event.function else None
        owner = hardware.grants.get(by_channel) if by_channel else None
        if event.function is not None and not self._agree(owner, event.function, by_function):
            named = f"the function of {by_function or 'nobody'}"
            text = f"channel {event.channel} is {by_channel or 'free'}, the firmware names VF {event.function}, {named}: {event.text}"
            self.meet_gpu("attribution-conflict", text)
            return
        if owner is None and by_function:
            owner = hardware.grants.get(by_function)
        channel = self._find_channel(hardware, event)
        if owner is None or (channel is not None and not channel.doorbell.armed):
            text = f"fault of a channel that is gone: {event.cause}: {event.text}"
            self._gpu.events.publish("fault", text, gpu=self._gpu.name, channel=event.channel, action="ignored")
            return
        if channel is not None:
            channel.kill()
        fault = Fault(
            Rung.CHANNEL,
            event.cause,
            _CODES[Rung.CHANNEL],
            self._gpu.name,
            hardware.gate.generation,
            event.channel,
            event.engine,
            event.function,
            owner.name,
            owner.client,
            event.address,
            event.text,
        )
        told = self._tell(fault, owner, "channel disabled, owner told" if channel else "owner told")
        self._gpu.life.post(lambda: self._climb_channel(fault, owner, channel, told), "fault of a channel")

    @staticmethod
    def _agree(owner: GpuGrant | None, function: int, by_function: str | None) -> bool:
        """Whether the guest named by the firmware is the owner of the channel."""
        if owner is None:
            return function == 0 or by_function is not None
        return not owner.functions if function == 0 else by_function == owner.name

    @staticmethod
    def _find_channel(hardware: Hardware, event: ChannelFault) -> GpuChannel | None:
        with hardware.lock:
            found = [channel for (_, number), channel in hardware.channels.items() if number == event.channel]
        if len(found) > 1 and event.engine is not None:
            found = [channel for channel in found if channel.engine == event.engine] or found
        return found[0] if found else None

    # any thread

    @signalling_safe
    def meet_gpu(self, cause: str, text: str = "", *, rung: Rung = Rung.GPU) -> None:
        """A fault of the whole GPU. Closes the gate now (no doorbell rings, no call starts), hands the rest to the receiver thread. The
        first cause wins."""
        gpu, hardware = self._gpu, self._gpu.hardware
        if hardware is None:
            return
        fault = Fault(rung, cause.split(":")[0], _CODES[rung], gpu.name, hardware.gate.generation, text=text or cause)
        if not hardware.gate.close(cause):
            return  # the GPU is down already, and its first cause is on record
        gpu.receiver.urgent(lambda: self._disable(hardware, fault), "disabling the GPU")

    def meet_grant(self, grant: GpuGrant, cause: str, text: str = "") -> None:
        """A fault that one channel's end did not cure. Disables every channel of the grant now."""
        hardware = grant.hardware
        if not hardware.gate.open:
            return
        grant.kill()
        fault = Fault(
            Rung.GRANT, cause, _CODES[Rung.GRANT], self._gpu.name, hardware.gate.generation, grant=grant.name, owner=grant.client, text=text
        )
        told = self._tell(fault, grant, "channels disabled, owner told")
        self._gpu.life.post(lambda: self._climb_grant(fault, grant, told), "fault of a grant")

    def _tell(self, fault: Fault, grant: GpuGrant | None, action: str) -> Job | None:
        self.counts[fault.rung] += 1
        self._gpu.events.publish(
            "fault",
            f"{fault.cause}: {fault.text}" if fault.text else fault.cause,
            gpu=self._gpu.name,
            code=fault.code,
            function=grant.function if grant else None,
            grant=fault.grant,
            owner=fault.owner,
            channel=fault.channel,
            vm=grant.vm if grant else None,
            action=action,
            fault=fault,
        )
        attachment = self._gpu.attachment_of(grant) if grant else None
        return attachment.tell(fault) if attachment else None

    # receiver thread, outside of its interrupt section

    def _disable(self, hardware: Hardware, fault: Fault) -> None:
        """The GPU rung's "disable": no call into the firmware. Bus master off, doorbells and leases revoked, interrupts masked; then all
        owners told."""
        cause = hardware.gate.cause or fault.cause
        problems: list[str] = []

        def step(call: Callable[[], object]) -> None:
            try:
                call()
            except NvcoreError as error:
                problems.append(str(error))

        hardware.session.declare_dead(cause)
        hardware.invalidator.fail_all(cause)
        step(lambda: hardware.device.set_bus_master(False))
        for grant in tuple(hardware.grants.values()):
            if grant.parent is None:
                grant.kill()
                grant.set_quiescing(True)
                step(lambda grant=grant: grant.revoke_leases(cause))  # type: ignore[misc]
        step(hardware.tree.mask_all)
        self._tell(fault, None, "GPU disabled, all owners told" + (f"; {'; '.join(problems)}" if problems else ""))
        told = [(attachment, attachment.tell(fault)) for attachment in tuple(self._gpu.attachments)]
        self._gpu.life.post(lambda: self._climb_gpu(fault, told), "fault of the GPU")

    # life-cycle thread

    def _quiesce(self, attachment: Attachment | None, told: Job | None, reason: QuiesceReason, generation: int) -> bool:
        if attachment is None:
            return True
        deadline = self._gpu.clock.now() + self._gpu.settings.quiesce
        if attachment.quiesce(told, reason, deadline, generation):
            return True
        self._gpu.abandon(attachment, f"missed-deadline: {attachment.hung}")
        return False

    @may_sleep
    def _climb_channel(self, fault: Fault, grant: GpuGrant, channel: GpuChannel | None, told: Job | None) -> None:
        hardware, gpu = grant.hardware, self._gpu
        if not hardware.gate.open:
            return
        attachment = gpu.attachment_of(grant)
        generation = hardware.gate.generation
        if not self._quiesce(attachment, told, "channel-fault", generation):
            return
        if channel is not None and not channel.closed:
            try:
                channel.disable()
            except NvcoreError as error:
                self.meet_grant(grant, "channel-stuck", describe_error(error)[0])
                return
        self._go_on(grant, fault, "kept", generation, "channel stopped")

    @may_sleep
    def _climb_grant(self, fault: Fault, grant: GpuGrant, told: Job | None) -> None:
        hardware, gpu = grant.hardware, self._gpu
        if not hardware.gate.open or grant.state in ("released", "revoked"):
            return
        now, before = gpu.clock.now(), self._grant_resets.get(grant.name)
        if before is not None and now - before < gpu.settings.settle:
            self.meet_gpu("grant-reset-failed", f"{grant.name} faulted again {now - before:.1f} s after its reset: {fault.cause}")
            return
        self._grant_resets[grant.name] = now
        attachment = gpu.attachment_of(grant)
        grant.set_quiescing(True)
        if not self._quiesce(attachment, told, "grant-reset", gpu.generation):
            return
        generation = gpu.next_generation()
        try:
            grant.reset(generation)
        except NvcoreError as error:
            self.meet_gpu("grant-reset-failed", f"{grant.name}: {describe_error(error)[0]}")
            return
        grant.set_quiescing(False)
        self._go_on(grant, fault, "lost", generation, "grant reset")

    def _go_on(self, grant: GpuGrant, fault: Fault, vram: Literal["kept", "lost"], generation: int, action: str) -> None:
        attachment = self._gpu.attachment_of(grant)
        if attachment is not None and not attachment.resume(vram, generation, self._gpu.settings.call):
            self._gpu.abandon(attachment, f"failed in resume: {attachment.hung}")
            return
        self._recovered(fault, action, grant.vm)

    def _recovered(self, fault: Fault, action: str, vm: str | None = None) -> None:
        self._gpu.events.publish(
            "recovery",
            f"recovered from {fault.cause}",
            gpu=self._gpu.name,
            grant=fault.grant,
            owner=fault.owner,
            channel=fault.channel,
            vm=vm,
            action=action,
            fault=fault,
        )

    @may_sleep
    def _climb_gpu(self, fault: Fault, told: list[tuple[Attachment, Job | None]]) -> None:
        gpu = self._gpu
        now = gpu.clock.now()
        again = self._reset_at is not None and now - self._reset_at < gpu.settings.settle
        lost = fault.rung is Rung.LOST or again
        reason: QuiesceReason = "gpu-lost" if lost else "gpu-reset"
        gpu.set_state("resetting", cause=fault.text or fault.cause, code=fault.code)
        for attachment, job in reversed(told):
            if attachment in gpu.attachments:
                self._quiesce(attachment, job, reason, gpu.generation)
        if lost:
            why = fault.text or fault.cause
            gpu.lose(f"{why}; {now - self._reset_at:.1f} s after a reset" if again and self._reset_at is not None else why)
            return
        self._reset_at = now
        try:
            gpu.restart_firmware()
        except Exception as error:  # isolation boundary: worker
            gpu.lose(f"{fault.cause}, and the restart failed: {describe_error(error)[0]}")
            return
        generation = gpu.generation
        for attachment in tuple(gpu.attachments):
            if not attachment.resume("lost", generation, gpu.settings.call):
                gpu.abandon(attachment, f"failed in resume: {attachment.hung}")
        gpu.set_state("running")
        self._recovered(fault, "GPU reset, firmware started again")

    def forget(self) -> None:
        """An operator retried: a new incident."""
        self._grant_resets.clear()
        self._reset_at = None
