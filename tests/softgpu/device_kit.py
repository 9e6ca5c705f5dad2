"""What the device tests share: a card with a tiny GSP that only records, and a driver that boots it register by register."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from nvcore.api.clock import SYSTEM, Clock
from nvcore_softgpu.chips import chip_named
from nvcore_softgpu.device import Card, SoftDevice
from nvcore_softgpu.ports import Environment

MIB = 1 << 20
VRAM = 1 << 30
WPR_MAGIC = 0xDC3AAE21371A60B3


class RecordingGsp:
    """A GSP that starts, counts and faults nothing."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.running = False
        self.calls: list[tuple[object, ...]] = []
        self.meta: Mapping[str, int] = {}

    def start(self, meta: Mapping[str, int], libos_arguments: int) -> str | None:
        self.calls.append(("start", libos_arguments))
        self.meta = meta
        self.running = True
        return None

    def resume(self, meta: Mapping[str, int]) -> str | None:
        self.calls.append(("resume",))
        self.running = True
        return None

    def doorbell(self) -> None:
        self.calls.append(("doorbell",))
        self.environment.raise_message()

    def vgpu_doorbell(self, gfid: int) -> None:
        self.calls.append(("vgpu", gfid))

    def stop(self) -> None:
        self.calls.append(("stop",))
        self.running = False

    def halt(self, cause: str) -> None:
        self.running = False

    def channel_fault(self, runlist: int, chid: int, cause: str, address: int | None) -> None:
        self.calls.append(("fault", runlist, chid, cause, address))

    def view(self) -> dict[str, object]:
        return {"running": self.running}


class Shelf:
    """One image."""

    def __init__(self, image: bytes, signature: bytes, section: str) -> None:
        self.version = "570.144"
        self.image = memoryview(image)
        self._signature, self._section = signature, section

    def candidates(self, chip: str) -> list[Shelf]:
        return [self]

    def signature(self, section: str) -> bytes | None:
        return self._signature if section == self._section else None


def make_card(
    chip: str = "GA100",
    *,
    vram: int = VRAM,
    faults: tuple[str, ...] = (),
    scattered: bool = False,
    shelf: Shelf | None = None,
    clock: Clock = SYSTEM,
) -> tuple[SoftDevice, RecordingGsp]:
    row = chip_named(chip)
    assert row is not None
    card = Card(row, vram, 256 * MIB, RecordingGsp, faults=faults, scattered=scattered, shelf=shelf, clock=clock)
    device = SoftDevice(card, f"softgpu:{chip.lower()}")
    gsp = card.model.gsp
    assert isinstance(gsp, RecordingGsp)
    return device, gsp


class Driver:
    """The steps of gsp-boot.md 7.1 (GA100) and 7.5 (GH100), without any of nvcore's own code."""

    def __init__(self, device: SoftDevice, image: bytes | None = None, signature: bytes | None = None) -> None:
        self.device = device
        self.bar0 = device.bars[0]
        self.image = image if image is not None else b"\x7fELF" + bytes(range(256)) * 1200
        self.signature = signature if signature is not None else b"\x01\x00\x02\x00" * 1024
        self.buffers = []
        device.set_bus_master(True)

    def buffer(self, data: bytes, label: str = "x"):
        buffer = self.device.allocate_dma(len(data), label=label)
        buffer.view[: len(data)] = data
        self.buffers.append(buffer)
        return buffer

    def radix3(self) -> int:
        pages = -(-len(self.image) // 4096)
        data = self.buffer(self.image, "image")
        level2 = self.buffer(b"".join(struct.pack("<Q", data.bus_address(4096 * i)) for i in range(pages)), "l2")
        level1 = self.buffer(b"".join(struct.pack("<Q", level2.bus_address(4096 * i)) for i in range(-(-pages // 512))), "l1")
        return self.buffer(struct.pack("<Q", level1.bus_address()), "l0").bus_address()

    def meta(self, **changes: int) -> int:
        vram = self.device.card.model.memory.vram_size
        chip = self.device.card.model.chip
        end = vram - MIB
        boot = end - 0x1000
        image = (boot - len(self.image)) // 0x10000 * 0x10000
        heap = (image - 64 * MIB) // MIB * MIB
        fields = {
            "magic": WPR_MAGIC, "revision": 1, "radix3": self.radix3(), "size": len(self.image),
            "boot": self.buffer(bytes(0x1000), "boot").bus_address(), "boot_size": 0x1000, "code": 0, "data": 0, "manifest": 0,
            "signature": self.buffer(self.signature, "sig").bus_address(), "signature_size": 4096, "reserved": heap - 2 * MIB,
            "other": heap - 2 * MIB, "other_size": MIB, "start": heap - MIB, "heap": heap, "heap_size": 64 * MIB, "image": image,
            "bin": boot, "frts": end, "frts_size": 0, "end": end, "fb": vram, "vga": end, "vga_size": MIB, "count": 0,
        }  # fmt: skip
        if chip.flow == "fsp":
            for name in ("reserved", "other", "start", "heap", "image", "bin", "frts", "end", "fb", "vga"):
                fields[name] = 0
            fields.update(frts_size=MIB, other_size=2 * MIB, vga_size=0x20000)
        fields.update(changes)
        return self.buffer(struct.pack("<26Q", *fields.values()) + bytes(48), "meta").bus_address()

    def reset(self, base: int) -> None:
        self.bar0.write32(base + 0x3C0, 1)
        self.bar0.write32(base + 0x3C0, 0)

    def load(self, base: int, code: bytes = b"\xaa" * 0x400) -> None:
        self.bar0.write32(base + 0x180, 0x01000000)
        self.bar0.write_port(base + 0x184, code)

    def run_sec2(self, address: int) -> int:
        self.reset(0x840000)
        self.load(0x840000)
        self.bar0.write32(0x840040, address & 0xFFFFFFFF)
        self.bar0.write32(0x840044, address >> 32)
        self.bar0.write32(0x840104, 0)
        self.bar0.write32(0x840100, 2)
        assert self.bar0.read32(0x840100) & 0x10
        return self.bar0.read32(0x840040)

    def boot(self, **changes: int) -> int:
        self.reset(0x110000)
        arguments = 0x12345000
        self.bar0.write32(0x110040, arguments)
        self.bar0.write32(0x110044, 0)
        return self.run_sec2(self.meta(**changes))

    def unload(self) -> int:
        self.device.card.model.gsp.running = False
        self.bar0.write32(0x840040, 0xFF)
        return self.run_sec2(0xFF000000FF)


def names(device: SoftDevice) -> list[str]:
    return [violation.name for violation in device.model.violations]
