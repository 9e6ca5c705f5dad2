"""Host memory of a boot, and the ROM: what the bus gives and what the GPU can reach, and a shadow that is put back."""

from __future__ import annotations

import pytest

from nvcore.api.device import PciIdentity
from nvcore.api.errors import OutOfResources
from nvcore_fw_gsp.boot.fwsec import prepare_fwsec
from nvcore_fw_gsp.boot.io import BootIo
from nvcore_fw_gsp.boot.memory import HostMemory
from nvcore_fw_gsp.boot.vbios_sources import vbios_sources
from nvcore_fw_gsp.images.container import GenericBootloader
from nvcore_fw_gsp.vbios.errors import VbiosError

from . import image_files, rom_files
from .memory_source import MemorySource
from .test_boot_sequencer import Bar
from .test_queue_rings import Clock

SHADOW, PRODUCTION, PROM = 0x088050, 0x82074C, 0x300000
IDENTITY = PciIdentity("0000:41:00.0", 0x10DE, 0x20B0, 0x10DE, 0x134F, 0xA1, 0x030200)


class Buffer:
    """A buffer whose pages lie where it is told."""

    def __init__(self, size: int, addresses: dict[int, int]) -> None:
        self.size, self.view, self._addresses = size, memoryview(bytearray(size)), addresses
        self.closed = False

    def bus_address(self, offset: int) -> int:
        return self._addresses.get(offset, 0x1000)

    def close(self) -> None:
        self.closed = True


class Device:
    """Gives such buffers."""

    def __init__(self, addresses: dict[int, int]) -> None:
        self.addresses, self.made = addresses, list[Buffer]()

    def allocate_dma(self, size: int, *, label: str) -> Buffer:
        self.made.append(Buffer(size, self.addresses))
        return self.made[-1]


@pytest.mark.parametrize("addresses", [{0: 1 << 47}, {0x2000: 1 << 47}])
def test_an_address_that_the_gpu_cannot_reach_is_refused_wherever_in_the_buffer_it_is_and_the_buffer_is_freed_in_the_end(addresses):
    device = Device(addresses)
    memory = HostMemory(device, 47)  # type: ignore[arg-type]
    with pytest.raises(OutOfResources, match="cannot reach for image"):
        memory.allocate("image", 0x2001)
    memory.close()
    assert [(buffer.size, buffer.closed) for buffer in device.made] == [(0x3000, True)]


def test_the_highest_address_that_can_be_reached_is_taken():
    assert HostMemory(Device({0: (1 << 47) - 0x1000}), 47).allocate("image", 1).size == 0x1000  # type: ignore[arg-type]


class Rom(Bar):
    """A PROM that can be seen only while no shadow lies over it."""

    shadow = 0xABC0_0001

    def __init__(self, rom: bytes) -> None:
        super().__init__()
        self.rom = rom.ljust(0x100000, b"\xff")
        self.values.update({SHADOW: self.shadow, PRODUCTION: 1})

    def read(self, offset: int, size: int) -> bytes:
        hidden = self.values[SHADOW] & 1
        return b"\xff" * size if hidden else self.rom[offset - PROM : offset - PROM + size]


@pytest.mark.parametrize("sound", [True, False])
def test_the_shadow_over_the_rom_is_taken_off_for_the_reading_and_put_back_whatever_was_read(sound):
    bar = Rom(rom_files.rom(rom_files.ucode_v2()) if sound else b"")
    memory, generic = HostMemory(Device({}), 47), GenericBootloader(MemorySource(image_files.generic()))  # type: ignore[arg-type]
    try:
        io = BootIo(bar, Clock(), 1.0)  # type: ignore[arg-type]
        sources = vbios_sources(io, IDENTITY, ())
        found = prepare_fwsec(io, memory, generic, sources)  # type: ignore[arg-type]
        assert sound and found.version == 2
    except VbiosError:
        assert not sound
    assert bar.writes == [(SHADOW, Rom.shadow & ~1), (SHADOW, Rom.shadow)]
