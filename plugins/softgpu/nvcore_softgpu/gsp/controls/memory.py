"""Controls about page directories, memory configuration and suspend.

Source: open-gpu-kernel-modules 570.144 and 535.113.01, ctrl0080dma.h, ctrl0080fb.h, ctrl90f1.h, ctrl2080internal.h.
"""

from __future__ import annotations

import struct
from typing import Final

from nvcore_softgpu.gsp.controls.call import Call, Control
from nvcore_softgpu.gsp.state import MemoryList, State
from nvcore_softgpu.gsp.status import Status

__all__ = ["CONTROLS", "set_page_directory", "unset_page_directory"]

_SUB = ("subdevice",)
_SET = struct.Struct("<QIIIIII")
_APERTURE_VRAM: Final = 0
_LEVEL = struct.Struct("<QQIB3x")
_RESERVED = (0x100000000, 0x11FFFFFFF)
_RESERVED_PAGE = 0x20000000
# page shifts of the levels above the one that the GSP fills, root first
_SHIFTS: Final[dict[int, tuple[int, ...]]] = {2: (47, 38, 29), 3: (56, 47, 38, 29)}
_ROOT_ENTRIES: Final[dict[int, int]] = {2: 4, 3: 2}


def set_page_directory(state: State, client: int, block: bytes | bytearray) -> int:
    """NV0080_CTRL_DMA_SET_PAGE_DIRECTORY_PARAMS, by control or by RPC."""
    address, entries, flags, handle, _, _, _ = _SET.unpack_from(block)
    if state.env.faults.take("gsp-halt@set-pdb") is not None:
        state.halt("fault gsp-halt@set-pdb")
    space = state.space(client, handle)
    if space is None:
        state.report("page-directory-space", f"no address space {handle:#x} in client {client:#x}")
        return Status.OBJECT_NOT_FOUND
    if not space.external:
        state.report("page-directory-owner", f"address space {handle:#x} is not externally owned")
        return Status.INVALID_ARGUMENT
    aperture = flags & 3
    if entries != _ROOT_ENTRIES[state.chip.tables]:
        state.report("page-directory-entries", f"{entries} root entries, expected {_ROOT_ENTRIES[state.chip.tables]}")
        return Status.INVALID_ARGUMENT
    if address % 0x1000 or (aperture == _APERTURE_VRAM and not _root_fits(state, address)) or aperture == 3:
        state.report("page-directory-address", f"root at {address:#x}, aperture {aperture}")
        return Status.INVALID_ADDRESS
    state.set_root(space, address)
    return Status.OK


def _root_fits(state: State, address: int) -> bool:
    # page 0 is a legal place: one driver puts its first page directory there
    return state.layout.clear(address, 0x1000)


def unset_page_directory(state: State, client: int, handle: int) -> int:
    """NV0080_CTRL_DMA_UNSET_PAGE_DIRECTORY_PARAMS, by control or by RPC."""
    if state.env.faults.take("gsp-halt@unset-pdb") is not None:
        state.halt("fault gsp-halt@unset-pdb")
    space = state.space(client, handle)
    if space is None:
        state.report("page-directory-space", f"no address space {handle:#x} in client {client:#x}")
        return Status.OBJECT_NOT_FOUND
    if space.root is None:
        state.report("page-directory-unset", f"address space {handle:#x} has no page directory")
        return Status.INVALID_STATE
    running = [channel.chid for channel in space.channels if channel.enabled]
    if running:
        state.report("unset-under-channels", f"channels {running} still run in address space {handle:#x}")
    state.set_root(space, None)
    return Status.OK


def _set(call: Call) -> int:
    return set_page_directory(call.state, call.client, call.params)


def _unset(call: Call) -> int:
    return unset_page_directory(call.state, call.client, call.u32(0))


def _copy_reserved(call: Call) -> int:
    state, report = call.state, call.state.report
    space = state.space(call.client, call.node.handle)
    shifts = _SHIFTS[state.chip.tables]
    count = call.u32(0x20)
    if space is None:
        return Status.INVALID_OBJECT
    if (call.u64(0x10), call.u64(0x18)) != _RESERVED or call.u64(8) != _RESERVED_PAGE:
        report("reserved-range", f"{call.u64(0x10):#x} to {call.u64(0x18):#x}, page {call.u64(8):#x}")
        return Status.INVALID_ARGUMENT
    if count != len(shifts):
        report("reserved-levels", f"{count} levels, expected {len(shifts)}")
        return Status.INVALID_ARGUMENT
    levels = [_LEVEL.unpack_from(call.params, 0x28 + _LEVEL.size * index) for index in range(count)]
    for (address, size, aperture, shift), wanted in zip(levels, shifts, strict=True):
        if shift != wanted or aperture != 1 or not state.layout.clear(address, size):
            report("reserved-levels", f"shift {shift} (expected {wanted}), aperture {aperture}, {size:#x} bytes at {address:#x}")
            return Status.INVALID_ARGUMENT
    return Status.OK


def _memsys(call: Call) -> int:
    call.zero()
    return Status.OK


def _raw_mode(call: Call) -> int:
    return Status.OK


def _compbits(call: Call) -> int:
    call.zero()
    return Status.OK


def _memory(state: State, client: int, handle: int) -> MemoryList | None:
    node = state.tree.find(client, handle)[1]
    return node.data if node is not None and isinstance(node.data, MemoryList) else None


def _save_init(call: Call) -> int:
    state = call.state
    client, handle = (call.u32(8), call.u32(0xC)) if state.version.region_controls else (call.u32(0), call.u32(4))
    memory = _memory(state, client, handle)
    if memory is None or not memory.system:
        state.report("suspend-memory", f"no system memory list {handle:#x} in client {client:#x}")
        return Status.OBJECT_NOT_FOUND
    state.suspend_prepared = True
    return Status.OK


def _region_or_scheduling(call: Call) -> int:
    state = call.state
    if state.version.region_controls:
        # the region's description holds client and memory list at 0x4 and 0x8 (FBSR_SEND_REGION_INFO)
        return Status.OK if state.suspend_prepared else Status.INVALID_STATE
    state.scheduling_disabled = bool(call.params[0])
    for channel in state.channels.values():
        if channel.enabled:
            state.env.channels.set_enabled(channel.runlist, channel.chid, not state.scheduling_disabled)
    return Status.OK


CONTROLS: Final[dict[int, Control]] = {
    0x00801813: Control("DMA_SET_PAGE_DIRECTORY", ("device",), 32, _set),
    0x00801814: Control("DMA_UNSET_PAGE_DIRECTORY", ("device",), 8, _unset),
    0x90F10106: Control("VASPACE_COPY_SERVER_RESERVED_PDES", ("address space",), 184, _copy_reserved),
    0x20800A1C: Control("INTERNAL_MEMSYS_GET_STATIC_CONFIG", _SUB, lambda version: version.memsys_size, _memsys),
    0x20800A6F: Control("INTERNAL_MEMSYS_PROGRAM_RAW_COMPRESSION_MODE", _SUB, 1, _raw_mode),
    0x00801306: Control("FB_GET_COMPBIT_STORE_INFO", ("device",), lambda version: version.compbit_size, _compbits),
    0x20800AC2: Control("INTERNAL_FBSR_INIT", _SUB, lambda version: version.fbsr_size, _save_init),
    0x20800AC3: Control("FBSR_SEND_REGION_INFO or FIFO_TOGGLE", _SUB, lambda v: 40 if v.region_controls else 1, _region_or_scheduling),
}
"""Controls of this topic, by number."""
