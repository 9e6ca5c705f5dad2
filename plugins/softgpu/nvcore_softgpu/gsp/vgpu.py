"""vGPU tasks: what runs inside the firmware for each virtual function.

Owns the uploaded types and one task per GFID, its memory, channel ids and state. Knows no control number. Runs on the caller's thread
under the device's lock. A guest or a driver may send anything: every field is checked before it is used.
Source: open-gpu-kernel-modules 570.144, ctrl2080vgpumgrinternal.h, kernel_vgpu_mgr.c; "[RFC] nvidia-vgpu" patches of 2024 and 2025.
"""

from __future__ import annotations

import struct
from typing import Final

from nvcore_softgpu.gsp.conventions import CHANNELS_PER_RUNLIST, MAX_VGPUS
from nvcore_softgpu.gsp.events import VGPU_PLUGIN_TRIGGERED
from nvcore_softgpu.gsp.state import State
from nvcore_softgpu.gsp.status import Status
from nvcore_softgpu.ports import Aperture

__all__ = ["BOOTLOADED", "CONTROL_SIZE", "Task", "VgpuManager"]

BOOTLOADED: Final = 0x4E654A6F
"""What a task writes to say that it is up."""

CONTROL_SIZE: Final = 0x1000
"""Bytes of the control buffer, the first of the management heap."""

_MAX_SEGMENTS: Final = 384
_MAX_PLUGIN_CHANNELS: Final = 5
_SEQUENCE_AT: Final = 8
_MAX_TYPES: Final = 64
_NOTIFY_BOOTLOADED, _NOTIFY_UNLOADED, NOTIFY_CRASHED = 0, 1, 2


class Task:
    """One vGPU. state: booted, negotiated, configured, stopped, crashed."""

    __slots__ = (
        "bus_master", "channels", "chids", "client", "control", "encoder", "gfid", "heap", "plugin_channels", "processed", "segments",
        "state", "type_id", "uuid", "vm_pid",
    )  # fmt: skip

    def __init__(self, gfid: int, client: int) -> None:
        """client: the RM client that started it."""
        self.gfid = gfid
        self.client = client
        self.state = "booted"
        self.vm_pid = self.type_id = self.channels = self.plugin_channels = self.control = self.processed = 0
        self.encoder = 100
        self.bus_master = False
        self.uuid = ""
        self.segments: list[tuple[int, int]] = []
        self.heap = (0, 0)
        self.chids: dict[int, int] = {}  # runlist -> first channel id

    @property
    def fb_size(self) -> int:
        """Bytes of guest FB."""
        return sum(length for _, length in self.segments)

    def ranges(self) -> list[tuple[int, int]]:
        """Every VRAM range of the task, as (address, length)."""
        return [*self.segments, self.heap]

    def view(self) -> dict[str, object]:
        """JSON-able."""
        return {
            "gfid": self.gfid, "state": self.state, "client": self.client, "type": self.type_id, "vm_pid": self.vm_pid, "uuid": self.uuid,
            "channels": self.channels, "first_channels": {str(runlist): first for runlist, first in self.chids.items()},
            "segments": [list(segment) for segment in self.segments], "heap": list(self.heap), "bus_master": self.bus_master,
        }  # fmt: skip


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[0] + b[1] and b[0] < a[0] + a[1]


class VgpuManager:
    """All tasks and types of one GPU."""

    def __init__(self, state: State) -> None:
        """No task, no type."""
        self._state = state
        self.tasks: dict[int, Task] = {}
        self.types: set[int] = set()

    def enabled(self) -> str | None:
        """None when the boot settings allow vGPUs, else what is missing."""
        state = self._state
        if not state.env.sriov():
            return "the GPU has no SR-IOV capability"
        if not state.sriov_enabled:
            return "registry key RMSetSriovMode is not 1"
        if not state.meta.get("gspFwHeapVfPartitionCount", 0):
            return "gspFwHeapVfPartitionCount is 0"
        if state.meta.get("gspFwHeapSize", 0) < state.version.heap_floor:
            return f"GSP heap of {state.meta.get('gspFwHeapSize', 0) >> 20} MiB, {state.version.heap_floor >> 20} needed"
        info = state.system_info
        if info is None or not struct.unpack_from("<I", info, state.version.vf_info)[0]:
            return "gspVFInfo was not sent"
        return None

    def upload(self, block: bytes | bytearray) -> int:
        """PGPU_ADD_VGPU_TYPE."""
        size = self._state.version.type_size
        discard, count = struct.unpack_from("<II", block)
        if count > _MAX_TYPES:
            self._state.report("vgpu-type-count", f"{count} types, at most {_MAX_TYPES}")
            return Status.INVALID_LIMIT
        found: set[int] = set()
        for index in range(count):
            number = struct.unpack_from("<I", block, 8 + index * size)[0]
            if number == 0 or number in found or (not discard and number in self.types):
                self._state.report("vgpu-type", f"type {number} is zero or comes twice")
                return Status.INVALID_ARGUMENT
            found.add(number)
        if discard & 0xFF:
            self.types.clear()
        self.types.update(found)
        return Status.OK

    def bootload(self, client: int, block: bytes | bytearray) -> int:
        """BOOTLOAD_GSP_VGPU_PLUGIN_TASK: check everything, then start the task."""
        state = self._state
        missing = self.enabled()
        if missing is not None:
            state.report("vgpu-not-enabled", missing)
            return Status.INVALID_STATE
        _, gfid, type_id, pid, swizz, channels, plugin = struct.unpack_from("<7I", block)
        if not 1 <= gfid <= state.env.sriov().get("total_vfs", 0):
            state.report("vgpu-gfid", f"gfid {gfid}")
            return Status.INVALID_ARGUMENT
        if gfid in self.tasks or len(self.tasks) >= MAX_VGPUS:
            state.report("vgpu-gfid", f"gfid {gfid} already has a task" if gfid in self.tasks else f"{MAX_VGPUS} tasks run")
            return Status.STATE_IN_USE
        if swizz or (type_id and self.types and type_id not in self.types):
            state.report("vgpu-type", f"type {type_id}, swizzle id {swizz}")
            return Status.INVALID_ARGUMENT
        task = Task(gfid, client)
        task.type_id, task.vm_pid, task.channels, task.plugin_channels = type_id, pid, channels, plugin
        status = self._memory(task, block) or self._buffers(task, block) or self._channel_ids(task, block)
        if status:
            return status
        self.tasks[gfid] = task
        self._started(task)
        return Status.OK

    def _memory(self, task: Task, block: bytes | bytearray) -> int:
        at, state = self._state.version.bootload, self._state
        unit = state.chip.vmmu_segment
        count = struct.unpack_from("<I", block, at.segment_count)[0]
        if not 1 <= count <= _MAX_SEGMENTS:
            state.report("vgpu-segments", f"{count} segments, allowed 1 to {_MAX_SEGMENTS}")
            return Status.INVALID_LIMIT
        addresses = struct.unpack_from(f"<{count}Q", block, at.segment_addresses)
        lengths = struct.unpack_from(f"<{count}Q", block, at.segment_lengths)
        for segment in zip(addresses, lengths, strict=True):
            if segment[1] == 0 or segment[0] % unit or segment[1] % unit:
                state.report("vgpu-segments", f"{segment[1]:#x} bytes at {segment[0]:#x} are not whole segments of {unit:#x}")
                return Status.INVALID_ADDRESS
            task.segments.append(segment)
        task.heap = struct.unpack_from("<QQ", block, at.heap)
        if task.heap[0] % 0x1000:
            state.report("vgpu-heap", f"heap at {task.heap[0]:#x}")
            return Status.INVALID_ADDRESS
        own: list[tuple[int, int]] = []
        foreign = [piece for other in self.tasks.values() for piece in other.ranges()]
        for piece in task.ranges():
            if not state.layout.clear(*piece):
                state.report("vgpu-memory", f"{piece[1]:#x} bytes at {piece[0]:#x} lie outside VRAM or in the GSP's part")
                return Status.INVALID_ADDRESS
            if any(_overlap(piece, other) for other in own + foreign):
                state.report("vgpu-memory", f"{piece[1]:#x} bytes at {piece[0]:#x} overlap another range")
                return Status.INVALID_ADDRESS
            own.append(piece)
        return Status.OK

    def _buffers(self, task: Task, block: bytes | bytearray) -> int:
        at, state = self._state.version.bootload, self._state
        base, length = task.heap
        control, init_log, init_size, task_log, task_size = struct.unpack_from("<5Q", block, at.heap + 16)
        pieces = [(control, CONTROL_SIZE), (init_log - base, init_size), (task_log - base, task_size)]
        if at.kernel_log is not None:
            kernel_log, kernel_size = struct.unpack_from("<QQ", block, at.kernel_log)
            if kernel_size:
                pieces.append((kernel_log - base, kernel_size))
        for offset, size in pieces:
            if offset < 0 or offset + size >= length:
                state.report("vgpu-buffers", f"{size:#x} bytes at heap + {offset:#x} do not end inside the heap of {length:#x}")
                return Status.INVALID_OFFSET
        task.control = base + control
        return Status.OK

    def _channel_ids(self, task: Task, block: bytes | bytearray) -> int:
        at, state = self._state.version.bootload, self._state
        offsets = struct.unpack_from(f"<{at.chid_count}I", block, at.chids)
        if task.plugin_channels > _MAX_PLUGIN_CHANNELS:
            state.report("vgpu-channels", f"{task.plugin_channels} plugin channels of {task.channels}")
            return Status.INVALID_LIMIT
        for engine in state.chip.engines:
            first = offsets[engine.engine_type]
            end = first + max(task.channels, 1)
            if end > CHANNELS_PER_RUNLIST:
                state.report("vgpu-channels", f"channels {first} to {end - 1} of {CHANNELS_PER_RUNLIST} on {engine.name}")
                return Status.INVALID_LIMIT
            taken = [channel.chid for channel in state.channels.values() if channel.runlist == engine.runlist]
            clash = any(first <= chid < end for chid in taken)
            for other in self.tasks.values():
                theirs = other.chids.get(engine.runlist)
                if theirs is not None and first < theirs + max(other.channels, 1) and theirs < end:
                    clash = True
            if clash:
                state.report("vgpu-channels", f"channels {first} to {end - 1} on {engine.name} are not free")
                return Status.IN_USE
            task.chids.setdefault(engine.runlist, first)
        return Status.OK

    def _started(self, task: Task) -> None:
        state, memory = self._state, self._state.env.memory
        found = int.from_bytes(memory.read(Aperture.VRAM, task.control + _SEQUENCE_AT, 4), "little")
        if found:
            state.report("vgpu-stale-control", f"message number {found:#x} in the control buffer before the task started")
        if state.env.faults.take("vgpu-no-marker") is not None:
            return
        memory.write(Aperture.VRAM, task.control + _SEQUENCE_AT, BOOTLOADED.to_bytes(4, "little"))
        self.notify(task.gfid, _NOTIFY_BOOTLOADED)

    def notify(self, gfid: int, index: int) -> None:
        """Tell the driver about a task."""
        self._state.post_event(VGPU_PLUGIN_TRIGGERED, struct.pack("<II", gfid, index))

    def crash(self, task: Task) -> None:
        """The task died."""
        task.state = "crashed"
        self.notify(task.gfid, NOTIFY_CRASHED)

    def shutdown(self, gfid: int) -> int:
        """SHUTDOWN_GSP_VGPU_PLUGIN_TASK."""
        task = self.tasks.get(gfid)
        if task is None:
            self._state.report("vgpu-unknown", f"shutdown of gfid {gfid} without a task")
            return Status.OBJECT_NOT_FOUND
        if task.state == "stopped":
            return Status.INVALID_STATE
        crashed = task.state == "crashed"
        task.state = "stopped"
        if not crashed:
            self.notify(gfid, _NOTIFY_UNLOADED)
        return Status.OK

    def cleanup(self, gfid: int) -> int:
        """VGPU_PLUGIN_CLEANUP: a task that has ended is forgotten."""
        task = self.tasks.get(gfid)
        if task is None:
            self._state.report("vgpu-unknown", f"clean-up of gfid {gfid} without a task")
            return Status.OBJECT_NOT_FOUND
        if task.state not in ("stopped", "crashed"):
            self._state.report("vgpu-cleanup-running", f"gfid {gfid} is {task.state}")
            return Status.INVALID_STATE
        del self.tasks[gfid]
        return Status.OK

    def free_states(self, gfid: int) -> int:
        """FREE_STATES: legal before and after the shutdown."""
        return Status.OK if 1 <= gfid <= self._state.env.sriov().get("total_vfs", 0) else Status.INVALID_ARGUMENT

    def client_freed(self, client: int) -> None:
        """A root client went away: its tasks should have ended before."""
        for task in self.tasks.values():
            if task.client == client and task.state not in ("stopped", "crashed"):
                self._state.report("vgpu-client-freed", f"client {client:#x} of gfid {task.gfid} freed while its task is {task.state}")

    def view(self) -> list[dict[str, object]]:
        """JSON-able list of tasks."""
        return [task.view() for _, task in sorted(self.tasks.items())]
