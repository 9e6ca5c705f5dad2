"""Controls of the vGPU manager (class 0x2080, category 0x40).

Source: open-gpu-kernel-modules 570.144 and 535.113.01, ctrl2080vgpumgrinternal.h.
"""

from __future__ import annotations

import struct
from typing import Final

from nvcore_softgpu.gsp.controls.call import Call, Control
from nvcore_softgpu.gsp.status import Status
from nvcore_softgpu.gsp.vgpu import VgpuManager

__all__ = ["CONTROLS"]

_SUB = ("subdevice",)
_GUEST = 152
_DEVICE = 104
_ENCODING: Final = b"softgpu:full"


def _manager(call: Call) -> VgpuManager:
    manager = call.state.tasks
    assert isinstance(manager, VgpuManager)
    return manager


def _bootload(call: Call) -> int:
    if call.state.env.faults.take("gsp-halt@bootload") is not None:
        call.state.halt("fault gsp-halt@bootload")
        return Status.OK  # nobody reads it: a dead firmware answers nothing
    return _manager(call).bootload(call.client, call.params)


def _shutdown(call: Call) -> int:
    return _manager(call).shutdown(call.u32(0))


def _cleanup(call: Call) -> int:
    return _manager(call).cleanup(call.u32(0))


def _upload(call: Call) -> int:
    return _manager(call).upload(call.params)


def _enumerate(call: Call) -> int:
    tasks = sorted(_manager(call).tasks.items())
    call.zero()
    call.put32(0, len(tasks))
    sriov = call.state.env.sriov()
    for index, (gfid, task) in enumerate(tasks):
        at = 8 + _GUEST * index
        call.put32(at, task.vm_pid)
        routing = sriov.get("first_vf_offset", 0) + (gfid - 1) * sriov.get("stride", 1)
        struct.pack_into("<I4xQII", call.params, at + _DEVICE, gfid, routing, gfid, 0)
        call.put64(at + _DEVICE + 24, task.fb_size)
        call.put32(at + _DEVICE + 32, task.encoder)
        call.params[at + _DEVICE + 40] = 0
    return Status.OK


def _clear_info(call: Call) -> int:
    gfid = call.u32(0)
    if not 1 <= gfid <= call.state.env.sriov().get("total_vfs", 0):
        return Status.INVALID_ARGUMENT
    task = _manager(call).tasks.get(gfid)
    if task is not None:
        task.vm_pid = 0
    return Status.OK


def _fb_usage(call: Call) -> int:
    tasks = sorted(_manager(call).tasks.items())
    call.zero()
    call.put32(0, len(tasks))
    for index, (gfid, task) in enumerate(tasks):
        struct.pack_into("<I4xQ", call.params, 8 + 16 * index, gfid, task.fb_size)
    return Status.OK


def _encoder(call: Call) -> int:
    task = _manager(call).tasks.get(call.u32(0))
    if task is None:
        return Status.OBJECT_NOT_FOUND
    if call.u32(4) > 100:
        return Status.INVALID_LIMIT
    task.encoder = call.u32(4)
    return Status.OK


def _encoding(call: Call) -> int:
    call.params[:] = _ENCODING.ljust(256, b"\0") + len(_ENCODING).to_bytes(4, "little")
    return Status.OK


def _migration(call: Call) -> int:
    call.params[0] = 0
    return Status.OK


def _config(call: Call) -> int:
    return Status.OK


def _free_states(call: Call) -> int:
    return _manager(call).free_states(call.u32(0))


def _heterogeneous(call: Call) -> int:
    return Status.STATE_IN_USE if _manager(call).tasks else Status.OK


CONTROLS: Final[dict[int, Control]] = {
    0x20804001: Control("BOOTLOAD_GSP_VGPU_PLUGIN_TASK", _SUB, lambda version: version.bootload.size, _bootload),
    0x20804002: Control("SHUTDOWN_GSP_VGPU_PLUGIN_TASK", _SUB, 4, _shutdown),
    0x20804003: Control("PGPU_ADD_VGPU_TYPE", _SUB, lambda version: version.upload_size, _upload),
    0x20804004: Control("ENUMERATE_VGPU_PER_PGPU", _SUB, 4872, _enumerate),
    0x20804005: Control("CLEAR_GUEST_VM_INFO", _SUB, 4, _clear_info),
    0x20804006: Control("GET_VGPU_FB_USAGE", _SUB, 520, _fb_usage),
    0x20804007: Control("SET_VGPU_ENCODER_CAPACITY", _SUB, 8, _encoder),
    0x20804008: Control("VGPU_PLUGIN_CLEANUP", _SUB, 4, _cleanup),
    0x20804009: Control("GET_PGPU_FS_ENCODING", _SUB, 260, _encoding),
    0x2080400A: Control("GET_PGPU_MIGRATION_SUPPORT", _SUB, 1, _migration),
    0x2080400B: Control("SET_VGPU_MGR_CONFIG", _SUB, 1, _config),
    0x2080400C: Control("FREE_STATES", _SUB, lambda version: 8 if version.fault_gfid else None, _free_states),
    0x2080400E: Control("SET_VGPU_HETEROGENEOUS_MODE", _SUB, lambda version: 1 if version.fault_gfid else None, _heterogeneous),
}
"""Controls of this topic, by number."""
