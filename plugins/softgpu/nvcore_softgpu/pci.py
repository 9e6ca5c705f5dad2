"""Configuration space: 4096 bytes with what may be written and what a write does.

Owns identity, BAR registers, the capabilities PM, MSI and PCI Express, and the extended capability SR-IOV. Calls back when bus mastering
changes, and at a function-level reset. Runs under the device's lock.
Source: PCI Express Base Specification 5.0, 7.5 and 9.3; device-model.md 2.1; place of the SR-IOV capability: open-gpu-kernel-modules
570.144 dev_nv_xve.h. VF counts and sizes are model conventions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from nvcore_softgpu.chips import Chip

__all__ = ["MSI_AT", "SRIOV_AT", "ConfigSpace"]

SIZE: Final = 4096
PM_AT, MSI_AT, PCIE_AT = 0x60, 0x68, 0x78
SERIAL_AT, SRIOV_AT = 0x100, 0xBCC
COMMAND: Final = 0x04
BUS_MASTER: Final = 1 << 2


class ConfigSpace:
    """Configuration space of a physical function. bars: index to size; 64-bit prefetchable except BAR0.

    on_bus_master(bool), on_reset(): called after the write that changes them took effect.
    """

    def __init__(
        self,
        chip: Chip,
        bars: Mapping[int, int],
        on_bus_master: Callable[[bool], None],
        on_reset: Callable[[], None],
    ) -> None:
        self._chip = chip
        self.bars = dict(bars)
        self.bytes = bytearray(SIZE)
        self._mask = bytearray(SIZE)
        self._on_bus_master = on_bus_master
        self._on_reset = on_reset
        self.functions = 0
        self.power_on()

    # --- contents -----------------------------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """Reset values; BAR addresses as start-up firmware left them (model convention)."""
        self.bytes[:] = bytes(SIZE)
        self._mask[:] = bytes(SIZE)
        self.functions = 0
        device = self._chip.device_id
        self._put(0x00, "<HHHHIBBBB", 0x10DE, device, 0, 0x0010, 0x030200 << 8 | 0xA1, 0, 0, 0, 0)
        self._put(0x2C, "<HH", 0x10DE, 0x134F)
        self._put(0x34, "<B", PM_AT)
        self._allow(COMMAND, 0x0546, 2)
        self._allow(0x0C, 0xFF, 1)
        self._allow(0x3C, 0xFF, 1)
        self._bar(0x10, 0, self.bars[0], 0x90000000)
        address = 0x2000_0000_0000
        for index in (1, 3):
            if index in self.bars:
                self._bar(0x10 + 4 * index, 0xC, self.bars[index], address)
                address += -(-self.bars[index] // (1 << 36)) << 36
        self._put(PM_AT, "<BBHI", 0x01, MSI_AT, 0x0003, 0x00000008)
        self._allow(PM_AT + 4, 0x3, 2)
        self._put(MSI_AT, "<BBHIII", 0x05, PCIE_AT, 0x0080, 0, 0, 0)
        self._allow(MSI_AT + 2, 0x0071, 2)
        self._allow(MSI_AT + 4, 0xFFFFFFFC, 4)
        self._allow(MSI_AT + 8, 0xFFFFFFFF, 4)
        self._allow(MSI_AT + 12, 0xFFFF, 4)
        self._express()
        self._extended(address)

    def _express(self) -> None:
        """PCI Express capability, version 2, endpoint, function-level reset, 16 GT/s x16."""
        self._put(PCIE_AT, "<BBHIHHIHH", 0x10, 0, 0x0002, 0x10008001, 0, 0, 0x00456104, 0, 0x1104)
        self._put(PCIE_AT + 0x24, "<IHHIHH", 0x00000010, 0, 0, 0x0000001E, 0x0004, 0)
        self._allow(PCIE_AT + 0x08, 0x7FFF, 2)
        self._allow(PCIE_AT + 0x10, 0x01F3, 2)
        self._allow(PCIE_AT + 0x28, 0x03FF, 2)
        self._allow(PCIE_AT + 0x30, 0x00FF, 2)

    def _extended(self, address: int) -> None:
        """Serial number, then SR-IOV."""
        sriov = self._chip.sriov
        self._put(SERIAL_AT, "<IQ", SRIOV_AT << 20 | 1 << 16 | 0x0003, 0x134F_0000_0000_0000 | self._chip.device_id)
        self._put(SRIOV_AT, "<IIHHHHHBB", 1 << 16 | 0x0010, 0, 0, 0, sriov.total_vfs, sriov.total_vfs, 0, 0, 0)
        self._put(SRIOV_AT + 0x14, "<HHHHII", sriov.first_vf_offset, sriov.stride, 0, sriov.vf_device, 0x553, 1)
        self._allow(SRIOV_AT + 0x08, 0x0019, 2)
        self._allow(SRIOV_AT + 0x10, 0xFFFF, 2)
        self._allow(SRIOV_AT + 0x20, 0x1, 4)
        place = SRIOV_AT + 0x24
        self._bar(place, 0, sriov.bar0, 0xA0000000)
        for size in (sriov.bar1, sriov.bar2):
            place += 4 if place == SRIOV_AT + 0x24 else 8
            self._bar(place, 0xC, size, address)
            address += -(-size * sriov.total_vfs // (1 << 36)) << 36

    def _bar(self, place: int, kind: int, size: int, address: int) -> None:
        if kind == 0xC:
            self._put(place, "<Q", address | kind)
            mask = -size & 0xFFFFFFFFFFFFFFF0
            self._allow(place, mask & 0xFFFFFFFF, 4)
            self._allow(place + 4, mask >> 32, 4)
        else:
            self._put(place, "<I", address | kind)
            self._allow(place, -size & 0xFFFFFFF0, 4)

    def _put(self, place: int, layout: str, *values: int) -> None:
        struct.pack_into(layout, self.bytes, place, *values)

    def _allow(self, place: int, mask: int, size: int) -> None:
        self._mask[place : place + size] = mask.to_bytes(size, "little")

    # --- accesses -----------------------------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """Bytes; all ones outside."""
        data = bytes(self.bytes[offset : offset + size])
        return data + b"\xff" * (size - len(data))

    def write(self, offset: int, data: bytes) -> None:
        """Store what may be written, then act on what changed."""
        reset = False
        for place, value in enumerate(data, offset):
            if 0 <= place < SIZE:
                mask = self._mask[place]
                self.bytes[place] = self.bytes[place] & ~mask & 0xFF | value & mask
                reset = reset or (place == PCIE_AT + 0x09 and bool(value & 0x80))
        end = offset + len(data)
        if offset < COMMAND + 2 and end > COMMAND:
            self._on_bus_master(self.bus_master)
        if offset < SRIOV_AT + 0x12 and end > SRIOV_AT + 0x08:
            self._functions_changed()
        if reset:
            self._on_reset()

    @property
    def bus_master(self) -> bool:
        """Whether the function may reach memory."""
        return bool(self.bytes[COMMAND] & BUS_MASTER)

    def set_bus_master(self, enabled: bool) -> None:
        """The command bit, as a write would set it."""
        value = self.bytes[COMMAND] | BUS_MASTER if enabled else self.bytes[COMMAND] & ~BUS_MASTER
        self.write(COMMAND, bytes((value, self.bytes[COMMAND + 1])))

    def set_functions(self, count: int) -> None:
        """NumVFs, VF Enable and VF MSE, in the order that the specification asks for."""
        self.write(SRIOV_AT + 0x08, b"\0\0")
        self.write(SRIOV_AT + 0x10, count.to_bytes(2, "little"))
        if count:
            self.write(SRIOV_AT + 0x08, b"\x09\0")

    def _functions_changed(self) -> None:
        enabled = self.bytes[SRIOV_AT + 0x08] & 1
        count = int.from_bytes(self.bytes[SRIOV_AT + 0x10 : SRIOV_AT + 0x12], "little")
        count = min(count, self._chip.sriov.total_vfs) if enabled else 0
        self.functions = count

    def place(self) -> dict[str, int]:
        """Where the function is and what it is, by the names of GspSystemInfo."""
        (bar0,) = struct.unpack_from("<I", self.bytes, 0x10)
        bar1, bar3 = (struct.unpack_from("<Q", self.bytes, 0x10 + 4 * index)[0] for index in (1, 3))
        identity, subsystem = struct.unpack_from("<I", self.bytes, 0)[0], struct.unpack_from("<I", self.bytes, 0x2C)[0]
        return {
            "gpuPhysAddr": bar0 & ~0xF, "gpuPhysFbAddr": bar1 & ~0xF, "gpuPhysInstAddr": bar3 & ~0xF,
            "pciConfigMirrorBase": self._chip.mirror, "pciConfigMirrorSize": 0x1000,
            "PCIDeviceID": identity, "PCISubDeviceID": subsystem, "PCIRevisionID": self.bytes[8],
        }  # fmt: skip

    def sriov(self) -> dict[str, int]:
        """The facts of the SR-IOV capability that the firmware reads: counts, sizes, addresses."""
        facts = self._chip.sriov
        (bar0,) = struct.unpack_from("<I", self.bytes, SRIOV_AT + 0x24)
        bar1, bar2 = struct.unpack_from("<QQ", self.bytes, SRIOV_AT + 0x28)
        return {
            "total_vfs": facts.total_vfs, "first_vf_offset": facts.first_vf_offset, "stride": facts.stride, "enabled": self.functions,
            "bar0_size": facts.bar0, "bar1_size": facts.bar1, "bar2_size": facts.bar2,
            "bar0_address": bar0 & ~0xF, "bar1_address": bar1 & ~0xF, "bar2_address": bar2 & ~0xF,
        }  # fmt: skip
