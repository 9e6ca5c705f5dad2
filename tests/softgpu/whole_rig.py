"""A whole GPU, model and firmware together, booted over its registers by a driver's side that shares no code with either."""

from __future__ import annotations

import os
import struct
from types import SimpleNamespace

from nvcore.testing import VirtualClock
from nvcore_softgpu.chips import chip_named
from nvcore_softgpu.device import Card, SoftDevice
from nvcore_softgpu.gsp import make_gsp
from nvcore_softgpu.gsp.versions import VERSIONS
from nvcore_softgpu.memory import sealed_memfd
from nvcore_softgpu.ports import Aperture
from tests.softgpu import gsp_rig
from tests.softgpu.device_kit import MIB, VRAM
from tests.softgpu.device_kit import Driver as Booter
from tests.softgpu.test_device_boot import fsp_boot

CASES = [("GA100", "570.144"), ("GA100", "535.113.01"), ("GH100", "570.144")]
REGIONS = ((gsp_rig.SHARED, MIB), (0x20000000, MIB), (0x30000000, MIB))
"""What the queues' side has in host memory: the message queues, the boot arguments with the logs, an image that is not used here."""


class HostMemory:
    """Memory of the device, with the driver's own regions mapped beforehand."""

    def __init__(self, device: SoftDevice) -> None:
        self._memory = memory = device.card.model.memory
        self.vram_size = memory.vram_size
        for address, size in REGIONS:
            fd = sealed_memfd("driver", size)
            memory.map_file(address, size, fd, 0)
            os.close(fd)

    def grant(self, address: int, size: int) -> None:
        assert any(start <= address and address + size <= start + length for start, length in REGIONS)

    def _view(self, address: int, size: int) -> memoryview:
        # a driver reaches its own memory whatever the device may do
        return next(entry.view[address - entry.start :][:size] for entry in self._memory._maps if entry.start <= address < entry.end)

    def read(self, aperture: Aperture, address: int, size: int) -> bytes:
        return bytes(self._view(address, size))

    def write(self, aperture: Aperture, address: int, data: bytes) -> None:
        self._view(address, len(data))[:] = data


class Whole(gsp_rig.Driver):
    """The queues of a driver in front of a whole GPU; `gsp` is the register that rings for them."""

    def __init__(self, chip: str, version: str = "570.144") -> None:
        row = chip_named(chip)
        assert row is not None
        self.clock = VirtualClock()
        self.device = SoftDevice(Card(row, VRAM, 256 * MIB, make_gsp, clock=self.clock), f"softgpu:{chip.lower()}")
        self.model = self.device.card.model
        family = "tu10x" if chip == "GA100" else "ga10x"
        mark = b"nvcore synthetic GSP image\0" + version.encode() + b"\0" + family.encode() + b"\0"
        head = b"\x7fELF" if chip == "GA100" else b"\x97\0\0\0"
        self.booter = Booter(self.device, image=head.ljust(0x800, b"\0") + mark.ljust(0x2000, b"\0"))
        environment = SimpleNamespace(memory=HostMemory(self.device), chip=row, ticker=self)
        super().__init__(environment, version)  # type: ignore[arg-type]
        self.gsp = self  # type: ignore[assignment]

    @property
    def time(self) -> float:
        return self.clock.now()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def doorbell(self) -> None:
        self.device.bars[0].write32(0x110C00, 0)

    def system_info(self) -> bytes:
        data = bytearray(super().system_info())
        for name, value in self.model.place().items():
            place = VERSIONS[self.version].identity.get(name)
            if place is not None:
                data[place[0] : sum(place)] = value.to_bytes(place[1], "little")
        return bytes(data)

    def start(self) -> None:
        """The whole way to a firmware that is up."""
        bar0, booter = self.device.bars[0], self.booter
        self.queue_start()
        booter.reset(0x110000)
        bar0.write32(0x110040, self.libos)
        bar0.write32(0x110044, 0)
        if self.model.chip.flow == "booter":
            assert booter.run_sec2(booter.meta()) == 0
        else:
            assert fsp_boot(self.device, booter, boot_patch={48: struct.pack("<Q", self.libos)}) == (0, 0)
        bar0.write32(0x110080, 1)
        assert self.wait(0x1001) is not None

    def gsp_runs(self) -> bool | str:
        """Whether the firmware is up; "starting" while it waits for something."""
        phase = self.model.gsp.view()["phase"]
        return "starting" if phase == "starting" else phase == "running"

    def close(self) -> None:
        self.device.close()
