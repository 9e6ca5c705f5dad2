"""Controls about graphics contexts: buffer sizes, zcull, promotion.

Source: open-gpu-kernel-modules 570.144, ctrl2080internal.h, ctrl2080gr.h, ctrl2080gpu.h (PROMOTE_CTX).
"""

from __future__ import annotations

from typing import Final

from nvcore_softgpu.gsp.controls.call import Call, Control
from nvcore_softgpu.gsp.conventions import CONTEXT_BUFFER, ZCULL
from nvcore_softgpu.gsp.state import Channel
from nvcore_softgpu.gsp.status import Status
from nvcore_softgpu.ports import Aperture

__all__ = ["CONTROLS"]

_SUB = ("subdevice",)
# properties that nouveau, OpenRM and tinygrad read: graphics, page pool (two ids), patch, bundle, attribute, RTV, FECS event, access map
_PROPERTIES: Final = (0x00, 0x0D, 0x10, 0x11, 0x12, 0x13, 0x14, 0x17, 0x18)
_MAX_ENTRIES = 16
_KNOWN_IDS = range(13)


def _context_buffers(call: Call) -> int:
    properties = call.state.version.context_properties
    call.zero()
    for engine in (engine for engine in call.state.chip.engines if engine.engine_type == 1):
        base = engine.instance * properties * 8
        for number in _PROPERTIES:
            call.put32(base + 8 * number, CONTEXT_BUFFER, 0x1000)
    return Status.OK


def _zcull(call: Call) -> int:
    call.put32(0, *ZCULL)
    return Status.OK


def _owner(call: Call) -> tuple[int, Channel | None]:
    client, handle = call.u32(0x0C), call.u32(0x10)
    status, node = call.state.tree.find(client, handle)
    if node is None:
        return status, None
    return (Status.OK, node.data) if isinstance(node.data, Channel) else (Status.INVALID_CHANNEL, None)


def _promote(call: Call) -> int:
    state, report = call.state, call.state.report
    status, channel = _owner(call)
    if channel is None:
        report("promote-channel", f"no channel {call.u32(0x10):#x} in client {call.u32(0x0C):#x}")
        return status
    count = call.u32(0x28)
    if count > _MAX_ENTRIES:
        return Status.INVALID_LIMIT
    engine = state.engine(call.u32(0))
    if engine is None or engine.runlist != channel.runlist:
        report("promote-engine", f"engine type {call.u32(0):#x} on a channel of runlist {channel.runlist}")
        return Status.INVALID_ARGUMENT
    fills: list[tuple[int, int]] = []
    for at in range(0x30, 0x30 + 32 * count, 32):
        physical, virtual, size = call.u64(at), call.u64(at + 8), call.u64(at + 16)
        attributes, identity = call.u32(at + 24), int.from_bytes(call.params[at + 28 : at + 30], "little")
        initialize, unmapped = call.params[at + 30], call.params[at + 31]
        if identity not in _KNOWN_IDS:
            return Status.INVALID_ARGUMENT
        if not unmapped and not virtual and not physical:
            report("promote-address", f"buffer {identity} has no address")
            return Status.INVALID_ADDRESS
        if initialize and attributes & 3 == 0:
            if not state.layout.clear(physical, size):
                report("promote-memory", f"buffer {identity}: {size:#x} bytes at {physical:#x} are not the driver's VRAM")
                return Status.INVALID_ADDRESS
            fills.append((physical, size))
    for physical, size in fills:
        state.env.memory.fill(Aperture.VRAM, physical, size, 0)
    return Status.OK


CONTROLS: Final[dict[int, Control]] = {
    0x20800A32: Control(
        "INTERNAL_STATIC_KGR_GET_CONTEXT_BUFFERS_INFO", _SUB, lambda version: 8 * version.context_properties * 8, _context_buffers
    ),
    0x20801206: Control("GR_GET_ZCULL_INFO", _SUB, 40, _zcull),
    0x2080012B: Control("GPU_PROMOTE_CTX", _SUB, 560, _promote),
}
"""Controls of this topic, by number."""
