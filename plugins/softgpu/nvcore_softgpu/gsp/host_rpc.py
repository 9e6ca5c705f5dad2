"""The host RPC channel of a vGPU: messages in the management heap, rung by a doorbell.

Owns the answers, never the task's life. Buffers lie in VRAM where the driver said; every offset is compared with the heap before use.
Runs on the caller's thread under the device's lock.
Source: the public vGPU host code of 2024 (firmware 535) and 2025 (570): control version 1 in both, the response layout differs.
"""

from __future__ import annotations

import struct
from typing import Final

from nvcore_softgpu.gsp.state import State
from nvcore_softgpu.gsp.status import Status
from nvcore_softgpu.gsp.vgpu import BOOTLOADED, Task, VgpuManager
from nvcore_softgpu.ports import Aperture

__all__ = ["MESSAGES", "HostRpc"]

MESSAGES: Final[dict[int, str]] = {
    1: "VERSION_NEGOTIATION", 2: "SETUP_CONFIG_PARAMS_AND_INIT", 3: "RESET", 4: "MIGRATION_STOP_WORK", 5: "MIGRATION_CANCEL_STOP",
    6: "MIGRATION_SAVE_STATE", 7: "MIGRATION_CANCEL_SAVE", 8: "MIGRATION_RESTORE_STATE", 9: "MIGRATION_RESTORE_DEFERRED_STATE",
    10: "MIGRATION_RESUME_WORK", 11: "CONSOLE_VNC_STATE", 12: "VF_BAR0_REG_ACCESS", 13: "UPDATE_BME_STATE", 14: "GET_GUEST_INFO",
}  # fmt: skip
"""Names of the messages, by number."""

_CONTROL = struct.Struct("<III4xQQQQ")  # version, type, number; response, message, migration, error buffer
_VERSION: Final = 1
_DEFAULT_RPC_VERSION: Final = 0x10
_CONFIGURATION = struct.Struct("<16sIIIIIIII")  # uuid, dbdf, VM's dbdf, instance id, type, pid, swizzle id, channels, plugin channels
_PAGE: Final = 0x1000


class HostRpc:
    """Answers messages of every task."""

    def __init__(self, state: State, manager: VgpuManager) -> None:
        """Both belong to one start of the firmware."""
        self._state = state
        self._manager = manager

    def doorbell(self, gfid: int) -> None:
        """The doorbell of one vGPU was rung."""
        state = self._state
        task = self._manager.tasks.get(gfid)
        if task is None or task.state in ("stopped", "crashed"):
            state.report("vgpu-doorbell", f"doorbell of gfid {gfid}, which {'has no task' if task is None else 'is ' + task.state}")
            return
        fields = _CONTROL.unpack(state.env.memory.read(Aperture.VRAM, task.control, _CONTROL.size))
        version, message, number, response, body = fields[:5]
        if number in (0, BOOTLOADED, task.processed):
            state.report("vgpu-doorbell", f"gfid {gfid}: no new message behind the doorbell (number {number:#x})")
            return
        wrong = self._layout(task, version, response, body)
        if wrong is not None:
            state.report("vgpu-control", f"gfid {gfid}: {wrong}")
            return
        if state.env.faults.take("vgpu-crash") is not None:
            self._manager.crash(task)
            return
        if state.env.faults.take("vgpu-rpc-silent") is not None:
            return
        base = task.heap[0]
        fault = state.env.faults.take("vgpu-rpc-error")
        result = int(fault or "0x65", 0) if fault is not None else self._answer(task, message, base + body)
        task.processed = number
        self._reply(base + response, number, result)

    def _layout(self, task: Task, version: int, response: int, body: int) -> str | None:
        if version != _VERSION:
            return f"control version {version}, expected {_VERSION}"
        for name, offset in (("response", response), ("message", body)):
            if offset == 0 or offset % 8 or offset + _PAGE > task.heap[1]:
                return f"{name} buffer at heap + {offset:#x}"
        return None

    def _reply(self, where: int, number: int, result: int) -> None:
        write, processed = self._state.env.memory.write, self._state.version.processed
        if processed:
            write(Aperture.VRAM, where, number.to_bytes(4, "little"))
        # the result first: the number tells the host that it is there
        write(Aperture.VRAM, where + processed + 4, result.to_bytes(4, "little"))
        write(Aperture.VRAM, where + processed, number.to_bytes(4, "little"))

    def _answer(self, task: Task, message: int, body: int) -> int:
        state = self._state
        if message not in MESSAGES:
            state.report("vgpu-message", f"gfid {task.gfid}: message {message}")
            return Status.INVALID_ARGUMENT
        if message == 1:
            return self._negotiate(task, body)
        if task.state == "booted":
            state.report("vgpu-order", f"gfid {task.gfid}: {MESSAGES[message]} before the version is negotiated")
            return Status.INVALID_STATE
        if message == 2:
            return self._configure(task, body)
        if task.state != "configured":
            state.report("vgpu-order", f"gfid {task.gfid}: {MESSAGES[message]} before the configuration")
            return Status.INVALID_STATE
        if message == 3:
            task.bus_master = False
            return Status.OK
        if message == 13:
            task.bus_master = bool(state.env.memory.read(Aperture.VRAM, body, 1)[0])
            state.env.memory.write(Aperture.VRAM, body + 1, b"\x01")
            return Status.OK
        if message == 14:
            return Status.OK
        return Status.NOT_SUPPORTED

    def _negotiate(self, task: Task, body: int) -> int:
        memory = self._state.env.memory
        wanted = int.from_bytes(memory.read(Aperture.VRAM, body, 4), "little")
        memory.write(Aperture.VRAM, body + 4, (wanted or _DEFAULT_RPC_VERSION).to_bytes(4, "little"))
        task.state = "negotiated"
        return Status.OK

    def _configure(self, task: Task, body: int) -> int:
        state = self._state
        data = state.env.memory.read(Aperture.VRAM, body, _CONFIGURATION.size)
        uuid, _, _, _, type_id, pid, _, channels, plugin = _CONFIGURATION.unpack(data)
        types = self._manager.types
        if types and type_id not in types:
            state.report("vgpu-type", f"gfid {task.gfid}: type {type_id} was not uploaded")
            return Status.INVALID_ARGUMENT
        if task.channels and channels != task.channels:
            state.report("vgpu-channels", f"gfid {task.gfid}: {channels} channels, {task.channels} at the start")
            return Status.INVALID_ARGUMENT
        task.uuid, task.type_id, task.vm_pid = uuid.hex(), type_id, pid
        task.channels, task.plugin_channels = channels, plugin
        task.state = "configured"
        return Status.OK
