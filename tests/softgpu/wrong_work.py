"""Wrong accesses of a driver, of its channels and of its page tables: each returns what the model said, as "name: text"."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from nvcore.api.device import DmaBuffer
from nvcore.testing import VirtualClock
from nvcore_softgpu.bus import make_card as card_of
from nvcore_softgpu.device import SoftDevice
from nvcore_softgpu.memory import sealed_memfd
from nvcore_softgpu.ports import Aperture
from tests.softgpu.device_kit import MIB, VRAM, make_card
from tests.softgpu.test_engine_channels import DATA, INSTANCE, ROOT, Kicker, Space, methods
from tests.softgpu.wrong_boots import Run, said

VIDEO = Aperture.VRAM
WPR2 = (48 * MIB, 49 * MIB)
PAGE0 = 16 * MIB  # where the first page of the tests' address space lies


def device(step: Callable[[SoftDevice], object], chip: str = "GA100") -> Run:
    """A step on a GPU that masters the bus."""

    def run() -> list[str]:
        made, _ = make_card(chip, clock=VirtualClock())
        made.set_bus_master(True)
        step(made)
        return said(made)

    return run


def write(offset: int, value: int, chip: str = "GA100") -> Run:
    return device(lambda made: made.bars[0].write32(offset, value), chip)


def channel(*words: int, prepare: Callable[[Kicker], object] = lambda _: None) -> Run:
    """A pushbuffer of a channel on COPY0."""

    def step(made: SoftDevice) -> None:
        kicker = Kicker(made)
        prepare(kicker)
        kicker.submit(*words)
        kicker.ring_doorbell()

    return device(step)


def copy(source: int, target: int, launch: int = 0x182) -> list[int]:
    return methods(4, 0, 0xC6B5) + transfer(source, target, launch)


def transfer(source: int, target: int, launch: int) -> list[int]:
    """Eight bytes; where launch bits 12 and 13 ask for it past the tables, to what SET_SRC_PHYS_MODE and SET_DST_PHYS_MODE say."""
    halves = (source >> 32, source & 0xFFFFFFFF, target >> 32, target & 0xFFFFFFFF)
    return methods(4, 0x400, *halves, 0, 0, 8, 1) + methods(4, 0x300, launch)


def protected(kicker: Kicker) -> None:
    kicker.device.card.model.boot.wpr2 = WPR2


def other_root(kicker: Kicker) -> None:
    kicker.host.set_page_directory(SimpleNamespace(instances=lambda: (INSTANCE,)), ROOT + 0x4000)


def host_copy(change: Callable[[SoftDevice, DmaBuffer], object], *, read: bool = False) -> Run:
    """A physical copy to (or from) host memory, after something was changed about it."""

    def step(made: SoftDevice) -> None:
        kicker = Kicker(made)
        buffer = made.allocate_dma(4096, label="target")
        address = buffer.bus_address()
        change(made, buffer)
        words = transfer(address, DATA, 0x182 | 1 << 12) if read else transfer(DATA, address, 0x182 | 1 << 13)
        kicker.submit(*methods(4, 0, 0xC6B5), *methods(4, 0x260, 1, 1), *words)
        kicker.ring_doorbell()

    return device(step)


def read_only_copy(made: SoftDevice) -> None:
    """A copy into host memory that the device may only read."""
    fd = sealed_memfd("read only", 4096)
    made.card.model.memory.map_file(0x10000, 4096, fd, 0, writable=False)
    kicker = Kicker(made)
    kicker.submit(*methods(4, 0, 0xC6B5), *methods(4, 0x260, 1, 1), *transfer(DATA, 0x10000, 0x182 | 1 << 13))
    kicker.ring_doorbell()
    os.close(fd)


def window(step: Callable[[SoftDevice, Space], object], bar: int = 1) -> Run:
    """A step through BAR1 (or BAR2, which is BAR 3 in PCI) over the tests' address space."""

    def both(made: SoftDevice) -> None:
        space = Space(made)
        model = made.card.model
        (model.bar1 if bar == 1 else model.bar2).set_root((VIDEO, ROOT))
        step(made, space)

    return device(both)


def read_only_page(made: SoftDevice, space: Space) -> None:
    space.put(ROOT + 0x3000, PAGE0 >> 12 << 8 | 1 | 1 << 6)
    made.bars[1].write32(0, 1)


def changed_table(made: SoftDevice, space: Space) -> None:
    made.bars[1].read32(0)
    space.put(ROOT + 0x3000, (PAGE0 + 2 * MIB) >> 12 << 8 | 1)
    made.bars[1].read32(0)


def changed_under_a_channel(kicker: Kicker) -> None:
    kicker.submit(*copy(DATA, DATA + 0x1000))
    kicker.ring_doorbell()
    kicker.space.put(ROOT + 0x3000, (PAGE0 + 8 * MIB) >> 12 << 8 | 1)


def unaligned(made: SoftDevice, space: Space) -> None:
    space.put(ROOT + 0x3000, (PAGE0 + 0x1000) >> 12 << 8 | 1)
    made.bars[1].read32(0)


def far_page(made: SoftDevice, space: Space) -> None:
    space.put(ROOT + 0x3000, VRAM >> 12 << 8 | 1)
    made.bars[1].read(0, 4)


def into_the_region(made: SoftDevice, space: Space) -> None:
    made.card.model.boot.wpr2 = (PAGE0, PAGE0 + MIB)
    made.bars[1].write32(0, 1)


def pramin(made: SoftDevice) -> None:
    made.card.model.boot.wpr2 = WPR2
    made.bars[0].write32(made.card.model.chip.window, WPR2[0] >> 16)
    made.bars[0].read32(0x700000)


def folder_with(name: str, chip: str = "ga100") -> Run:
    """A GPU that is told of a folder with a file that is none."""

    def run() -> list[str]:
        with TemporaryDirectory() as folder:
            place = Path(folder) / f"nvidia/{chip}/gsp"
            place.mkdir(parents=True)
            (place / name).write_bytes(b"something else")
            source = f"softgpu:{chip}?firmware={folder}"
            return said(SoftDevice(card_of(source), source))

    return run


CASES: list[tuple[str, str, Run]] = [
    ("write-to-constant", "0x4 ", write(4, 1)),
    ("write-to-constant", "CPU_INTR_TOP", write(0xB81600, 1)),
    *(("write-to-protected", f"{offset:#x}", write(offset, 0, chip)) for offset in (0x1FA824, 0x1FA828) for chip in ("GA100", "GH100")),
    ("vector-outside-tree", "4095", write(0xB81640, 0xFFF)),
    ("privileged-doorbell", "0x33", write(0xB82200, 0x33)),
    ("privileged-doorbell", "0x11", write(0xB82200, 17)),
    ("doorbell-without-channel", "0x5004d", write(0xBB0090, 0x5004D)),
    ("doorbell-without-channel", "0x5004d", write(0x30090, 0x5004D)),
    ("pushbuffer", "0x40010000", channel(2 << 29 | 1 << 16)),
    ("pushbuffer", "not allocated", channel(*methods(4, 0, 0x9999))),
    ("pushbuffer", "without an object", channel(*methods(2, 0x400, 1))),
    ("pushbuffer", "semaphore operation 7", channel(*methods(0, 0x5C, 0, 0, 0, 0, 7))),
    ("pushbuffer", "left in the segment", channel(1 << 29 | 40 << 16 | 0x5C >> 2, 0)),
    ("unknown-method", "host method 0xfc", channel(*methods(0, 0xFC, 0))),
    ("unknown-method", "copy engine method 0x800", channel(*methods(4, 0, 0xC6B5), *methods(4, 0x800, 0))),
    ("blocklinear-copy", "0x102", channel(*copy(DATA, DATA + 0x1000, 0x102))),
    ("page-directory-mismatch", "SET_PAGE_DIRECTORY", channel(0, prepare=other_root)),
    ("vram-outside", "read at", channel(*copy(1 << 40, DATA, 0x182 | 1 << 12))),
    ("vram-outside", "write at", channel(*copy(DATA, 1 << 40, 0x182 | 1 << 13))),
    ("vram-outside", "read at", window(far_page)),
    ("dma-outside-maps", "write", host_copy(lambda _, buffer: buffer.close())),
    ("dma-outside-maps", "read", host_copy(lambda _, buffer: buffer.close(), read=True)),
    ("dma-without-bus-master", "write", host_copy(lambda made, _: made.set_bus_master(False))),
    ("dma-not-allowed", "write", device(read_only_copy)),
    ("wpr2-access", "engine", channel(*copy(WPR2[0], DATA, 0x182 | 1 << 12), prepare=protected)),
    ("wpr2-access", "engine", channel(*copy(DATA, WPR2[0], 0x182 | 1 << 13), prepare=protected)),
    ("wpr2-access", "bar1", window(into_the_region)),
    ("wpr2-access", "PRAMIN", device(pramin)),
    ("wpr2-access", "PRAMIN", device(pramin, "GH100")),
    ("bar1-fault", "at 0x800000", window(lambda made, _: made.bars[1].read32(8 * MIB))),
    ("bar1-fault", "read-only", window(read_only_page)),
    ("bar2-fault", "at 0x800000", window(lambda made, _: made.bars[3].write32(8 * MIB, 1), bar=2)),
    ("stale-translation", "no invalidate", window(changed_table)),
    ("stale-translation", "no invalidate", channel(*copy(DATA, DATA + 0x1000), prepare=changed_under_a_channel)),
    ("unaligned-page", "0x200000 bytes", window(unaligned)),
    *(("firmware-file", name, folder_with(name)) for name in ("gsp-570.144.bin", "bootloader-570.144.bin", "booter_load-570.144.bin")),
    ("firmware-file", "fmc-570.144.bin", folder_with("fmc-570.144.bin", "gh100")),
]  # fmt: skip
