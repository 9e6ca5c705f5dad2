"""Channel and engine-object allocation.

Owns the checks on channel parameters and the choice of a channel id. Hands finished channels to the host engine; runs none. Runs on the
caller's thread under the device's lock.
Source: open-gpu-kernel-modules 570.144, alloc_channel.h (NV_CHANNEL_ALLOC_PARAMS), nvos.h (NVOS04 flags); nouveau r535/fifo.c.
"""

from __future__ import annotations

import struct
from typing import Final

from nvcore_softgpu.gsp.conventions import CHANNELS_PER_RUNLIST, FAULT_METHOD_BUFFER
from nvcore_softgpu.gsp.objects import Node
from nvcore_softgpu.gsp.state import AddressSpace, Channel, Group, State
from nvcore_softgpu.gsp.status import Status
from nvcore_softgpu.ports import Aperture, EngineFacts

__all__ = ["allocate", "engine_object"]

_SYSTEM, _VRAM = 1, 2
_APERTURES: Final = {_SYSTEM: Aperture.SYSTEM, _VRAM: Aperture.VRAM}
_USERD_PAGE_FIXED: Final = 1 << 21
_INSTANCE_SIZE: Final = 0x1000
_USERD_SIZE: Final = 0x200
_GRAPHICS: Final = 1
_COPY0: Final = 9


def _descriptor(params: bytearray, offset: int) -> tuple[int, int, int]:
    """(base, size, address space) of an NV_MEMORY_DESC_PARAMS."""
    base, size, space = struct.unpack_from("<QQI", params, offset)
    return base, size, space


def _pick(state: State, runlist: int, flags: int) -> int | None:
    if flags & _USERD_PAGE_FIXED:
        return ((flags >> 12) & 0x1FF) * 8 + ((flags >> 8) & 7)
    taken = {chid for owner, chid in state.channels if owner == runlist}
    return next((chid for chid in range(1, CHANNELS_PER_RUNLIST) if chid not in taken), None)


def _space(state: State, client: int, parent: Node, share: int, handle: int) -> tuple[int, AddressSpace | None]:
    if share:
        node = state.tree.find(client, share)[1]
        if node is None or node.kind != "context share" or node.parent is not parent:
            return Status.OBJECT_NOT_FOUND, None
        return Status.OK, node.data if isinstance(node.data, AddressSpace) else None
    if handle:
        space = state.space(client, handle)
        return (Status.OK, space) if space is not None else (Status.OBJECT_NOT_FOUND, None)
    if isinstance(parent.data, Group):
        return Status.OK, parent.data.space
    return Status.OK, None


def allocate(state: State, parent: Node, handle: int, class_id: int, params: bytearray) -> int:
    """Make a channel under a device or a group. Answers a status."""
    client = 0 if parent.client is None else parent.client.root.handle
    gpfifo, entries, flags, share, space_handle = struct.unpack_from("<QIIII", params, 0x08)
    engine_type = struct.unpack_from("<I", params, 0x80)[0]
    if engine_type == 0 and isinstance(parent.data, Group):
        engine_type = parent.data.engine_type
    engine = state.engine(engine_type)
    if engine is None:
        state.report("channel-engine", f"engine type {engine_type:#x} is not in the FIFO table")
        return Status.INVALID_ARGUMENT
    status, space = _space(state, client, parent, share, space_handle)
    if status or space is None:
        state.report("channel-space", f"address space {space_handle:#x}, context share {share:#x}")
        return status or Status.INVALID_ARGUMENT
    chid = _pick(state, engine.runlist, flags)
    if chid is None or chid >= CHANNELS_PER_RUNLIST or (engine.runlist, chid) in state.channels:
        state.report("channel-id", f"channel id {chid} on runlist {engine.runlist} is not free")
        return Status.INVALID_CHANNEL
    if entries == 0 or entries & entries - 1 or gpfifo % 8:  # the engine keeps the logarithm of the count and no low address bits
        state.report("channel-gpfifo", f"{entries} GPFIFO entries at {gpfifo:#x}")
        return Status.INVALID_ARGUMENT
    status = _memory(state, engine, params)
    if status:
        return status
    channel = _record(engine, chid, class_id, space, params)
    channel.gpfifo, channel.entries = gpfifo, entries
    state.channels[engine.runlist, chid] = channel
    space.channels.append(channel)
    state.tree.add(parent, handle, class_id, "channel", channel)
    state.env.channels.add(channel)
    return Status.OK


def _memory(state: State, engine: EngineFacts, params: bytearray) -> int:
    """Instance block, USERD and fault method buffer: where they may lie, and that no other channel has them."""
    instance, size, aperture = _descriptor(params, 0x90)
    if aperture != _VRAM or instance % _INSTANCE_SIZE or size < _INSTANCE_SIZE or not state.layout.clear(instance, size):
        state.report("channel-instance", f"instance block of {size:#x} bytes at {instance:#x}, address space {aperture}")
        return Status.INVALID_ADDRESS
    if any(instance == other.instance for other in state.channels.values()):
        state.report("channel-instance", f"the instance block at {instance:#x} is another channel's")
        return Status.IN_USE
    userd, size, aperture = _descriptor(params, 0xA8)
    if aperture not in _APERTURES:
        state.report("channel-userd", f"USERD in address space {aperture}")
        return Status.INVALID_ARGUMENT
    if userd % _USERD_SIZE or size < _USERD_SIZE or not _lies(state, userd, size, aperture):
        state.report("channel-userd", f"USERD of {size:#x} bytes at {userd:#x}, address space {aperture}")
        return Status.INVALID_ADDRESS
    if any((userd, _APERTURES[aperture]) == (other.userd, other.userd_aperture) for other in state.channels.values()):
        state.report("channel-userd", f"the USERD at {userd:#x} is another channel's")
        return Status.IN_USE
    buffer, size, aperture = _descriptor(params, 0xD8)
    # copy engines alone write there; one driver gives its graphics channel a place in VRAM and calls it host memory
    if engine.engine_type >= _COPY0 and (buffer or size) and (size < FAULT_METHOD_BUFFER or not _lies(state, buffer, size, aperture)):
        state.report("channel-fault-buffer", f"fault method buffer of {size:#x} bytes at {buffer:#x}, address space {aperture}")
        return Status.INVALID_ADDRESS
    return Status.OK


def _lies(state: State, address: int, size: int, aperture: int) -> bool:
    """Whether a driver may give this range: VRAM that is not the firmware's, or host memory that the device reaches."""
    if aperture == _VRAM:
        return state.layout.clear(address, size)
    return aperture == _SYSTEM and size > 0 and state.env.memory.reachable(Aperture.SYSTEM, address, size)


def _record(engine: EngineFacts, chid: int, class_id: int, space: AddressSpace, params: bytearray) -> Channel:
    channel = Channel(chid, engine, class_id, space)
    channel.instance = _descriptor(params, 0x90)[0]
    channel.userd, _, aperture = _descriptor(params, 0xA8)
    channel.userd_aperture = _APERTURES[aperture]
    return channel


def engine_object(state: State, parent: Node, handle: int, class_id: int, params: bytearray) -> int:
    """Make an engine object under a channel: its methods are accepted from now on. Answers a status."""
    channel = parent.data
    assert isinstance(channel, Channel)
    here = {engine.engine_type for engine in state.runlist_engines(channel.runlist)}
    if class_id == state.chip.copy_class:
        version, engine_type = struct.unpack_from("<II", params)
        if version != 1 or engine_type < _COPY0 or engine_type not in here:
            state.report("object-engine", f"copy object version {version}, engine type {engine_type:#x} on runlist {channel.runlist}")
            return Status.INVALID_ARGUMENT
    elif _GRAPHICS not in here:
        state.report("object-engine", f"class {class_id:#x} on runlist {channel.runlist}, which has no graphics engine")
        return Status.INVALID_CLASS
    channel.objects[handle] = class_id
    state.tree.add(parent, handle, class_id, "engine object")
    state.env.channels.engine_object(channel.runlist, channel.chid, class_id)
    return Status.OK
