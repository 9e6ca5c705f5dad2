"""The ladder that faults climb: channel, grant, GPU, lost. Each rung is tried once in an incident.

Owns attribution (whose a fault is), the order (disable first, then tell the owner, then quiesce with a deadline, then resume with a new
generation), and escalation. `deliver` and `meet` run on the receiver thread or in whatever thread met the fault: they store, and hand over.
Disabling a GPU runs on the receiver thread as urgent work; everything that talks to clients or firmware runs on the life-cycle thread.
Source: DESIGN "Faults"; attribution by channel id: open-gpu-kernel-modules before 550.120 names no guest in an RC message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nvcore.api.errors import NvcoreError
from nvcore.api.events import ChannelFault, Fault, FirmwareEvent, FirmwareHalted, FirmwareMessage, Rung, VgpuPluginEvent
from nvcore.api.marks import interrupt_safe, may_sleep, signalling_safe
from nvcore.gpu.threads import Job, describe_error, fails

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
    """The ladder of one GPU. counts: faults met, by rung."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._grant_resets: dict[str, float] = {}
        self._reset_at: float | None = None
        self.counts = dict.fromkeys(Rung, 0)

    # receiver thread

    @interrupt_safe
    def deliver(self, event: FirmwareEvent) -> None:
        """Take what the firmware reported by itself."""
        gpu, hardware = self._gpu, self._gpu.hardware
        if isinstance(event, FirmwareMessage):
            gpu.publish("firmware-message", f"{event.name}: {event.text}")
        elif isinstance(event, VgpuPluginEvent):
            gpu.publish("vgpu", f"task of VF {event.function}: {event.what}")
            for attachment in tuple(gpu.attachments):
                attachment.tell_vgpu(event)
        elif hardware is None or not hardware.gate.open:
            gpu.publish("firmware-message", f"late, ignored: {event}")
        elif isinstance(event, FirmwareHalted):
            self.meet_gpu(event.cause or "firmware-halt", event.text)
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
        if owner is None or (channel is not None and not channel.kill()):
            text = f"fault of a channel that is gone: {event.cause}: {event.text}"
            self._gpu.publish("fault", text, channel=event.channel, action="ignored")
            return
        fault = self._fault(
            Rung.CHANNEL, event.cause, event.text, owner, channel=event.channel, engine=event.engine, function=event.function,
            address=event.address,
        )  # fmt: skip
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
        found = [channel for (_, number), channel in hardware.channels.items() if number == event.channel]
        if len(found) > 1 and event.engine is not None:
            found = [channel for channel in found if channel.engine == event.engine] or found
        return found[0] if found else None

    # any thread

    @signalling_safe
    def meet_gpu(self, cause: str, text: str = "", *, rung: Rung = Rung.GPU) -> None:
        """A fault of the whole GPU. Closes the gate now (no doorbell rings, no call starts), hands the rest to the receiver thread. The
        first cause wins."""
        hardware = self._gpu.hardware
        if hardware is not None and hardware.gate.close(cause):  # else the GPU is down already, and its first cause is on record
            fault = self._fault(rung, cause.split(":")[0], text or cause)
            self._gpu.receiver.urgent(lambda: self._disable(hardware, fault), "disabling the GPU")

    def meet_grant(self, grant: GpuGrant, cause: str, text: str = "") -> None:
        """A fault that one channel's end did not cure. Disables every channel of the grant now."""
        if self._down():
            return
        grant.kill()
        fault = self._fault(Rung.GRANT, cause, text, grant)
        told = self._tell(fault, grant, "channels disabled, owner told")
        self._gpu.life.post(lambda: self._climb_grant(fault, grant, told), "fault of a grant")

    def _down(self) -> bool:
        """Whether the GPU is down: then its own rung's way back covers everything below."""
        return self._gpu.hardware is None or not self._gpu.hardware.gate.open

    def _fault(self, rung: Rung, cause: str, text: str, grant: GpuGrant | None = None, **where: Any) -> Fault:
        if grant is not None:
            where |= {"grant": grant.name, "owner": grant.client}
        return Fault(rung, cause, _CODES[rung], self._gpu.name, self._gpu.generation, text=text, **where)

    def _tell(self, fault: Fault, grant: GpuGrant | None, action: str) -> Job | None:
        self.counts[fault.rung] += 1
        about = grant.about if grant is not None else {}
        text = f"{fault.cause}: {fault.text}" if fault.text else fault.cause
        self._gpu.publish("fault", text, code=fault.code, channel=fault.channel, action=action, fault=fault, **about)
        attachment = self._gpu.attachment_of(grant) if grant else None
        return attachment.tell(fault) if attachment else None

    # receiver thread, outside of its interrupt section

    def _disable(self, hardware: Hardware, fault: Fault) -> None:
        """The GPU rung's "disable": no call into the firmware. Bus master off, doorbells and leases revoked, interrupts masked; then all
        owners told."""
        cause = hardware.gate.cause or fault.cause
        done = ["GPU disabled, all owners told"]
        hardware.session.declare_dead(cause)
        hardware.invalidator.fail_all(cause)
        fails(done, "bus master", hardware.device.set_bus_master, False)
        for grant in hardware.top_grants:
            grant.kill()
            grant.set_quiescing(True)
            fails(done, "leases", grant.revoke_leases, cause)
        fails(done, "interrupts", hardware.tree.mask_all)
        self._tell(fault, None, "; ".join(done))
        told = [(attachment, attachment.tell(fault)) for attachment in tuple(self._gpu.attachments)]
        self._gpu.life.post(lambda: self._climb_gpu(fault, told), "fault of the GPU")

    # life-cycle thread

    def _quiesce(self, attachment: Attachment | None, told: Job | None, reason: QuiesceReason) -> bool:
        gpu = self._gpu
        if attachment is None or attachment.quiesce(told, reason, gpu.clock.now() + gpu.settings.quiesce, gpu.generation):
            return True
        gpu.abandon(attachment, f"missed-deadline: {attachment.hung}")
        return False

    def _resume(self, attachment: Attachment | None, vram: Literal["kept", "lost"], generation: int) -> bool:
        if attachment is None or attachment.resume(vram, generation, self._gpu.settings.call):
            return True
        self._gpu.abandon(attachment, f"failed in resume: {attachment.hung}")
        return False

    @may_sleep
    def _climb_channel(self, fault: Fault, grant: GpuGrant, channel: GpuChannel | None, told: Job | None) -> None:
        attachment, generation = self._gpu.attachment_of(grant), self._gpu.generation
        if self._down() or not self._quiesce(attachment, told, "channel-fault"):
            return
        try:
            if channel is not None and not channel.closed:
                channel.disable()
        except NvcoreError as error:
            self.meet_grant(grant, "channel-stuck", describe_error(error)[0])
            return
        if self._resume(attachment, "kept", generation):
            self._recovered(fault, "channel stopped", grant)

    @may_sleep
    def _climb_grant(self, fault: Fault, grant: GpuGrant, told: Job | None) -> None:
        gpu = self._gpu
        if self._down() or grant.ended:
            return
        now, before = gpu.clock.now(), self._grant_resets.get(grant.name)
        if before is not None and now - before < gpu.settings.settle:
            self.meet_gpu("grant-reset-failed", f"{grant.name} faulted again {now - before:.1f} s after its reset: {fault.cause}")
            return
        self._grant_resets[grant.name] = now
        attachment = gpu.attachment_of(grant)
        grant.set_quiescing(True)
        if not self._quiesce(attachment, told, "grant-reset"):
            return
        generation = gpu.next_generation()
        try:
            grant.renew(generation, "grant reset")
        except NvcoreError as error:
            self.meet_gpu("grant-reset-failed", f"{grant.name}: {describe_error(error)[0]}")
            return
        grant.set_quiescing(False)
        if self._resume(attachment, "lost", generation):
            self._recovered(fault, "grant reset", grant)

    def _recovered(self, fault: Fault, action: str, grant: GpuGrant | None = None) -> None:
        about = grant.about if grant is not None else {}
        self._gpu.publish("recovery", f"recovered from {fault.cause}", channel=fault.channel, action=action, fault=fault, **about)

    @may_sleep
    def _climb_gpu(self, fault: Fault, told: list[tuple[Attachment, Job | None]]) -> None:
        gpu, now = self._gpu, self._gpu.clock.now()
        since = now - self._reset_at if self._reset_at is not None else None
        again = since is not None and since < gpu.settings.settle
        lost, why = fault.rung is Rung.LOST or again, fault.text or fault.cause
        gpu.set_state("resetting", cause=why, code=fault.code)
        for attachment, job in reversed(told):
            if attachment in gpu.attachments:
                self._quiesce(attachment, job, "gpu-lost" if lost else "gpu-reset")
        if lost:
            gpu.lose(f"{why}; {since:.1f} s after a reset" if again else why)
            return
        self._reset_at = now
        try:
            gpu.restart_firmware()
        except Exception as error:  # isolation boundary: worker
            gpu.lose(f"{fault.cause}, and the restart failed: {describe_error(error)[0]}")
            return
        generation = gpu.generation
        for attachment in tuple(gpu.attachments):
            self._resume(attachment, "lost", generation)
        gpu.set_state("running")
        self._recovered(fault, "GPU reset, firmware started again")

    def forget(self) -> None:
        """An operator retried: a new incident."""
        self._grant_resets.clear()
        self._reset_at = None
