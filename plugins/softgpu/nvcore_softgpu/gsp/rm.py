"""RPC functions: one method per function, answering a payload and a transport result.

Owns the meaning of each message outside controls. Works on `State` only; never touches a queue. Runs on the caller's thread under the
device's lock.
Source: open-gpu-kernel-modules 570.144, g_rpc-structures.h, rpc.c; the same message layouts in 535.113.01.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from nvcore_softgpu.gsp import channels
from nvcore_softgpu.gsp.classes import class_row
from nvcore_softgpu.gsp.controls import CONTROLS, Call
from nvcore_softgpu.gsp.controls.memory import set_page_directory, unset_page_directory
from nvcore_softgpu.gsp.objects import Node
from nvcore_softgpu.gsp.rpc import Fn, Message, function_name
from nvcore_softgpu.gsp.state import AddressSpace, Group, MemoryList, State
from nvcore_softgpu.gsp.static_info import static_info
from nvcore_softgpu.gsp.status import Status

__all__ = ["Reply", "Rm"]

_CONTROL = struct.Struct("<6I")  # client, object, command, status, size, flags
_ALLOC = struct.Struct("<7I4x")  # client, parent, object, class, status, size, flags
_FREE = struct.Struct("<4I")
_MEMORY = struct.Struct("<7I4xQI")
_SYSTEM_LIST, _VRAM_LIST = 0x81, 0x82
_BAR2: Final = 1
_COPY_OUT_ON_ERROR: Final = 1
_LEVEL_SHIFT: Final[dict[int, int]] = {2: 47, 3: 56}
_MAX_REGISTRY: Final = 0x40000


class Reply(NamedTuple):
    """What goes back: the whole payload and rpc_result."""

    payload: bytes
    result: int = 0


class Unload(NamedTuple):
    """What UNLOADING_GUEST_DRIVER asked for."""

    suspend: bool
    level: int


class Rm:
    """The resource manager of one running firmware."""

    def __init__(self, state: State) -> None:
        """One for each start of the firmware."""
        self.state = state
        self.unload: Unload | None = None
        self._table: dict[int, Callable[[Message], Reply | None]] = {
            Fn.GSP_RM_CONTROL: self._control,
            Fn.GSP_RM_ALLOC: self._alloc,
            Fn.FREE: self._free,
            Fn.ALLOC_MEMORY: self._alloc_memory,
            Fn.UPDATE_BAR_PDE: self._update_bar,
            Fn.SET_PAGE_DIRECTORY: self._set_page_directory,
            Fn.UNSET_PAGE_DIRECTORY: self._unset_page_directory,
            Fn.GET_GSP_STATIC_INFO: self._static_info,
            Fn.GSP_SET_SYSTEM_INFO: self._system_info,
            Fn.SET_REGISTRY: self._registry,
            Fn.UNLOADING_GUEST_DRIVER: self._unloading,
        }

    def dispatch(self, message: Message) -> Reply | None:
        """Answer one message; None when the function has no reply."""
        handler = self._table.get(message.function)
        if handler is None:
            self.state.report("unknown-function", f"{message.function:#x} with {len(message.payload):#x} bytes")
            return Reply(message.payload, Status.UNKNOWN_FUNCTION)
        return handler(message)

    def _short(self, message: Message, least: int) -> bool:
        if len(message.payload) >= least:
            return False
        self.state.report("short-message", f"{function_name(message.function)}: {len(message.payload):#x} bytes, at least {least:#x}")
        return True

    # -- controls ----------------------------------------------------------------------------------------------------------------------

    def _control(self, message: Message) -> Reply:
        if self._short(message, _CONTROL.size):
            return Reply(message.payload, Status.INVALID_FORMAT)
        payload = bytearray(message.payload)
        client, handle, command, _, size, flags = _CONTROL.unpack_from(payload)
        if _CONTROL.size + size != len(payload):
            self.state.report("control-size", f"{command:#x}: {size:#x} announced, {len(payload) - _CONTROL.size:#x} sent")
            return Reply(message.payload, Status.INVALID_FORMAT)
        params = payload[_CONTROL.size :]
        if flags & ~_COPY_OUT_ON_ERROR:
            self.state.report("control-flags", f"{command:#x}: flags {flags:#x}; serialized parameters are not played")
            status = Status.NOT_SUPPORTED
        else:
            status = self._control_status(client, handle, command, params)
        struct.pack_into("<I", payload, 12, status)
        if status == Status.OK or flags & _COPY_OUT_ON_ERROR:
            payload[_CONTROL.size :] = params
        return Reply(bytes(payload))

    def _control_status(self, client: int, handle: int, command: int, params: bytearray) -> int:
        state = self.state
        fault = _fault_for(state, "control-status", command)
        if fault is not None:
            return fault or Status.NOT_SUPPORTED
        status, node = state.tree.find(client, handle)
        if node is None:
            state.report("control-object", f"{command:#x} on unknown object {handle:#x} of client {client:#x}")
            return status
        row = CONTROLS.get(command)
        size = None if row is None else row.bytes_in(state.version)
        if row is None or size is None:
            state.env.violations.unknown_control(command)
            return Status.NOT_SUPPORTED
        if node.kind not in row.kinds:
            state.report("control-object", f"{row.name} on a {node.kind}, expected {' or '.join(row.kinds)}")
            return Status.INVALID_OBJECT
        if len(params) != size:
            state.report("control-size", f"{row.name}: {len(params)} bytes, {state.version.name} has {size}")
            return Status.INVALID_PARAM_STRUCT
        return row.handler(Call(state, client, node, command, params))

    # -- objects -----------------------------------------------------------------------------------------------------------------------

    def _alloc(self, message: Message) -> Reply:
        if self._short(message, _ALLOC.size):
            return Reply(message.payload, Status.INVALID_FORMAT)
        payload = bytearray(message.payload)
        client, parent, handle, class_id, _, size, _ = _ALLOC.unpack_from(payload)
        if _ALLOC.size + size != len(payload):
            self.state.report("alloc-size", f"class {class_id:#x}: {size:#x} announced, {len(payload) - _ALLOC.size:#x} sent")
            return Reply(message.payload, Status.INVALID_FORMAT)
        params = payload[_ALLOC.size :]
        status = self._alloc_status(client, parent, handle, class_id, params)
        struct.pack_into("<I", payload, 16, status)
        if status == Status.OK:
            payload[_ALLOC.size :] = params
        return Reply(bytes(payload))

    def _alloc_status(self, client: int, parent: int, handle: int, class_id: int, params: bytearray) -> int:
        state = self.state
        fault = _fault_for(state, "alloc-status", class_id)
        if fault is not None:
            return fault or Status.INSUFFICIENT_RESOURCES
        row = class_row(class_id, state.chip, state.version)
        if row is None:
            state.report("unknown-class", f"class {class_id:#x} on {state.chip.name}")
            return Status.INVALID_CLASS
        if len(params) not in row.sizes:
            state.report("alloc-size", f"class {class_id:#x}: {len(params)} bytes, {state.version.name} has {row.sizes[0]}")
            return Status.INVALID_PARAM_STRUCT
        if state.tree.full:
            return Status.INSUFFICIENT_RESOURCES
        if row.kind == "client":
            return self._new_client(client, parent, handle, class_id)
        status, above = state.tree.room_for(client, parent, handle, row.parents)
        if above is None:
            state.report("alloc-parent", f"class {class_id:#x}, handle {handle:#x} under {parent:#x} of client {client:#x}: {status:#x}")
            return status
        if row.kind == "channel":
            return channels.allocate(state, above, handle, class_id, params)
        if row.kind == "engine object":
            return channels.engine_object(state, above, handle, class_id, params)
        status, data = self._data(row.kind, above, params)
        if status == Status.OK:
            state.tree.add(above, handle, class_id, row.kind, data)
        return status

    def _new_client(self, client: int, parent: int, handle: int, class_id: int) -> int:
        if handle != client or parent not in (0, client):
            self.state.report("alloc-parent", f"client {client:#x} allocated as {handle:#x} under {parent:#x}")
            return Status.INVALID_OBJECT_HANDLE
        status = self.state.tree.add_client(client, class_id)
        if status:
            self.state.report("alloc-parent", f"client {client:#x}: {status:#x}")
        return status

    def _data(self, kind: str, above: Node, params: bytearray) -> tuple[int, object]:
        state = self.state
        words = struct.unpack_from(f"<{len(params) // 4}I", params)
        client = 0 if above.client is None else above.client.root.handle
        if kind in ("device", "subdevice") and words[0] != 0:
            return Status.INVALID_DEVICE, None
        if kind == "address space":
            if words[0] != 0:
                return Status.INVALID_INDEX, None
            return Status.OK, AddressSpace(bool(words[1] & 8))
        if kind == "group":
            space = state.space(client, words[2]) if words[2] else None
            if words[2] and space is None:
                return Status.OBJECT_NOT_FOUND, None
            if state.engine(words[3]) is None:
                return Status.INVALID_ARGUMENT, None
            return Status.OK, Group(words[3], space)
        if kind == "context share":
            space = state.space(client, words[0])
            return (Status.OK, space) if space is not None else (Status.OBJECT_NOT_FOUND, None)
        return Status.OK, None

    def _free(self, message: Message) -> Reply:
        if self._short(message, _FREE.size):
            return Reply(message.payload, Status.INVALID_FORMAT)
        root, parent, handle, _ = _FREE.unpack_from(message.payload)
        status, node = self.state.tree.find(root, handle)
        if node is not None:
            if parent and node.parent is not None and node.parent.handle != parent:
                self.state.report("free-parent", f"{handle:#x} hangs under {node.parent.handle:#x}, not {parent:#x}")
            status = self.state.tree.free(root, handle)
        else:
            self.state.report("free-unknown", f"object {handle:#x} of client {root:#x}")
        return Reply(_FREE.pack(root, parent, handle, status))

    def _alloc_memory(self, message: Message) -> Reply:
        if self._short(message, 0x38):
            return Reply(message.payload, Status.INVALID_FORMAT)
        client, device, handle, class_id, _, _, _, length, count = _MEMORY.unpack_from(message.payload)
        # the reply never carries the page list: echoing a long one would overrun a reader that asked for none
        head = message.payload[:0x38]
        if len(message.payload) < 0x38 + 8 * count or class_id not in (_SYSTEM_LIST, _VRAM_LIST) or count == 0:
            self.state.report("memory-list", f"class {class_id:#x}, {count} pages, {len(message.payload):#x} bytes")
            return Reply(head, Status.INVALID_FORMAT)
        (first,) = struct.unpack_from("<Q", message.payload, 0x38)
        system = class_id == _SYSTEM_LIST
        if system and (length + 0xFFF) // 0x1000 != count:
            self.state.report("memory-list", f"{length:#x} bytes in {count} pages")
            return Reply(head, Status.INVALID_ARGUMENT)
        if not system and not self.state.layout.inside(first << 12, length):
            self.state.report("memory-list", f"{length:#x} bytes at {first << 12:#x} leave VRAM")
            return Reply(head, Status.INVALID_ADDRESS)
        if self.state.tree.full:
            return Reply(head, Status.INSUFFICIENT_RESOURCES)
        status, above = self.state.tree.room_for(client, device, handle, ("device",))
        if above is None:
            self.state.report("alloc-parent", f"memory list {handle:#x} under {device:#x} of client {client:#x}: {status:#x}")
            return Reply(head, status)
        self.state.tree.add(above, handle, class_id, "memory", MemoryList(system))
        return Reply(head)

    # -- page directories --------------------------------------------------------------------------------------------------------------

    def _update_bar(self, message: Message) -> Reply:
        if self._short(message, 24):
            return Reply(message.payload, Status.INVALID_FORMAT)
        kind, value, shift = struct.unpack_from("<I4xQQ", message.payload)
        expected = _LEVEL_SHIFT[self.state.chip.tables]
        if kind != _BAR2 or shift != expected:
            self.state.report("bar-entry", f"type {kind}, shift {shift}, expected {_BAR2} and {expected}")
            return Reply(message.payload, Status.INVALID_ARGUMENT)
        self.state.env.set_bar2_entry(value)
        return Reply(message.payload)

    def _set_page_directory(self, message: Message) -> Reply:
        if self._short(message, 48):
            return Reply(message.payload, Status.INVALID_FORMAT)
        client = struct.unpack_from("<I", message.payload)[0]
        return Reply(message.payload, set_page_directory(self.state, client, message.payload[0x10:]))

    def _unset_page_directory(self, message: Message) -> Reply:
        # client, device, then NV0080_CTRL_DMA_UNSET_PAGE_DIRECTORY_PARAMS
        if self._short(message, 16):
            return Reply(message.payload, Status.INVALID_FORMAT)
        client, _, handle = struct.unpack_from("<III", message.payload)
        return Reply(message.payload, unset_page_directory(self.state, client, handle))

    # -- start and end -----------------------------------------------------------------------------------------------------------------

    def _static_info(self, message: Message) -> Reply:
        state = self.state
        if len(message.payload) != state.version.static_info.size:
            wanted = state.version.static_info.size
            state.report("static-info-size", f"{len(message.payload):#x} bytes, {state.version.name} has {wanted:#x}")
            return Reply(message.payload, Status.INVALID_FORMAT)
        info = static_info(
            state.version,
            state.layout,
            state.chip.marketing,
            state.facts,
            state.env.sriov(),
            sriov_enabled=state.sriov_enabled,
            uuid=state.uuid,
        )
        return Reply(bytes(info))

    def _system_info(self, message: Message) -> None:
        state = self.state
        if len(message.payload) != state.version.system_info_size:
            wanted = state.version.system_info_size
            state.report("system-info-size", f"{len(message.payload):#x} bytes, {state.version.name} has {wanted:#x}")
            return
        if state.system_info is not None:
            state.report("system-info-twice", "GSP_SET_SYSTEM_INFO came a second time")
            return
        state.system_info = message.payload
        for name, wanted in state.env.place().items():
            field = state.version.identity.get(name)
            if field is None:
                continue
            offset, size = field
            seen = int.from_bytes(message.payload[offset : offset + size], "little")
            if seen != wanted:
                state.report("system-info", f"{name} is {seen:#x}, the device has {wanted:#x}")
        total, first = struct.unpack_from("<II", message.payload, state.version.vf_info)
        sriov = state.env.sriov()
        if total and (total, first) != (sriov.get("total_vfs", 0), sriov.get("first_vf_offset", 0)):
            state.report("vf-info", f"{total} functions from {first}, the capability has {sriov.get('total_vfs', 0)}")

    def _registry(self, message: Message) -> None:
        table = message.payload
        if self._short(message, 8):
            return
        self.state.registry_seen = True
        size, count = struct.unpack_from("<II", table)
        if size > len(table) or size > _MAX_REGISTRY or 8 + 16 * count > size:
            self.state.report("registry", f"{count} entries in {size:#x} bytes, {len(table):#x} sent")
            return
        room = size  # entries that share their bytes could hold far more than was sent
        for index in range(count):
            offset, kind, data, length = struct.unpack_from("<IB3xII", table, 8 + 16 * index)
            end = table.find(b"\0", offset, size)
            if not 8 + 16 * count <= offset < size or end < 0 or (kind != 1 and data + length > size) or kind not in (1, 2, 3):
                self.state.report("registry", f"entry {index}: name at {offset:#x}, type {kind}, data {data:#x}, length {length:#x}")
                return
            name = table[offset:end].decode("ascii", "replace")
            value: int | str | bytes = data
            if kind == 2:
                value = table[data : data + length]
            elif kind == 3:
                value = table[data : data + length].split(b"\0", 1)[0].decode("ascii", "replace")
            room -= end - offset + (0 if kind == 1 else length)
            if room < 0:
                self.state.report("registry", f"entry {index}: names and values of more than the {size:#x} bytes sent")
                return
            self.state.registry[name] = value

    def _unloading(self, message: Message) -> Reply:
        if self._short(message, 8):
            return Reply(message.payload, Status.INVALID_FORMAT)
        transition, _, level = struct.unpack_from("<BB2xI", message.payload)
        suspend = bool(transition)
        if suspend and not self.state.suspend_prepared:
            self.state.report("suspend-unprepared", "UNLOADING for a suspend without FBSR_INIT")
        self.unload = Unload(suspend, level)
        return Reply(message.payload)


def _fault_for(state: State, name: str, number: int) -> int | None:
    """An armed fault whose argument "NUMBER[,STATUS]" (or nothing) fits `number`: the status asked for, 0 for the default."""
    argument = state.env.faults.peek(name)
    if argument is None:
        return None
    wanted, _, status = argument.partition(",")
    if wanted and int(wanted, 0) != number:
        return None
    state.env.faults.take(name)
    return int(status, 0) if status else 0
