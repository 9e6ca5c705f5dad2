"""The first two messages of a boot: system information and registry, read back by their published layouts."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from nvcore.api.errors import FormatError
from nvcore.api.needs import NO_NEEDS
from nvcore_fw_gsp.abi import load
from nvcore_fw_gsp.boot.sysinfo import registry, sriov_info, system_info

BASE = {"RMSecBusResetEnable": 1, "RMForcePcieConfigSave": 1, "RMDevidCheckIgnore": 1}


def entries(table: bytes) -> dict[str, tuple[int, int, int]]:
    """Name → (type, value, length) of a PACKED_REGISTRY_TABLE."""
    size, count = struct.unpack_from("<II", table)
    assert size == len(table)
    found = {}
    for index in range(count):
        at, kind, value, length = struct.unpack_from("<IB3xII", table, 8 + index * 16)
        found[table[at : table.index(b"\0", at)].decode()] = kind, value, length
    return found


@pytest.mark.parametrize(
    ("settings", "host", "more"),
    [({}, False, {}), ({}, True, {"RMSetSriovMode": 1}), ({"RmA": 7, "RMSetSriovMode": 0}, True, {"RmA": 7, "RMSetSriovMode": 0}),
     ({"RMDevidCheckIgnore": -1}, False, {"RMDevidCheckIgnore": 0xFFFFFFFF})],
)  # fmt: skip
def test_every_key_is_a_word_of_four_bytes_and_a_client_s_wins(settings, host, more):
    assert entries(registry(settings, vgpu_host=host)) == {name: (1, value, 4) for name, value in {**BASE, **more}.items()}


class Device:
    """Configuration space as bytes."""

    def __init__(self) -> None:
        self.identity = SimpleNamespace(address="0001:c1:02.3")
        self.config = bytearray(4096)
        struct.pack_into("<HH", self.config, 0, 0x10DE, 0x20F1)
        self.config[8] = 0xA1
        struct.pack_into("<6I", self.config, 0x10, 0xF0000000, 0x0000000C, 0x40, 0x0000000C, 0x80, 0)
        struct.pack_into("<HH", self.config, 0x2C, 0x10DE, 0x145F)
        struct.pack_into("<I", self.config, 0x100, 0x200_0_0001)  # advanced errors, then SR-IOV
        struct.pack_into("<I", self.config, 0x200, 0x0010)
        struct.pack_into("<H4xH", self.config, 0x20E, 16, 4)
        struct.pack_into("<6I", self.config, 0x224, 0x1000, 0x0000000C, 0x50, 0x0000000C, 0x90, 0)

    def config_read(self, at: int, size: int) -> bytes:
        return bytes(self.config[at : at + size])


@pytest.mark.parametrize("version", ["570.144", "535.113.01"])
@pytest.mark.parametrize("host", [False, True])
def test_the_firmware_is_told_where_the_device_is_and_of_its_functions_where_it_serves_them(version, host):
    abi, device = load(version), Device()
    layout = abi.struct("GspSystemInfo")
    raw = system_info(abi, device, NO_NEEDS, mirror=0x88000, host_functions=host)  # type: ignore[arg-type]

    def get(name: str) -> Any:
        return layout.get(raw, name)

    assert (get("gpuPhysAddr"), get("gpuPhysFbAddr"), get("gpuPhysInstAddr")) == (0xF0000000, 0x40 << 32, 0x80 << 32)
    assert get("nvDomainBusDeviceFunc") == 1 << 32 | 0xC1 << 8 | 2 << 3 | 3
    assert (get("maxUserVa"), get("pciConfigMirrorBase"), get("pciConfigMirrorSize")) == (0x7FFFFFFFF000, 0x88000, 0x1000)
    if layout.has("PCIDeviceID"):
        assert (get("PCIDeviceID"), get("PCISubDeviceID"), get("PCIRevisionID")) == (0x20F110DE, 0x145F10DE, 0xA1)
    told = {"totalVFs": 16, "firstVFOffset": 4, "FirstVFBar0Address": 0x1000, "FirstVFBar1Address": 0x50 << 32,
            "FirstVFBar2Address": 0x90 << 32, "b64bitBar0": 0, "b64bitBar1": 1, "b64bitBar2": 1}  # fmt: skip
    assert {name: int(get(f"gspVFInfo.{name}")) for name in told} == (told if host else dict.fromkeys(told, 0))


@pytest.mark.parametrize(("at", "header", "info"), [(0x100, 0, {}), (0x100, 0xFFFFFFFF, {}), (0x100, 0x0001, {})])
def test_a_device_without_the_capability_has_no_functions(at, header, info):
    device = Device()
    struct.pack_into("<I", device.config, at, header)
    assert sriov_info(device) == info  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [0x100, 0x040])
def test_a_list_of_capabilities_without_an_end_is_refused(after):
    device = Device()
    struct.pack_into("<I", device.config, 0x100, after << 20 | 1)
    with pytest.raises(FormatError, match="does not end"):
        sriov_info(device)  # type: ignore[arg-type]
