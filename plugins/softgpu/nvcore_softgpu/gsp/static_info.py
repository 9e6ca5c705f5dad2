"""GET_GSP_STATIC_INFO: what the driver learns about the GPU in one structure.

Owns the filling, never the facts. Runs on the caller's thread under the device's lock.
Source: open-gpu-kernel-modules 570.144 and 535.113.01, gsp_static_config.h, ctrl2080fb.h (FB regions), ctrl0080gpu.h (SR-IOV).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from nvcore_softgpu.gsp.conventions import GpuFacts
from nvcore_softgpu.gsp.layout import Layout
from nvcore_softgpu.gsp.versions import Version

__all__ = ["INTERNAL_CLIENT", "INTERNAL_DEVICE", "INTERNAL_SUBDEVICE", "gid_block", "region_block", "sriov_block", "static_info", "wide"]

INTERNAL_CLIENT = 0xC2000001  # handles of the firmware's own objects, which static info tells to the driver
INTERNAL_DEVICE = 0xABCD0080  # below the client
INTERNAL_SUBDEVICE = 0xABCD2080  # below the device
_REGION = struct.Struct("<QQQI4B16x")  # base, limit, reserved, performance, compressed, ISO, protected, first block flag
_MAX_REGIONS = 16
_GID_BINARY = 2


def wide(text: str) -> bytes:
    """UTF-16 of an ASCII text. Not by the codec: its first use imports it, and nothing may import under the device's lock."""
    return b"".join(bytes((letter, 0)) for letter in text.encode("ascii"))


def region_block(layout: Layout) -> bytes:
    """NV2080_CTRL_CMD_FB_GET_FB_REGION_INFO_PARAMS: usable ranges first, then the GSP's own top."""
    entries = [_REGION.pack(first, end - 1, 0, 10, 1, 1, 0, 0) for first, end in layout.usable[: _MAX_REGIONS - 1]]
    if layout.top < layout.vram_size:
        entries.append(_REGION.pack(layout.top, layout.vram_size - 1, layout.vram_size - layout.top, 0, 0, 0, 1, 0))
    return struct.pack("<Q", len(entries)) + b"".join(entries).ljust(_MAX_REGIONS * _REGION.size, b"\0")


def sriov_block(sriov: Mapping[str, int], enabled: bool, size: int) -> bytes:
    """NV0080_CTRL_GPU_GET_SRIOV_CAPS_PARAMS."""
    get = sriov.get
    block = struct.pack("<IIIx3x", get("total_vfs", 0), get("first_vf_offset", 0), 0)
    block += struct.pack("<6Q", *(get(f"bar{n}_address", 0) for n in range(3)), *(get(f"bar{n}_size", 0) for n in range(3)))
    wide = [1 if get(f"bar{n}_size", 0) > 0 and n > 0 else 0 for n in range(3)]
    block += bytes([*wide, 1 if enabled and sriov else 0, 0, 0, 0])
    return block.ljust(size, b"\0")


def gid_block(uuid: bytes) -> bytes:
    """NV2080_CTRL_GPU_GET_GID_INFO_PARAMS in binary form."""
    return struct.pack("<III", 0, _GID_BINARY, len(uuid)) + uuid.ljust(256, b"\0")


def static_info(
    version: Version, layout: Layout, name: str, facts: GpuFacts, sriov: Mapping[str, int], *, sriov_enabled: bool, uuid: bytes
) -> bytearray:
    """GspStaticConfigInfo of one version, complete."""
    at = version.static_info
    info = bytearray(at.size)

    def put(offset: int, data: bytes) -> None:
        info[offset : offset + len(data)] = data

    put(at.gid, gid_block(uuid))
    put(at.regions, region_block(layout))
    put(at.sriov, sriov_block(sriov, sriov_enabled, at.sriov_size))
    struct.pack_into("<I", info, at.max_gfid, sriov.get("total_vfs", 0) + 1 if sriov else 0)
    struct.pack_into("<Q", info, at.fb_length, layout.vram_size)
    struct.pack_into("<II", info, at.fb_bus_width, facts.bus_width, facts.ram_type)
    struct.pack_into("<I", info, at.l2_size, facts.l2_size)
    put(at.name, name.encode("ascii")[:63])
    put(at.short_name, facts.short_name.encode("ascii")[:63])
    put(at.unicode_name, wide(name[:63]))
    struct.pack_into("<QQ", info, at.bar1_pde, *layout.directories)
    struct.pack_into("<III", info, at.handles, INTERNAL_CLIENT, INTERNAL_DEVICE, INTERNAL_SUBDEVICE)
    if at.gpc is not None:
        struct.pack_into("<I", info, at.gpc, facts.gpc_mask)
        for gpc in range(32):
            present = facts.gpc_mask >> gpc & 1
            struct.pack_into("<II", info, at.gpc + 4 + 8 * gpc, gpc, facts.tpc_mask if present else 0)
    if at.wpr_layout is not None:
        struct.pack_into("<QQ", info, at.wpr_layout, layout.non_wpr_heap, layout.frts)
    return info
