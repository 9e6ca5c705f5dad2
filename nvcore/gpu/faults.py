"""The ladder that faults climb: channel, grant, GPU, lost. Each rung is tried once in an incident.

Owns attribution (whose a fault is), the order (disable first, then tell the owner, then quiesce with a deadline, then resume with a new
generation), and escalation. `deliver` and `meet` run on the receiver thread or in whatever thread met the fault: they store, and hand over.
Disabling a GPU runs on the receiver thread as urgent work; everything that talks to clients or firmware runs on the life-cycle thread.
Source: DESIGN "Faults"; attribution by channel id: open-gpu-kernel-modules before 550.120 names no guest in an RC message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from nvcore.api.events import ChannelFault, Fault, FirmwareEvent, FirmwareHalted, FirmwareMessage, Rung, VgpuPluginEvent
from nvcore.api.marks import interrupt_safe, may_sleep, signalling_safe
from nvcore.gpu.threads import Job, describe_error, fails

if TYPE_CHECKING:
    from nvcore.api.client import QuiesceReason
    from nvcore.gpu.clients import Attachment
    from nvcore.gpu.grants import GpuGrant
    from nvcore.gpu.hardware import Hardware
    from nvcore.gpu.life import Gpu
    from nvcore.gpu.parts import GpuChannel


class _Step(NamedTuple):
    """One rung. code: of its faults. reason: why its clients quiesce. vram: what they are told of their memory when they resume. action:
    what is said when it worked."""

    code: str
    reason: QuiesceReason
    vram: Literal["kept", "lost"]
    action: str


_LADDER: Final = {
    Rung.CHANNEL: _Step("NVC-5010", "channel-fault", "kept", "channel stopped"),
    Rung.GRANT: _Step("NVC-5011", "grant-reset", "lost", "grant reset"),
    Rung.GPU: _Step("NVC-5012", "gpu-reset", "lost", "GPU reset, firmware started again"),
    Rung.LOST: _Step("NVC-5002", "gpu-lost", "lost", "given up"),
}

_Told: TypeAlias = "list[tuple[Attachment, Job | None]]"
"""Who was told of a fault, with the job in which `on_fault` runs."""


class Ladder:
    """The ladder of one GPU. tried: when, by the name of grant or GPU. counts: faults met, by rung."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.tried: dict[str, float] = {}
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
        """The channel of that id; of several on different runlists, the one of the engine that is named."""
        found = [channel for channel in hardware.channels if channel.channel == event.channel]
        return min(found, key=lambda channel: channel.engine != event.engine, default=None)

    # any thread

    @signalling_safe
    def meet_gpu(self, cause: str, text: str = "") -> None:
        """A fault of the whole GPU; one whose device is gone ("device-gone: …") is lost with it. Closes the gate now (no doorbell rings, no
        call starts), hands the rest to the receiver thread. The first cause wins."""
        hardware, short = self._gpu.hardware, cause.split(":")[0]
        if hardware is not None and hardware.gate.close(cause):  # else the GPU is down already, and its first cause is on record
            fault = self._fault(Rung.LOST if short == "device-gone" else Rung.GPU, short, text or cause)
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
        return Fault(rung, cause, _LADDER[rung].code, self._gpu.name, self._gpu.generation, text=text, **where)

    def _tell(self, fault: Fault, grant: GpuGrant | None, action: str) -> _Told:
        """Log a fault and tell the owner of the grant, or everybody."""
        self.counts[fault.rung] += 1
        about = grant.about if grant is not None else {}
        text = f"{fault.cause}: {fault.text}" if fault.text else fault.cause
        self._gpu.publish("fault", text, code=fault.code, channel=fault.channel, action=action, fault=fault, **about)
        owners = [one for one in tuple(self._gpu.attachments) if grant is None or one.function.name == grant.function]
        return [(attachment, attachment.tell(fault)) for attachment in owners]

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
        told = self._tell(fault, None, "; ".join(done))
        self._gpu.life.post(lambda: self._climb_gpu(fault, told), "fault of the GPU")

    # life-cycle thread

    @may_sleep
    def _climb(
        self, fault: Fault, told: _Told, cure: Callable[[], int], higher: Callable[[str], object], grant: GpuGrant | None = None
    ) -> None:
        """One rung: clients quiesce, it is cured, and they resume under the generation that the cure returns. What does not work is the
        next rung's business, which is given the cause."""
        gpu, step = self._gpu, _LADDER[fault.rung]
        staying = self._quiesce(told, step)
        if grant is not None and len(staying) < len(told):
            return  # its owner is gone, and the grant with it
        try:
            generation = cure()
        except Exception as error:  # isolation boundary: worker
            higher(describe_error(error)[0])
            return
        for attachment in reversed(staying):
            self._stays(attachment, attachment.resume(step.vram, generation, gpu.settings.call), "failed in resume")
        if grant is None:
            gpu.set_state("running")
        elif grant.ended:
            return
        about = grant.about if grant is not None else {}
        gpu.publish("recovery", f"recovered from {fault.cause}", channel=fault.channel, action=step.action, fault=fault, **about)

    def _quiesce(self, told: _Told, step: _Step) -> list[Attachment]:
        """Have clients leave the hardware before the deadline; those that did."""
        gpu, left = self._gpu, []
        for attachment, job in told:
            deadline = gpu.clock.now() + gpu.settings.quiesce
            if self._stays(attachment, attachment.quiesce(job, step.reason, deadline, gpu.generation), "missed-deadline"):
                left.append(attachment)
        return left

    def _stays(self, attachment: Attachment, obeyed: bool, otherwise: str) -> bool:
        """Whether a client is still trusted: the core takes back alone what one that did not obey has."""
        if not obeyed:
            self._gpu.detach(attachment, f"{otherwise}: {attachment.hung}")
        return obeyed

    def _tried_lately(self, what: str) -> float | None:
        """Seconds since the rung was tried on a grant or the GPU, if that was in the same incident; else None, and it is tried now."""
        now, before = self._gpu.clock.now(), self.tried.get(what)
        if before is not None and now - before < self._gpu.settings.settle:
            return now - before
        self.tried[what] = now
        return None

    @may_sleep
    def _climb_channel(self, fault: Fault, grant: GpuGrant, channel: GpuChannel | None, told: _Told) -> None:
        def cure() -> int:
            if channel is not None and not channel.closed:
                channel.disable()
            return self._gpu.generation

        if not self._down():
            self._climb(fault, told, cure, lambda why: self.meet_grant(grant, "channel-stuck", why), grant)

    @may_sleep
    def _climb_grant(self, fault: Fault, grant: GpuGrant, told: _Told) -> None:
        def cure() -> int:
            generation = next(self._gpu.generations)
            grant.renew(generation, "grant reset")
            grant.set_quiescing(False)
            return generation

        if self._down() or grant.ended:
            return
        since = self._tried_lately(grant.name)
        if since is not None:
            self.meet_gpu("grant-reset-failed", f"{grant.name} faulted again {since:.1f} s after its reset: {fault.cause}")
            return
        grant.set_quiescing(True)
        self._climb(fault, told, cure, lambda why: self.meet_gpu("grant-reset-failed", f"{grant.name}: {why}"), grant)

    @may_sleep
    def _climb_gpu(self, fault: Fault, told: _Told) -> None:
        def cure() -> int:
            gpu.restart_firmware()
            return gpu.generation

        gpu, why, since = self._gpu, fault.text or fault.cause, self._tried_lately(self._gpu.name)
        gpu.set_state("resetting", cause=why, code=fault.code)
        told = [(attachment, job) for attachment, job in reversed(told) if attachment in gpu.attachments]
        if fault.rung is Rung.LOST or since is not None:
            self._quiesce(told, _LADDER[Rung.LOST])
            gpu.lose(why if since is None else f"{why}; {since:.1f} s after a reset")
        else:
            self._climb(fault, told, cure, lambda why: gpu.lose(f"{fault.cause}, and the restart failed: {why}"))
