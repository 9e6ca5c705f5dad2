"""The windows onto memory: PRAMIN, BAR1 and BAR2.

Owns the BAR0 window register, the BAR1 and BAR2 modes, and the accesses through them. BAR1 and BAR2 are physical or translated; a
remembered leaf keeps the word path short. Runs under the device's lock; these are the hottest paths of the model (60,000 writes a boot).
Source: device-model.md 3, 4.3, 7, 14.5; gsp-boot.md 1.4 (open-gpu-kernel-modules 570.144 dev_bus.h, dev_vm.h, dev_pri_ringstation_sys.h).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nvcore_softgpu.chips import Chip
from nvcore_softgpu.memory import PhysicalMemory
from nvcore_softgpu.mmu import Mmu, Root, TranslationFault
from nvcore_softgpu.ports import Aperture, Violations
from nvcore_softgpu.registers.file import OGKM, RegisterFile

__all__ = ["BarWindow", "add_bar_blocks", "add_pramin", "instance_root"]

_VRAM: Final = Aperture.VRAM
_SYSTEM: Final = Aperture.SYSTEM
PRAMIN: Final = 0x700000
WORD: Final = 0xFFFFFFFF
Region = Callable[[], "tuple[int, int] | None"]


def instance_root(memory: PhysicalMemory, instance: int) -> Root | None:
    """The page directory that an instance block in VRAM names; None when it names none, or lies outside."""
    if instance & 3 or not 0 <= instance <= memory.vram_size - 0x1000:
        return None
    low, high = memory.vram32[instance + 0x200 >> 2], memory.vram32[instance + 0x204 >> 2]
    address = high << 32 | low & 0xFFFFF000
    return (_VRAM if low & 3 == 0 else _SYSTEM, address) if address else None


def add_pramin(registers: RegisterFile, chip: Chip, memory: PhysicalMemory, protected: Region, violations: Violations) -> None:
    """The 1 MiB window in BAR0, and the register that moves it."""
    turing = chip.window == 0x1700
    base = 0
    aperture = _VRAM
    words = memory.vram32
    limit = memory.vram_size

    def select(offset: int, value: int) -> None:
        nonlocal base, aperture
        registers.values[offset] = value
        base = (value & (0xFFFFFF if turing else 0x3FFFFF)) << 16
        aperture = _SYSTEM if turing and value >> 24 & 3 else _VRAM

    def refused(address: int) -> bool:
        region = protected()
        if region is not None and region[0] <= address < region[1]:
            violations.violation("wpr2-access", "PRAMIN reaches into WPR2")
            return True
        return False

    def read(offset: int) -> int:
        address = base + (offset & 0xFFFFF)
        if aperture is _VRAM and address < limit:
            return WORD if refused(address) else words[address >> 2]
        return int.from_bytes(memory.read(aperture, address, 4), "little")

    def write(offset: int, value: int) -> None:
        address = base + (offset & 0xFFFFF)
        if aperture is _VRAM and address < limit:
            if not refused(address):
                words[address >> 2] = value
        else:
            memory.write(aperture, address, value.to_bytes(4, "little"))

    registers.handled(chip.window, "BAR0_WINDOW", "VRAM address >> 16 of PRAMIN", OGKM + " dev_bus.h", write=select)
    registers.aperture(PRAMIN, 1 << 20, "PRAMIN", "window onto memory", OGKM + " dev_ram.h", read=read, write=write)


class BarWindow:
    """BAR1 or BAR2. root None: physical, offset = VRAM address. Reads that do not translate give all ones; writes vanish; both are
    violations."""

    def __init__(self, name: str, size: int, memory: PhysicalMemory, mmu: Mmu, protected: Region, violations: Violations) -> None:
        self.name = name
        self.size = size
        self.root: Root | None = None
        self._memory = memory
        self._words = memory.vram32
        self._words64 = memory.vram64
        self._vram = memory.vram
        self._mmu = mmu
        self._protected = protected
        self._violation = violations.violation
        self._start = 0  # the remembered leaf: virtual start, end, and VRAM address minus start
        self._end = 0
        self._delta = 0
        self._read_only = False
        self._entries: tuple[tuple[int, int], ...] = ()  # every entry that led to it: place in VRAM in 64-bit words, value
        self.forget()

    def forget(self) -> None:
        """Drop the remembered leaf."""
        self._start = self._end = 0

    def _current(self) -> bool:
        """Whether the remembered leaf is still what memory says, from the root down. With no entry (physical) it always is."""
        words = self._words64
        for place, value in self._entries:  # a loop: half the time of a generator
            if words[place] != value:
                break
        else:
            return True
        return False

    def set_root(self, root: Root | None) -> None:
        """Change the mode: a page directory, or None for physical."""
        self.root = root
        self.forget()

    def _piece(self, offset: int, size: int, write: bool) -> tuple[Aperture | None, int, int]:
        """(aperture, physical address, bytes) of the first piece of an access; aperture None: nothing answers, a write is lost."""
        root = self.root
        if root is None:
            aperture: Aperture | None = _VRAM
            physical, size = offset, size
            if offset >= self._memory.vram_size:
                return None, 0, size
        else:
            try:
                leaf = self._mmu.translate(root, offset)
            except TranslationFault as fault:
                self._violation(f"{self.name}-fault", f"{fault.why} at {offset & ~0xFFF:#x}")
                return None, 0, min(size, 0x1000 - (offset & 0xFFF))
            inside = offset - leaf.base
            size = min(size, leaf.size - inside)
            aperture, physical = leaf.aperture, leaf.physical + inside
            if aperture is None:
                return None, 0, size
            if write and leaf.read_only:
                self._violation(f"{self.name}-fault", f"write to a read-only page at {offset & ~0xFFF:#x}")
                return None, 0, size
        if aperture is _VRAM:
            region = self._protected()
            if region is not None and physical < region[1] and region[0] < physical + size:
                self._violation("wpr2-access", f"{self.name} reaches into WPR2")
                return None, 0, size
        return aperture, physical, size

    def _remember(self, offset: int) -> None:
        """Keep the leaf of `offset` for the word path, if it lies in VRAM, with every table that led to it, and away from WPR2."""
        self.forget()
        region = self._protected()
        root = self.root
        if root is None:
            if region is None:
                self._start, self._end, self._delta = 0, min(self.size, self._memory.vram_size), 0
                self._entries, self._read_only = (), False
            return
        try:
            leaf = self._mmu.translate(root, offset)
        except TranslationFault:
            return
        if leaf.aperture is not _VRAM or leaf.physical + leaf.size > self._memory.vram_size or leaf.stale:
            return
        if any(table is not _VRAM or place & 7 for table, place, _ in leaf.entries):
            return
        if region is not None and leaf.physical < region[1] and region[0] < leaf.physical + leaf.size:
            return
        self._start, self._end, self._delta = leaf.base, leaf.base + leaf.size, leaf.physical - leaf.base
        self._read_only = leaf.read_only
        self._entries = tuple((place >> 3, int.from_bytes(raw, "little")) for _, place, raw in leaf.entries)

    def read32(self, offset: int) -> int:
        """One aligned word."""
        if self._start <= offset < self._end and self._current():
            return self._words[offset + self._delta >> 2]
        return int.from_bytes(self.read(offset, 4), "little")

    def write32(self, offset: int, value: int) -> None:
        """One aligned word."""
        if self._start <= offset < self._end and not self._read_only and self._current():
            self._words[offset + self._delta >> 2] = value
        else:
            self.write(offset, value.to_bytes(4, "little"))

    def read(self, offset: int, size: int) -> bytes:
        """Any bytes, page by page."""
        end = offset + size
        if self._start <= offset and end <= self._end and self._current():
            place = offset + self._delta
            return bytes(self._vram[place : place + size])
        parts = []
        place = offset
        while size > 0:
            aperture, physical, step = self._piece(place, size, False)
            parts.append(b"\xff" * step if aperture is None else self._memory.read(aperture, physical, step))
            place += step
            size -= step
        self._remember(offset)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Any bytes, page by page."""
        size = len(data)
        end = offset + size
        if self._start <= offset and end <= self._end and not self._read_only and self._current():
            place = offset + self._delta
            self._vram[place : place + size] = data
            return
        view = memoryview(data)
        done = 0
        while done < size:
            aperture, physical, step = self._piece(offset + done, size - done, True)
            if aperture is not None:
                self._memory.write(aperture, physical, view[done : done + step])
            done += step
        self._remember(offset)


def add_bar_blocks(registers: RegisterFile, chip: Chip, memory: PhysicalMemory, bar1: BarWindow, bar2: BarWindow) -> None:
    """The registers that give BAR1 and BAR2 an instance block or physical mode, in the form of the chip."""

    def choose(window: BarWindow, virtual: bool, instance: int) -> None:
        if virtual and instance + 0x1000 <= memory.vram_size:
            window.set_root(instance_root(memory, instance))
        elif not virtual:
            window.set_root(None)

    source = OGKM + " dev_vm.h"
    if chip.window == 0x1700:
        for place, window in ((0x1704, bar1), (0x1714, bar2), (0xB80F40, bar1), (0xB80F48, bar2)):

            def write(offset: int, value: int, window: BarWindow = window) -> None:
                registers.values[offset] = value
                choose(window, bool(value >> 31), (value & 0xFFFFFFF) << 12)

            registers.handled(place, f"{window.name.upper()}_BLOCK", "instance block >> 12, bit 31 virtual", source, write=write)
        registers.constant(0xB80F50, "BIND_STATUS", "no bind under way", source, value=0)
        return
    for place, window in ((0xB80F60, bar1), (0xB80F70, bar2)):

        def write_high(offset: int, value: int, window: BarWindow = window) -> None:
            registers.values[offset] = value
            low = registers.values[offset - 4]
            choose(window, bool(low >> 9 & 1), (value << 20 | low >> 12) << 12)

        def read_low(offset: int) -> int:
            return registers.values[offset] & ~3

        registers.handled(place, f"{window.name.upper()}_BLOCK_LOW", "mode, target, instance block", source, read=read_low)
        registers.handled(place + 4, f"{window.name.upper()}_BLOCK_HIGH", "instance block; binds", source, write=write_high)
