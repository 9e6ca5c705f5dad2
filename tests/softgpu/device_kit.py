"""What the device tests share: a card with a tiny GSP that only records, and a driver that boots it register by register."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from nvcore.api.clock import SYSTEM, Clock
from nvcore_softgpu.chips import chip_named
from nvcore_softgpu.device import Card, SoftDevice
from nvcore_softgpu.ports import Environment

MIB = 1 << 20
VRAM = 1 << 30
WPR_MAGIC = 0xDC3AAE21371A60B3
Change = int | Callable[[int], int]


class RecordingGsp:
    """A GSP that starts, counts and faults nothing."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.running = False
        self.calls: list[tuple[object, ...]] = []
        self.meta: Mapping[str, int] = {}

    @property
    def serving(self) -> bool:
        return self.running

    def start(self, meta: Mapping[str, int], libos_arguments: int) -> str | None:
        self.calls.append(("start", libos_arguments))
        self.meta = meta
        self.running = True
        return None

    def resume(self) -> str | None:
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

    def __init__(self, image: bytes, signature: bytes, section: str, *, bootloader: object = None, fmcs: tuple[object, ...] = ()) -> None:
        self.version = "570.144"
        self._bootloader, self._fmcs = bootloader, fmcs
        self.image = memoryview(image)
        self._signature, self._section = signature, section

    def candidates(self, chip: str) -> list[Shelf]:
        return [self]

    def signature(self, section: str) -> bytes | None:
        return self._signature if section == self._section else None

    def bootloader(self, chip: str, version: str) -> object:
        return self._bootloader

    def fmcs(self, chip: str) -> tuple[object, ...]:
        return self._fmcs


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
        for place, done in device.card.model.chip.gfw:
            assert self.bar0.read32(place) == done
        self.set_flush_page()

    def buffer(self, data: bytes, label: str = "x"):
        buffer = self.device.allocate_dma(len(data), label=label)
        buffer.view[: len(data)] = data
        self.buffers.append(buffer)
        return buffer

    def set_flush_page(self) -> None:
        address = self.buffer(bytes(4096), "flush").bus_address()
        if self.device.card.model.chip.flow == "booter":
            self.bar0.write32(0x100C40, address >> 40)
            self.bar0.write32(0x100C10, address >> 8 & 0xFFFFFFFF)
        else:
            self.bar0.write32(0x100A38, address >> 32)
            self.bar0.write32(0x100A34, address & 0xFFFFFFFF)

    def radix3(self) -> int:
        pages = -(-len(self.image) // 4096)
        data = self.buffer(self.image, "image")
        level2 = self.buffer(b"".join(struct.pack("<Q", data.bus_address(4096 * i)) for i in range(pages)), "l2")
        level1 = self.buffer(b"".join(struct.pack("<Q", level2.bus_address(4096 * i)) for i in range(-(-pages // 512))), "l1")
        return self.buffer(struct.pack("<Q", level1.bus_address()), "l0").bus_address()

    def meta(self, **changes: Change) -> int:
        """The WPR meta of an orderly driver, with some fields changed: to a value, or by a function of the right one."""
        vram = self.device.card.model.memory.vram_size
        chip = self.device.card.model.chip
        end = vram - MIB
        frts = end - chip.frts_size
        boot = frts - 0x1000
        image = (boot - len(self.image)) // 0x10000 * 0x10000
        heap = (image - 64 * MIB) // MIB * MIB
        fields = {
            "magic": WPR_MAGIC, "revision": 1, "radix3": self.radix3(), "size": len(self.image),
            "boot": self.buffer(b"boot" * 0x400, "boot").bus_address(), "boot_size": 0x1000, "code": 0, "data": 0, "manifest": 0,
            "signature": self.buffer(self.signature, "sig").bus_address(), "signature_size": 4096, "reserved": heap - 2 * MIB,
            "other": heap - 2 * MIB, "other_size": MIB, "start": heap - MIB, "heap": heap, "heap_size": 64 * MIB, "image": image,
            "bin": boot, "frts": frts, "frts_size": chip.frts_size, "end": end, "fb": vram, "vga": end, "vga_size": MIB, "count": 0,
            "partitions": 0, "pmu": 0, "verified": 0,
        }  # fmt: skip
        if chip.flow == "fsp":
            for name in ("reserved", "other", "start", "heap", "image", "bin", "frts", "end", "fb", "vga"):
                fields[name] = 0
            fields.update(frts_size=MIB, other_size=2 * MIB, vga_size=0x20000, heap_size=92 * MIB, code=0x800, data=0x400)
        fields |= {name: value(fields[name]) if callable(value) else value for name, value in changes.items()}
        *quads, partitions, pmu, verified = fields.values()
        return self.buffer(struct.pack("<26Q32xB3xIQ", *quads, partitions, pmu, verified), "meta").bus_address()

    def reset(self, base: int) -> None:
        self.bar0.write32(base + 0x3C0, 1)
        self.bar0.write32(base + 0x3C0, 0)
        self.bar0.write32(base + 0x84, self.bar0.read32(0))

    def prepare(self, base: int) -> None:
        self.bar0.write32(base + 0x624, self.bar0.read32(base + 0x624) | 0x80)
        self.bar0.write32(base + 0x10C, 0)

    def load(self, base: int, code: bytes = b"\xaa" * 0x400) -> None:
        """A booter: the first block open, the others secure, tagged from 0 on."""
        self.prepare(base)
        for block in range(len(code) // 256):
            self.bar0.write32(base + 0x180, 0x01000000 | (0x10000000 if block else 0) | block << 8)
            self.bar0.write32(base + 0x188, block)
            self.bar0.write_port(base + 0x184, code[256 * block : 256 * block + 256])

    def load_generic(self, base: int) -> None:
        """The bootloader that fetches FWSEC: open, at the top of IMEM, found by its tag."""
        self.prepare(base)
        self.bar0.write32(base + 0x600 + 4 * 4, 5)
        self.bar0.write32(base + 0x180, 0x0100FE00)
        for tag in (0xFD, 0xFE):
            self.bar0.write32(base + 0x188, tag)
            self.bar0.write_port(base + 0x184, b"\x55" * 256)
        self.bar0.write32(base + 0x104, 0xFD00)

    def fwsec(self, command: int, secure: bytes | None = None) -> int:
        """Run FWSEC the way descriptor version 2 asks for: a loader in the falcon, code and data in host memory."""
        rom = self.device.card.model.rom.fwsec
        data = bytearray(rom.data)
        mapper = data.index(b"DMAP")
        place = int.from_bytes(data[mapper + 8 : mapper + 12], "little")
        struct.pack_into("<I", data, mapper + 0x2C, command)
        struct.pack_into("<IIQII", data, place, 1, 24, 0, 0, 2)
        code = rom.code if secure is None else rom.code[:0x100] + secure
        code_at, data_at = self.buffer(code, "code").bus_address(), self.buffer(bytes(data), "data").bus_address()
        self.reset(0x110000)
        self.load_generic(0x110000)
        descriptor = bytes(32) + struct.pack("<IQIIIIIQIII", 4, code_at, 0, 0x100, 0x100, 0x100, 0, data_at, len(data), 0, 0)
        self.bar0.write32(0x1101C0, 0x01000000)
        self.bar0.write_port(0x1101C4, descriptor)
        self.bar0.write32(0x110040, 0)
        self.bar0.write32(0x110100, 2)
        assert self.bar0.read32(0x110100) & 0x10
        return self.bar0.read32(0x110040)

    def run_sec2(self, address: int) -> int:
        self.reset(0x840000)
        self.load(0x840000)
        self.bar0.write32(0x840040, address & 0xFFFFFFFF)
        self.bar0.write32(0x840044, address >> 32)
        self.bar0.write32(0x840104, 0)
        self.bar0.write32(0x840100, 2)
        assert self.bar0.read32(0x840100) & 0x10
        return self.bar0.read32(0x840040)

    def boot(self, **changes: Change) -> int:
        self.reset(0x110000)
        arguments = 0x12345000
        self.bar0.write32(0x110040, arguments)
        self.bar0.write32(0x110044, 0)
        return self.run_sec2(self.meta(**changes))

    def unload(self) -> int:
        self.device.card.model.gsp.running = False
        self.fwsec(0x19)
        return self.run_sec2(0xFF000000FF)


def names(device: SoftDevice) -> list[str]:
    return [violation.name for violation in device.model.violations]
