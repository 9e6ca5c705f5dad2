"""Controls about engines, runlists and channels.

Source: open-gpu-kernel-modules 570.144, ctrl2080fifo.h, ctrl2080ce.h, ctrl2080internal.h, ctrla06f.h, ctrla06c.h, ctrlc36f.h, ctrl906f.h.
"""

from __future__ import annotations

import struct
from typing import Final

from nvcore_softgpu.gsp.controls.call import Call, Control
from nvcore_softgpu.gsp.conventions import CHANNELS_PER_RUNLIST, FAULT_METHOD_BUFFER
from nvcore_softgpu.gsp.objects import Node
from nvcore_softgpu.gsp.state import Channel, Group
from nvcore_softgpu.gsp.status import Status

__all__ = ["CONTROLS"]

_SUB = ("subdevice",)
_PAGE_ENTRIES = 32
_ENTRY = struct.Struct("<16I2I2II16s")
_MAX_DISABLED = 64


def _device_table(call: Call) -> int:
    base = call.u32(0)
    engines = list(call.state.chip.engines)
    if base > len(engines):
        return Status.INVALID_ARGUMENT
    page = engines[base : base + _PAGE_ENTRIES]
    call.zero()
    call.put32(0, base, len(page))
    call.params[8] = base + len(page) < len(engines)
    for number, engine in enumerate(page):
        graphics = engine.engine_type == 1
        # ENG_DESC: class number of the engine in bits 31:8, instance in 7:0
        data = [0] * 16
        data[0] = (0x0 if graphics else 0x92AF4D) << 8 | engine.instance
        data[2], data[3], data[4] = engine.engine_type, engine.runlist, engine.fault_id
        data[9], data[10], data[11], data[12] = 0x00 if graphics else 0x13, engine.instance, engine.runlist_base, 1
        name = ("GR" if graphics else "CE") + str(engine.instance)
        _ENTRY.pack_into(call.params, 12 + _ENTRY.size * number, *data, engine.pbdma, 0, engine.pbdma, 0, 1, name.encode())
    return Status.OK


def _fault_method(call: Call) -> int:
    call.put32(0, FAULT_METHOD_BUFFER)
    return Status.OK


def _channel_count(call: Call) -> int:
    if not call.state.runlist_engines(call.u32(0)):
        return Status.INVALID_ARGUMENT
    call.put32(4, CHANNELS_PER_RUNLIST)
    return Status.OK


def _bind(call: Call) -> int:
    channel = call.channel()
    engine = call.state.engine(call.u32(0))
    if engine is None or engine.runlist != channel.runlist:
        call.state.report("bind-engine", f"channel {channel.chid} of runlist {channel.runlist} bound to engine type {call.u32(0):#x}")
        return Status.INVALID_ARGUMENT
    channel.bound = True
    return Status.OK


def _schedule(call: Call) -> int:
    channel, state = call.channel(), call.state
    wanted = bool(call.params[0])
    if wanted and (not channel.bound or channel.stopped):
        state.report("schedule-unbound", f"channel {channel.chid} is {'stopped' if channel.stopped else 'not bound'}")
        return Status.INVALID_STATE
    state.enable(channel, wanted)
    return Status.OK


def _stop(call: Call) -> int:
    channel = call.channel()
    channel.stopped = True
    call.state.enable(channel, False)
    return Status.OK


def _reset(call: Call) -> int:
    channel = call.channel()
    engine = call.state.engine(call.u32(0))
    if engine is None or engine.runlist != channel.runlist:
        return Status.INVALID_ARGUMENT
    channel.stopped = True
    call.state.enable(channel, False)
    return Status.OK


def _token(call: Call) -> int:
    # the runlist id is the driver's to add
    call.put32(0, call.channel().chid)
    return Status.OK


def _channels(node: Node) -> list[Channel]:
    return [child.data for child in node.children if isinstance(child.data, Channel)]


def _group_schedule(call: Call) -> int:
    state = call.state
    for channel in _channels(call.node):
        channel.bound = True
        if not channel.stopped:
            state.enable(channel, bool(call.params[0]))
    return Status.OK


def _group_bind(call: Call) -> int:
    group = call.node.data
    assert isinstance(group, Group)
    engine = call.state.engine(call.u32(0))
    if engine is None:
        return Status.INVALID_ARGUMENT
    for channel in _channels(call.node):
        if channel.runlist != engine.runlist:
            return Status.INVALID_ARGUMENT
        channel.bound = True
    return Status.OK


def _timeslice(call: Call) -> int:
    return Status.OK if 0 < call.u64(0) <= 10_000_000 else Status.INVALID_ARGUMENT


def _disable(call: Call) -> int:
    state = call.state
    count = call.u32(4)
    if count > _MAX_DISABLED:
        return Status.INVALID_LIMIT
    found: list[Channel] = []
    for index in range(count):
        client, handle = call.u32(0x18 + 4 * index), call.u32(0x118 + 4 * index)
        node = state.tree.find(client, handle)[1]
        if node is None or not isinstance(node.data, Channel):
            return Status.INVALID_CHANNEL
        found.append(node.data)
    for channel in found:
        if call.params[0]:
            state.enable(channel, False)
        elif channel.bound and not channel.stopped:
            state.enable(channel, True)
    return Status.OK


CONTROLS: Final[dict[int, Control]] = {
    0x20801112: Control("FIFO_GET_DEVICE_INFO_TABLE", _SUB, 3212, _device_table),
    0x20802A08: Control("CE_GET_FAULT_METHOD_BUFFER_SIZE", _SUB, 4, _fault_method),
    0x20800A61: Control("INTERNAL_FIFO_GET_NUM_CHANNELS", _SUB, 8, _channel_count),
    0x2080110B: Control("FIFO_DISABLE_CHANNELS", _SUB, 536, _disable),
    0xA06F0104: Control("GPFIFO_BIND", ("channel",), 4, _bind),
    0xA06F0103: Control("GPFIFO_SCHEDULE", ("channel",), 2, _schedule),
    0xA06F0112: Control("STOP_CHANNEL", ("channel",), 1, _stop),
    0x906F0102: Control("RESET_CHANNEL", ("channel",), lambda version: 16 if version.fault_gfid else 12, _reset),
    0xC36F0108: Control("GPFIFO_GET_WORK_SUBMIT_TOKEN", ("channel",), 4, _token),
    0xA06C0101: Control("GROUP_SCHEDULE", ("group",), 2, _group_schedule),
    0xA06C0102: Control("GROUP_BIND", ("group",), 4, _group_bind),
    0xA06C0103: Control("GROUP_SET_TIMESLICE", ("group",), 8, _timeslice),
}
"""Controls of this topic, by number."""
