"""The two messages that wait in the command queue when the firmware starts: system information and registry keys.

Owns nothing; reads the device's configuration space. The opener's thread.
Source: open-gpu-kernel-modules gsp_static_config.h, rpc.c (rpcGspSetSystemInfo, rpcSetRegistry) at the version's tag; nova-core
gsp/commands.rs.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from nvcore.api.device import Device
from nvcore.api.errors import FormatError, UsageError
from nvcore.api.needs import BootNeeds
from nvcore_fw_gsp.abi import Abi

__all__ = ["BASE_KEYS", "registry", "sriov_info", "system_info"]

BASE_KEYS: Final[Mapping[str, int]] = {"RMSecBusResetEnable": 1, "RMForcePcieConfigSave": 1, "RMDevidCheckIgnore": 1}
"""Registry keys that every boot passes, as nova-core does; needs may add to them."""

_SRIOV: Final = 0x0010
_DWORD: Final = 1
_TABLE: Final = struct.Struct("<II")
_ENTRY: Final = struct.Struct("<IB3xII")


def _bar_addresses(config: bytes) -> list[int]:
    """Bus addresses of the three memory windows, 64-bit pairs joined."""
    found: list[int] = []
    at = 0
    words = struct.unpack_from("<6I", config, 0x10)
    while at < 6 and len(found) < 3:
        low = words[at]
        wide = low & 6 == 4 and at < 5
        found.append((low & ~0xF) | (words[at + 1] << 32 if wide else 0))
        at += 2 if wide else 1
    return found + [0] * (3 - len(found))


def sriov_info(device: Device) -> dict[str, int]:
    """GSP_VF_INFO by member name, from the SR-IOV capability; empty without one. Raises FormatError for a chain without end."""
    at, seen = 0x100, 0
    while at:
        header = int.from_bytes(device.config_read(at, 4), "little")
        if header in (0, 0xFFFFFFFF):
            return {}
        if header & 0xFFFF == _SRIOV:
            break
        seen += 1
        at = header >> 20 & 0xFFC
        if seen > 64 or 0 < at < 0x100:
            raise FormatError(
                "the list of extended capabilities does not end", seen=f"{seen} entries, next {at:#x}", where="configuration space"
            )
    if not at:
        return {}
    capability = device.config_read(at, 0x40)
    total, offset = struct.unpack_from("<H4xH", capability, 0x0E)
    words = struct.unpack_from("<6I", capability, 0x24)
    info = {"totalVFs": total, "firstVFOffset": offset}
    slot = 0
    for index in range(3):
        low = words[slot]
        wide = low & 6 == 4
        info[f"FirstVFBar{index}Address"] = (low & ~0xF) | (words[slot + 1] << 32 if wide else 0)
        info[f"b64bitBar{index}"] = int(wide)
        slot += 2 if wide or index else 1
    return info


def system_info(abi: Abi, device: Device, needs: BootNeeds, *, mirror: int, host_functions: bool) -> bytearray:
    """GspSystemInfo. mirror: where BAR0 shows the configuration space. host_functions: tell the firmware about the virtual functions."""
    config = device.config_read(0, 0x40)
    bars = _bar_addresses(config)
    address = device.identity.address
    domain, bus, rest = address.split(":")
    slot, _, function = rest.partition(".")
    layout = abi.struct("GspSystemInfo")
    values: dict[str, int] = {
        "gpuPhysAddr": bars[0],
        "gpuPhysFbAddr": bars[1],
        "gpuPhysInstAddr": bars[2],
        "nvDomainBusDeviceFunc": int(domain, 16) << 32 | int(bus, 16) << 8 | int(slot, 16) << 3 | int(function or "0", 16),
        "maxUserVa": (1 << 47) - 4096,
        "pciConfigMirrorBase": mirror,
        "pciConfigMirrorSize": 0x1000,
    }
    if layout.has("PCIDeviceID"):
        vendor, identity = struct.unpack_from("<HH", config, 0)
        sub_vendor, sub_device = struct.unpack_from("<HH", config, 0x2C)
        values |= {"PCIDeviceID": identity << 16 | vendor, "PCISubDeviceID": sub_device << 16 | sub_vendor, "PCIRevisionID": config[8]}
    if host_functions:
        values |= {f"gspVFInfo.{name}": value for name, value in sriov_info(device).items()}
    return layout.pack(values)


def registry(settings: Mapping[str, int], *, vgpu_host: bool) -> bytes:
    """PACKED_REGISTRY_TABLE with the base keys, the vGPU host's, and the clients' settings (which win). Raises UsageError."""
    keys = dict(BASE_KEYS)
    if vgpu_host:
        keys["RMSetSriovMode"] = 1
    keys.update(settings)
    at = _TABLE.size + _ENTRY.size * len(keys)
    entries, names = bytearray(), bytearray()
    for name, value in keys.items():
        if not (name and name.isascii() and name.isprintable()):
            raise UsageError(
                "a client asks for a firmware setting whose name cannot be written",
                expected="printable ASCII",
                seen=ascii(name),
                remedy="correct the client's boot needs",
            )
        entries += _ENTRY.pack(at + len(names), _DWORD, value & 0xFFFFFFFF, 4)
        names += name.encode("ascii") + b"\0"
    return _TABLE.pack(at + len(names), len(keys)) + bytes(entries) + bytes(names)
