"""The behavioural GSP-RM: start, queues, answers, events, death, suspend and unload.

Owns the life of the firmware and nothing of the device: it sees memory, faults and the host engine through `ports.Environment` only. Runs
on the thread that made the access, under the device's lock; has no thread of its own. Time comes from the environment's ticker.
Source: open-gpu-kernel-modules 570.144, kernel_gsp.c, message_queue_cpu.c; nouveau of Linux 7.3, nvkm/subdev/gsp/rm/{r535,r570}.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, cast

from nvcore_softgpu.gsp import events
from nvcore_softgpu.gsp.conventions import RESUME_MILLISECONDS, uuid
from nvcore_softgpu.gsp.host_rpc import HostRpc
from nvcore_softgpu.gsp.identify import Identity, identify
from nvcore_softgpu.gsp.logs import LogBuffer, read_regions
from nvcore_softgpu.gsp.queue import CommandRing, StatusRing
from nvcore_softgpu.gsp.rm import Reply, Rm
from nvcore_softgpu.gsp.rpc import FUNCTIONS, Assembler, Fn, Message, cut, function_name
from nvcore_softgpu.gsp.shared_memory import BadBlock, SharedMemory
from nvcore_softgpu.gsp.state import State
from nvcore_softgpu.gsp.versions import VERSIONS, Version
from nvcore_softgpu.gsp.vgpu import VgpuManager
from nvcore_softgpu.ports import Aperture, ChipFacts, Environment

__all__ = ["BehaviouralGsp"]

_MESSAGE_QUEUE = struct.Struct("<QI4xQQ")
_UNLOADED: Final = 0x80000000
# a driver frees status slots without ringing anything, so a full ring is looked at again after this time
_POLL_SECONDS: Final = 0.0005
_SLOWEST_POLL: Final = 0.02
# A resuming driver's interrupt handler is armed, and what it was told before the suspend may still be on its way to its worker: a worker
# that finds GSP_INIT_DONE in the ring takes it from the boot's own poll, which then waits for ever (Linux 7.3, nouveau, msgq_work). Real
# firmware is never there so early: its first message took 1.2 s on a GA102 (nouveau list, J. Fernandes, 2025-11-03).
_RESUME_SECONDS: Final = RESUME_MILLISECONDS / 1000


class BehaviouralGsp:
    """One GPU's firmware (`ports.Gsp`)."""

    def __init__(self, env: Environment) -> None:
        """Switched off; `env` is kept."""
        self._env = env
        self._chip = cast(ChipFacts, env.chip)
        self._state: State | None = None
        self._identity: Identity | None = None
        self._answered: dict[str, int] = {}
        self._cause = ""
        self._phase = "off"
        self._forget()

    def _forget(self) -> None:
        self._rm: Rm | None = None
        self._state = None
        self._vgpus: VgpuManager | None = None
        self._host_rpc: HostRpc | None = None
        self._commands: CommandRing | None = None
        self._status: StatusRing | None = None
        self._assembler: Assembler | None = None
        self._logs: list[LogBuffer] = []
        self._busy = self._polling = self._locked_down = False
        self._poll, self._spoiling = _POLL_SECONDS, 0
        # a late call of the ticker for an earlier life must do nothing
        self._life = object()

    # -- life --------------------------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Started and neither halted nor unloaded."""
        return self._phase in ("starting", "resuming", "running")

    @property
    def serving(self) -> bool:
        """Running, past GSP_INIT_DONE, and not told to end."""
        return self._phase == "running" and (self._rm is None or self._rm.unload is None)

    def start(self, meta: Mapping[str, int], libos_arguments: int) -> str | None:
        """Boot: see `ports.Gsp.start`."""
        self._forget()
        self._cause, self._phase, self._answered = "", "off", {}
        self._identity, reason = identify(self._env.memory, meta)
        version = None if self._identity is None else VERSIONS.get(self._identity.version)
        if version is None:
            return reason or f"firmware {self._identity.version if self._identity else '?'} is not played by this model"
        regions = {region.name: region for region in read_regions(self._env, libos_arguments)}
        arguments = regions.get("RMARGS")
        if arguments is None:
            return "the libos arguments name no RMARGS region"
        reason = self._open(version, meta, arguments.address)
        if reason:
            self._forget()
            return reason
        opened = [LogBuffer.open(self._env, region) for name, region in regions.items() if name.startswith("LOG")]
        # every driver's region is checked, and only those that this image has names for are written
        self._logs = [log for log in opened if log is not None and log.name in version.logs[self._chip.image]]
        self._phase = "starting"
        self._note(f"start {version.name} on {self._chip.name}")
        if self._env.faults.take("gsp-halt@boot") is not None:
            self.halt("fault gsp-halt@boot")
            return None
        self._process()
        return None

    def _open(self, version: Version, meta: Mapping[str, int], arguments: int) -> str:
        env = self._env
        data = env.memory.read(Aperture.SYSTEM, arguments, version.arguments_size)
        address, count, command_offset, status_offset = _MESSAGE_QUEUE.unpack_from(data)
        level, _, transition = struct.unpack_from("<IIB", data, version.resume_arguments)
        if level or transition:
            env.violations.violation("resume-arguments", f"level {level}, transition {transition} in a cold boot")
        try:
            block = SharedMemory(env.memory, address, count)
            commands = CommandRing(block, command_offset, status_offset, env.violations)
            status = StatusRing(block, status_offset, commands.size, command_offset, env.violations)
            status.link(command_offset + commands.rx_offset)
        except BadBlock as problem:
            env.violations.violation("shared-memory", str(problem))
            return f"shared memory: {problem}"
        self._commands, self._status, self._assembler = commands, status, Assembler(env.violations)
        state = State(env, self._chip, version, meta, self._post_event, self.halt)
        state.uuid = uuid(self._chip.name, env.memory.vram_size, self._chip.device_id, env.place().get("nvDomainBusDeviceFunc"))
        self._vgpus = VgpuManager(state)
        state.tasks = self._vgpus
        self._host_rpc = HostRpc(state, self._vgpus)
        self._rm, self._state = Rm(state), state
        return ""

    def resume(self) -> str | None:
        """Start again after a suspend: the queues and all objects are as they were, and GSP_INIT_DONE comes after a time.

        Log buffers are not touched any more: the driver may have freed them with the boot arguments.
        """
        if self._phase != "suspended" or self._state is None or self._rm is None:
            return f"resume of a firmware that is {self._phase}"
        self._rm.unload = None
        self._state.suspend_prepared = False
        self._logs = []
        self._phase, self._busy = "resuming", False
        self._later(_RESUME_SECONDS, self._resumed)
        self._process()
        return None

    def _resumed(self) -> None:
        if self._phase != "resuming":
            return  # it was told to end meanwhile
        self._phase = "running"
        if self._env.faults.take("no-init-done") is None:
            self._init_done()

    def stop(self) -> None:
        """The core was reset. A suspended firmware keeps its state for the resume; everything else is forgotten."""
        if self._phase == "suspended":
            return
        self._forget()
        self._phase = "off"

    def halt(self, cause: str) -> None:
        """Die: nothing is answered any more."""
        if not self.running:
            return
        self._note(f"halt: {cause}")
        self._phase, self._cause = "halted", cause
        self._life = object()
        self._env.set_halted(True, fault=True)

    def _note(self, text: str) -> None:
        for log in self._logs:
            log.note(text)

    # -- commands ----------------------------------------------------------------------------------------------------------------------

    def doorbell(self) -> None:
        """The command-queue doorbell was written. Before the start nothing is lost: the ring keeps what was queued."""
        if not self.running:
            return
        self._pump()
        faults = self._env.faults
        for place in ("gsp-halt", "gsp-halt@prepare", "gsp-halt@rpc"):
            if faults.take(place) is not None:
                self.halt(f"fault {place}")
                return
        self._process()

    def _process(self) -> None:
        commands, assembler = self._commands, self._assembler
        assert commands is not None and assembler is not None
        while self.running and not self._busy:
            record = commands.next()
            if record is None:
                break
            message = assembler.feed(record)
            if message is not None:
                self._handle(message)

    def _handle(self, message: Message) -> None:
        rm, faults = self._rm, self._env.faults
        assert rm is not None
        if self._phase != "running" and message.function not in (Fn.GSP_SET_SYSTEM_INFO, Fn.SET_REGISTRY):
            self._env.violations.violation("command-before-init", f"{function_name(message.function)} before GSP_INIT_DONE")
        name = FUNCTIONS.get(message.function, "unknown")
        self._answered[name] = self._answered.get(name, 0) + 1
        self._before(message)
        spoilt = self._spoilt()
        if spoilt == "lost" or _fits(self._env, "rpc-no-reply", message.function) is not None:
            return
        refused = _fits(self._env, "rpc-result", message.function)
        reply: Reply | None
        if refused is not None and message.function not in (Fn.GSP_SET_SYSTEM_INFO, Fn.SET_REGISTRY):
            reply = Reply(message.payload, refused or 0xFF)
        else:
            reply = rm.dispatch(message)
        if not self.running:
            return
        if reply is None:
            self._ready()
            return
        if spoilt is not None:
            if spoilt == "silent":
                return
            reply = Reply(bytes(len(reply.payload)) if spoilt == "zero" else b"\xff" * len(reply.payload), reply.result)
        delay = faults.take("rpc-delay")
        if delay is not None:
            self._busy = True
            self._later(float(delay or "1"), lambda: self._late(message, reply))
            return
        self._answer(message, reply)

    def _before(self, message: Message) -> None:
        """Faults that post something of their own before the reply."""
        faults = self._env.faults
        if faults.take("unknown-event") is not None:
            self._post_event(events.UNKNOWN, bytes(8))
        write = faults.take("sequencer-late")
        if write is not None:
            self._post_event(events.RUN_CPU_SEQUENCER, events.cpu_sequence([_pair(write)]))
        if message.function == Fn.UNLOADING_GUEST_DRIVER and faults.take("gsp-halt@unload") is not None:
            self.halt("fault gsp-halt@unload")

    def _spoilt(self) -> str | None:
        """What `rpc-spoil:HOW[,NTH]` does to this message."""
        argument = self._env.faults.peek("rpc-spoil")
        if argument is None:
            return None
        how, _, number = argument.partition(",")
        self._spoiling += 1
        if self._spoiling < int(number or "1", 0):
            return None
        self._spoiling = 0
        self._env.faults.take("rpc-spoil")
        return how

    def _late(self, message: Message, reply: Reply) -> None:
        self._busy = False
        if self.running:
            self._answer(message, reply)
            self._process()

    def _answer(self, message: Message, reply: Reply) -> None:
        status, faults = self._status, self._env.faults
        assert status is not None
        if faults.take("rpc-checksum") is not None:
            status.spoil_checksum = 0x5A5A5A5A
        if faults.take("rpc-sequence") is not None:
            status.spoil_sequence = -1
        if faults.take("rpc-oversize") is not None:
            status.spoil_slots = 64
        moved = False
        for function, payload in cut(message.function, reply.payload):
            moved |= status.post(function, payload, result=reply.result, sequence=message.sequence)
        self._visible(moved)
        rm = self._rm
        if message.function == Fn.UNLOADING_GUEST_DRIVER and rm is not None and rm.unload is not None:
            self._unloaded(rm.unload.suspend)

    def _unloaded(self, suspend: bool) -> None:
        state = self._state
        assert state is not None
        if suspend:
            self._phase = "suspended"
        else:
            left = state.tree.census()
            self._phase, self._cause = "unloaded", f"unloaded with {left} left" if left else "unloaded"
            state.tree.free_all()
        self._env.set_mailbox(0, _UNLOADED)
        if self._chip.flow == "fsp":
            self._env.set_halted(True)

    # -- status queue ------------------------------------------------------------------------------------------------------------------

    def _ready(self) -> None:
        """GSP_INIT_DONE, once both start messages are there."""
        state, faults = self._state, self._env.faults
        assert state is not None
        if self._phase != "starting" or state.system_info is None or not state.registry_seen:
            return
        self._phase = "running"
        if self._chip.flow == "booter":
            write = faults.take("sequencer-write")
            self._post_quietly(events.RUN_CPU_SEQUENCER, events.cpu_sequence([] if write is None else [_pair(write)]))
        if faults.take("no-init-done") is None:
            self._init_done()

    def _init_done(self) -> None:
        status = self._env.faults.take("init-status")
        self._post_quietly(events.INIT_DONE, b"", 0 if status is None else int(status or "0x65", 0))

    def _post_quietly(self, function: int, payload: bytes, result: int = 0) -> None:
        """An event of the boot, without an interrupt: a resuming driver's handler is armed and would take the message from its poll."""
        status = self._status
        assert status is not None
        status.post(function, payload, result=result, event=True)

    def _post_event(self, function: int, payload: bytes) -> None:
        status = self._status
        if self.running and status is not None:
            self._visible(status.post(function, payload, event=True))

    def _visible(self, moved: bool) -> None:
        if moved and not self._locked_down:
            self._env.raise_message()
        self._watch()

    def _watch(self) -> None:
        """Look at a full ring again later."""
        status = self._status
        if status is not None and status.waiting and not self._polling:
            self._polling = True
            self._later(self._poll, self._poll_again)

    def _poll_again(self) -> None:
        self._polling = False
        self._pump()

    def _pump(self) -> None:
        status = self._status
        if status is None or not status.waiting:
            return
        moved = status.pump()
        self._poll = _POLL_SECONDS if moved else min(self._poll * 2, _SLOWEST_POLL)
        self._visible(moved)

    def _later(self, seconds: float, what: object) -> None:
        life = self._life

        def call() -> None:
            if self._life is life and callable(what):
                what()

        self._env.ticker.call_at(self._env.ticker.now() + seconds, call)

    # -- the device's side -------------------------------------------------------------------------------------------------------------

    def vgpu_doorbell(self, gfid: int) -> None:
        """The host RPC doorbell of a vGPU."""
        if self.running and self._host_rpc is not None:
            self._host_rpc.doorbell(gfid)

    def lockdown(self, engaging: bool) -> None:
        """Announce a lockdown; while it lasts no message interrupt is raised."""
        state = self._state
        if state is None or not self.running:
            return
        self._post_event(state.version.lockdown_event, bytes([engaging]))
        self._locked_down = engaging
        if not engaging:
            self._env.raise_message()

    def channel_fault(self, runlist: int, chid: int, cause: str, address: int | None) -> None:
        """The host engine stopped a channel: MMU_FAULT_QUEUED where it was one, the Xid text, then RC_TRIGGERED."""
        state = self._state
        if state is None or not self.running:
            return
        channel = state.channels.get((runlist, chid))
        if channel is not None:
            channel.stopped, channel.enabled = True, False
        engine_type = channel.engine_type if channel is not None else state.runlist_engines(runlist)[0].engine_type
        gfid = channel.gfid if channel is not None else 0
        xid = events.XID_MMU_FAULT if address is not None else events.XID_PBDMA
        self._note(f"xid {xid} channel {chid}: {cause}")
        if address is not None:
            self._post_event(events.MMU_FAULT_QUEUED, b"")
        text = f"{cause}, channel {chid:#010x}" + (f", address {address:#x}" if address is not None else "")
        self._post_event(events.OS_ERROR_LOG, events.error_log(state.version, xid=xid, runlist=runlist, chid=chid, text=text))
        triggered = events.rc_triggered(state.version, engine_type=engine_type, chid=chid, gfid=gfid, xid=xid, address=address or 0)
        self._post_event(events.RC_TRIGGERED, triggered)

    def view(self) -> dict[str, object]:
        """The device's own view, JSON-able."""
        state, identity, vgpus = self._state, self._identity, self._vgpus
        status = self._status
        return {
            "phase": self._phase,
            "cause": self._cause,
            "version": identity.version if identity else None,
            "synthetic": identity.synthetic if identity else None,
            "objects": state.tree.census() if state else {},
            "channels": [
                {"runlist": channel.runlist, "chid": channel.chid, "engine": channel.engine_type, "enabled": channel.enabled,
                 "stopped": channel.stopped, "objects": sorted(channel.objects.values())}
                for channel in (state.channels.values() if state else ())
            ],
            "roots": state.roots() if state else [],
            "registry": _plain(state.registry) if state else {},
            "vgpu_types": sorted(vgpus.types) if vgpus else [],
            "vgpus": vgpus.view() if vgpus else [],
            "functions": dict(sorted(self._answered.items())),
            "posted": status.posted if status else 0,
            "waiting": status.waiting if status else 0,
        }  # fmt: skip


def _fits(env: Environment, name: str, function: int) -> int | None:
    """A fault "NAME[:FUNCTION[,VALUE]]" that fits this function: its value, 0 without one."""
    argument = env.faults.peek(name)
    if argument is None:
        return None
    wanted, _, value = argument.partition(",")
    if wanted and int(wanted, 0) != function:
        return None
    env.faults.take(name)
    return int(value, 0) if value else 0


def _plain(registry: Mapping[str, int | str | bytes]) -> dict[str, int | str]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in registry.items()}


def _pair(text: str) -> tuple[int, int]:
    """ADDRESS=VALUE."""
    address, _, value = text.partition("=")
    return int(address or "0x110040", 0), int(value or "0", 0)
