"""The ladder that faults climb: channel, grant, GPU, lost. Each rung is tried once in an incident.

Owns attribution (whose a fault is), the order (disable first, then tell the owner, then quiesce with a deadline, then resume with a new
generation), and escalation. `deliver` and `meet` run on the receiver thread or in whatever thread met the fault: they store, and hand over.
Disabling a GPU runs on the receiver thread as urgent work; everything that talks to clients or firmware runs on the life-cycle thread.
Source: DESIGN "Faults"; attribution by channel id: open-gpu-kernel-modules before 550.120 names no guest in an RC message.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from nvcore.api.events import ChannelFault, Fault, FirmwareEvent, FirmwareHalted, FirmwareMessage, Rung, VgpuPluginEvent
from nvcore.api.marks import interrupt_safe, signalling_safe
from nvcore.gpu.threads import describe_error, fails

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


def _agree(owner: GpuGrant | None, function: int, by_function: str | None) -> bool:
    """Whether the guest named by the firmware is the owner of the channel."""
    if owner is None:
        return function == 0 or by_function is not None
    return not owner.functions if function == 0 else by_function == owner.name


# What is done about a fault on its rung, with those who were told of it.
_Climb: TypeAlias = "Callable[[Fault, list[Attachment]], None]"


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
        owner = hardware.grants.get(by_channel or "")
        if event.function is not None and not _agree(owner, event.function, by_function):
            named = f"the function of {by_function or 'nobody'}"
            text = f"channel {event.channel} is {by_channel or 'free'}, the firmware names VF {event.function}, {named}: {event.text}"
            self.meet_gpu("attribution-conflict", text)
            return
        owner = owner or hardware.grants.get(by_function or "")
        found = [one for one in hardware.channels if one.channel == event.channel]  # one a runlist
        channel = min(found, key=lambda one: one.engine != event.engine, default=None)
        if owner is None or (channel is not None and not channel.kill()):
            text = f"fault of a channel that is gone: {event.cause}: {event.text}"
            self._gpu.publish("fault", text, channel=event.channel, action="ignored")
            return
        climb, action = partial(self._climb_channel, owner, channel), "channel disabled, owner told" if channel else "owner told"
        where = {key: getattr(event, key) for key in ("channel", "engine", "function", "address")}
        self._meet(Rung.CHANNEL, event.cause, event.text, action, climb, owner, **where)

    # any thread

    @signalling_safe
    def meet_gpu(self, cause: str, text: str = "") -> None:
        """A fault of the whole GPU; one whose device is gone ("device-gone: …") is lost with it. Closes the gate now (no doorbell rings, no
        call starts), hands the rest to the receiver thread. The first cause wins."""
        hardware = self._gpu.hardware
        if hardware is not None and hardware.gate.close(cause):  # else the GPU is down already, and its first cause is on record
            self._gpu.receiver.urgent(partial(self._disable, hardware, cause, text or cause), "disabling the GPU")

    def meet_grant(self, grant: GpuGrant, cause: str, text: str = "") -> None:
        """A fault that one channel's end did not cure. Disables every channel of the grant now."""
        if not self.down():
            grant.kill()
            self._meet(Rung.GRANT, cause, text, "channels disabled, owner told", partial(self._climb_grant, grant), grant)

    def down(self) -> bool:
        """Whether the GPU is down: then its own rung's way back covers everything below."""
        return self._gpu.hardware is None or not self._gpu.hardware.gate.open

    def _meet(self, rung: Rung, cause: str, text: str, action: str, climb: _Climb, grant: GpuGrant | None, **where: Any) -> None:
        """Log a fault, tell the owner of the grant, or everybody, and have its rung climbed on the life-cycle thread."""
        gpu, about = self._gpu, grant.about if grant is not None else {}
        where |= {key: about.get(key) for key in ("grant", "owner")}
        fault = Fault(rung, cause, _LADDER[rung].code, gpu.name, gpu.generation, text=text, **where)
        self.counts[rung] += 1
        said = f"{cause}: {text}" if text else cause
        gpu.publish("fault", said, code=fault.code, channel=fault.channel, action=action, fault=fault, **about)
        owners = [one for one in tuple(gpu.attachments) if grant is None or one.function.name == grant.function]
        for one in owners:
            one.tell(fault)
        gpu.life.post(lambda: climb(fault, owners), f"fault at rung {rung.value}")

    # receiver thread, outside of its interrupt section

    def _disable(self, hardware: Hardware, cause: str, text: str) -> None:
        """The GPU rung's "disable": no call into the firmware. Bus master off, doorbells and leases revoked, interrupts masked; then all
        owners told."""
        done, short = ["GPU disabled, all owners told"], cause.split(":")[0]
        fails(done, "session", hardware.session.declare_dead, cause)
        hardware.invalidator.fail_all(cause)
        fails(done, "bus master", hardware.device.set_bus_master, False)
        for grant in hardware.top_grants:
            grant.kill()
            grant.set_quiescing(True)
            fails(done, "leases", grant.revoke_leases, cause)
        fails(done, "interrupts", hardware.tree.mask_all)
        self._meet(Rung.LOST if short == "device-gone" else Rung.GPU, short, text, "; ".join(done), self._climb_gpu, None)

    # life-cycle thread

    def _climb(
        self, fault: Fault, owners: list[Attachment], cure: Callable[[], int | None], higher: Callable[[str], None], grant: GpuGrant | None
    ) -> None:
        """One rung: clients quiesce, it is cured, and they resume under the generation that the cure returns, or the GPU's. What does not
        work is the next rung's business, which is given the cause."""
        gpu, step = self._gpu, _LADDER[fault.rung]
        staying = self._quiesce(owners, step)
        if grant is not None and len(staying) < len(owners):
            return  # its owner is gone, and the grant with it
        try:
            generation = cure() or gpu.generation
        except BaseException as error:  # isolation boundary: worker
            higher(describe_error(error)[0])
            return
        if grant is None or not self.down():  # else the whole GPU died meanwhile, and they resume after that
            for attachment in reversed(staying):
                self._stays(attachment, attachment.resume(step.vram, generation), "failed in resume")
        if self.down() or (grant is not None and grant.ended):
            return  # it did not last: what came then is climbed next
        if grant is None:
            gpu.set_state("running")
        about = grant.about if grant is not None else {}
        gpu.publish("recovery", f"recovered from {fault.cause}", channel=fault.channel, action=step.action, fault=fault, **about)

    def _quiesce(self, owners: list[Attachment], step: _Step) -> list[Attachment]:
        """Have clients leave the hardware before the deadline, the last one first; those that did."""
        generation = self._gpu.generation
        return [one for one in reversed(owners) if self._stays(one, one.quiesce(step.reason, generation), "missed-deadline")]

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

    def _climb_channel(self, grant: GpuGrant, channel: GpuChannel | None, fault: Fault, owners: list[Attachment]) -> None:
        if not self.down():
            cure = channel.disable if channel is not None else lambda: None
            self._climb(fault, owners, cure, lambda why: self.meet_grant(grant, "channel-stuck", why), grant)

    def _climb_grant(self, grant: GpuGrant, fault: Fault, owners: list[Attachment]) -> None:
        def cure() -> int:
            generation = next(self._gpu.generations)
            grant.renew(generation, "grant reset")
            grant.set_quiescing(False)
            return generation

        if self.down() or grant.ended:
            return
        if (since := self._tried_lately(grant.name)) is not None:
            self.meet_gpu("grant-reset-failed", f"{grant.name} faulted again {since:.1f} s after its reset: {fault.cause}")
            return
        grant.set_quiescing(True)
        self._climb(fault, owners, cure, lambda why: self.meet_gpu("grant-reset-failed", f"{grant.name}: {why}"), grant)

    def _climb_gpu(self, fault: Fault, _: list[Attachment]) -> None:
        gpu, why = self._gpu, fault.text or fault.cause
        if gpu.hardware is None or gpu.hardware.gate.open:
            return  # an operator was faster: it was taken down, or booted anew
        owners = list(gpu.attachments)
        for one in owners:  # who came to it while it was being disabled has not been told yet
            one.tell(fault)
        since = self._tried_lately(gpu.name)
        gpu.set_state("resetting", cause=why, code=fault.code)
        if fault.rung is Rung.LOST or since is not None:
            self._quiesce(owners, _LADDER[Rung.LOST])
            gpu.lose(why if since is None else f"{why}; {since:.1f} s after a reset")
        else:
            self._climb(fault, owners, gpu.restart_firmware, lambda why: gpu.lose(f"{fault.cause}, and the restart failed: {why}"), None)
            self.tried[gpu.name] = gpu.clock.now()  # it counts from its end: what died under a slow probe or resume did not come through
