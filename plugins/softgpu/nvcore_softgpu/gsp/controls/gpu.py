"""Controls about the GPU as a whole: what it is, what it is called, what its parts are.

Source: open-gpu-kernel-modules 570.144, ctrl2080gpu.h, ctrl2080fb.h, ctrl2080mc.h, ctrl2080bus.h, ctrl0080gpu.h, ctrl2080internal.h.
"""

from __future__ import annotations

import struct
from typing import Final

from nvcore_softgpu.gsp.controls.call import Call, Control
from nvcore_softgpu.gsp.static_info import gid_block, region_block, sriov_block, wide
from nvcore_softgpu.gsp.status import Status

__all__ = ["CONTROLS"]

_SUB = ("subdevice",)
_NONE = 0xFFFFFFFF
_GID_BINARY: Final = 2
# NV2080_CTRL_FB_INFO_INDEX_*: sizes in KiB, the bus in bits
_RAM_SIZE, _TOTAL_RAM_SIZE, _HEAP_SIZE, _MAPPABLE_HEAP_SIZE, _BUS_WIDTH = 7, 8, 9, 10, 11


def _gpc(call: Call) -> int:
    call.put32(0, call.state.facts.gpc_mask)
    return Status.OK


def _tpc(call: Call) -> int:
    gpc = call.u32(0)
    if gpc >= 32 or not call.state.facts.gpc_mask >> gpc & 1:
        return Status.INVALID_ARGUMENT
    call.put32(4, call.state.facts.tpc_mask)
    return Status.OK


def _gid(call: Call) -> int:
    if call.u32(0):
        return Status.INVALID_INDEX
    uuid = call.state.uuid
    if call.u32(4) & 3 == _GID_BINARY:
        call.params[:] = gid_block(uuid)
        return Status.OK
    text = uuid.hex()
    name = f"GPU-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}".encode() + b"\0"
    flags = call.u32(4)
    call.params[:] = struct.pack("<III", 0, flags, len(name)) + name.ljust(256, b"\0")
    return Status.OK


def _name(call: Call) -> int:
    flags = call.u32(0)
    if flags not in (0, 1):
        return Status.INVALID_ARGUMENT
    text = call.state.chip.marketing
    data = wide(text)[:126] if flags else text.encode("ascii")[:63]
    call.params[4:] = data.ljust(128, b"\0")
    return Status.OK


def _segment(call: Call) -> int:
    call.put64(0, call.state.chip.vmmu_segment)
    return Status.OK


def _sriov(call: Call) -> int:
    state = call.state
    call.params[:] = sriov_block(state.env.sriov(), state.sriov_enabled, len(call.params))
    return Status.OK


def _falcons(call: Call) -> int:
    call.zero()
    return Status.OK


def _event(call: Call) -> int:
    return Status.OK if call.u32(4) <= 2 else Status.INVALID_ARGUMENT  # events are told by message, asked for or not


def _gcx(call: Call) -> int:
    call.zero()
    return Status.OK


def _arch(call: Call) -> int:
    call.zero()
    call.put32(0, call.state.facts.architecture, call.state.facts.implementation, 0xA1)
    return Status.OK


def _regions(call: Call) -> int:
    call.params[:] = region_block(call.state.layout)
    return Status.OK


def _fb_info(call: Call) -> int:
    layout = call.state.layout
    count = call.u32(0)
    if count > (len(call.params) - 4) // 8:
        return Status.INVALID_LIMIT
    usable = sum(end - first for first, end in layout.usable) >> 10
    values = {
        _RAM_SIZE: layout.vram_size >> 10,
        _TOTAL_RAM_SIZE: layout.vram_size >> 10,
        _HEAP_SIZE: usable,
        _MAPPABLE_HEAP_SIZE: usable,
        _BUS_WIDTH: call.state.facts.bus_width,
    }
    for entry in range(count):
        value = values.get(call.u32(4 + 8 * entry))
        if value is None:
            return Status.NOT_SUPPORTED
        call.put32(8 + 8 * entry, value)
    return Status.OK


def _engines(call: Call) -> int:
    engines = call.state.chip.engines
    call.zero()
    call.put32(0, len(engines), *(engine.engine_type for engine in engines))
    return Status.OK


def interrupt_table(call: Call) -> int:
    """NV2080_CTRL_INTERNAL_INTR_GET_KERNEL_TABLE: the GSP's own vector and one entry per engine."""
    state, version = call.state, call.state.version
    faults = state.env.faults
    entries = [(version.engine_gsp, state.chip.gsp_vector, _NONE)]
    for engine in state.chip.engines:
        index = version.engine_gr0 + engine.instance if engine.engine_type == 1 else version.engine_ce0 + engine.instance
        entries.append((index, engine.stall, engine.nonstall))
    if faults.take("empty-interrupt-table") is not None:
        entries = []
    elif faults.take("engine-without-interrupt") is not None:
        entries.pop()
    call.zero()
    call.put32(0, len(entries))
    for number, (index, stall, nonstall) in enumerate(entries):
        struct.pack_into("<HxxIII", call.params, 4 + 16 * number, index, 0, stall, nonstall)
    return Status.OK


def _bif(call: Call) -> int:
    call.zero()
    return Status.OK


def _flush(call: Call) -> int:
    return Status.OK


CONTROLS: Final[dict[int, Control]] = {
    0x20800137: Control("GPU_GET_FERMI_GPC_INFO", _SUB, 4, _gpc),
    0x20800138: Control("GPU_GET_FERMI_TPC_INFO", _SUB, 8, _tpc),
    0x2080014A: Control("GPU_GET_GID_INFO", _SUB, 268, _gid),
    0x20800110: Control("GPU_GET_NAME_STRING", _SUB, 132, _name),
    0x20800170: Control("GPU_GET_ENGINES_V2", _SUB, lambda version: 340 if version.fault_gfid else 252, _engines),
    0x2080017E: Control("GPU_GET_VMMU_SEGMENT_SIZE", _SUB, 8, _segment),
    0x00800291: Control("GPU_GET_SRIOV_CAPS", ("device",), lambda version: version.static_info.sriov_size, _sriov),
    0x208001B0: Control("GPU_GET_CONSTRUCTED_FALCON_INFO", _SUB, lambda v: 1284 if v.falcon_info == 0x208001B0 else None, _falcons),
    0x20800A42: Control("INTERNAL_GET_CONSTRUCTED_FALCON_INFO", _SUB, lambda v: 1284 if v.falcon_info == 0x20800A42 else None, _falcons),
    0x20800301: Control("EVENT_SET_NOTIFICATION", _SUB, 20, _event),
    0x2080A7D7: Control("INTERNAL_GCX_ENTRY_PREREQUISITE", _SUB, lambda v: 2 if v.fault_gfid else None, _gcx),
    0x20801701: Control("MC_GET_ARCH_INFO", _SUB, 16, _arch),
    0x20801303: Control("FB_GET_INFO_V2", _SUB, lambda version: version.fb_info_size, _fb_info),
    0x20801320: Control("FB_GET_FB_REGION_INFO", _SUB, 776, _regions),
    0x20800A5C: Control("INTERNAL_INTR_GET_KERNEL_TABLE", _SUB, 2068, interrupt_table),
    0x20800AAC: Control("INTERNAL_BIF_GET_STATIC_INFO", _SUB, lambda version: 4 if version.fault_gfid else 16, _bif),
    0x20800A70: Control("INTERNAL_BUS_FLUSH_WITH_SYSMEMBAR", _SUB, 0, _flush),
}
"""Controls of this topic, by number."""
