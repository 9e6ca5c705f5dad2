"""The copy engine: linear and pitch copies, constant fills, its semaphore; 32 KiB at a time.

Owns the method state of one copy object and turns a launch into pieces. Knows addresses, not channels. Runs under the device's lock.
Source: device-model.md 9.1 (Linux 7.3 nouveau nouveau_boa0b5.c; open-gpu-kernel-modules 570.144 clc6b5.h, clc8b5.h).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from nvcore_softgpu.ports import Aperture, Violations
from nvcore_softgpu.vm import VirtualMemory

__all__ = ["PIECE", "CopyObject"]

PIECE: Final = 1 << 15
"""Bytes that are copied at once. Half of a slice: a slice that began with something else still ends at its limit."""
LEAST: Final = 4096  # what a short line counts: it costs about as much as so many bytes (measured: 5 us)
_TARGETS: Final = (Aperture.VRAM, Aperture.SYSTEM, Aperture.SYSTEM, Aperture.SYSTEM)
_KNOWN: Final = frozenset(
    (0x100, 0x140, 0x240, 0x244, 0x248, 0x260, 0x264, 0x300, 0x400, 0x404, 0x408, 0x40C, 0x410, 0x414, 0x418, 0x41C, 0x700, 0x704, 0x708)
)


class CopyObject:
    """Method registers of one copy object."""

    __slots__ = ("_high", "_interrupt", "_time", "_violation", "registers")

    def __init__(self, violations: Violations, high_mask: int, interrupt: Callable[[], None], nanoseconds: Callable[[], int]) -> None:
        self._violation = violations.violation
        self._high = high_mask
        self._interrupt = interrupt
        self._time = nanoseconds
        self.registers: dict[int, int] = {}

    def method(self, number: int, value: int, vm: VirtualMemory) -> Iterator[int]:
        """One method. A launch yields the bytes done after each piece; everything else yields nothing."""
        self.registers[number] = value
        if number == 0x300:
            yield from self._launch(value, vm)
        elif number not in _KNOWN:
            self._violation("unknown-method", f"copy engine method {number:#x}")

    def _address(self, high: int) -> int:
        get = self.registers.get
        return (get(high, 0) & self._high) << 32 | get(high + 4, 0)

    def _launch(self, launch: int, vm: VirtualMemory) -> Iterator[int]:
        get = self.registers.get
        if launch & 3:
            if not launch >> 7 & 1 or not launch >> 8 & 1:
                self._violation("blocklinear-copy", f"launch {launch:#x}: treated as pitch")
            lines = get(0x41C, 0) if launch >> 9 & 1 else 1
            length = get(0x418, 0)
            source, target = self._address(0x400), self._address(0x408)
            for line in range(lines if length else 0):
                yield from self._line(launch, vm, source + line * _signed(get(0x410, 0)), target + line * _signed(get(0x414, 0)), length)
        kind = launch >> 3 & 3
        if kind:
            payload = get(0x248, 0)
            place = self._address(0x240)
            if kind == 1:
                vm.write(place, payload.to_bytes(4, "little"))
            else:
                vm.write(place, payload.to_bytes(8, "little") + self._time().to_bytes(8, "little"))
        if launch >> 5 & 3:
            self._interrupt()

    def _line(self, launch: int, vm: VirtualMemory, source: int, target: int, length: int) -> Iterator[int]:
        """One line in pieces. With remap on, length counts elements."""
        if launch >> 10 & 1:
            yield from self._remapped(launch, vm, source, target, length)
            return
        done = 0
        while done < length:
            step = min(PIECE, length - done)
            self._store(launch, vm, target + done, self._load(launch, vm, source + done, step))
            done += step
            yield max(step, LEAST)

    def _remapped(self, launch: int, vm: VirtualMemory, source: int, target: int, elements: int) -> Iterator[int]:
        """Components are taken from the source, from constant A or B, or left as they are."""
        components = self.registers.get(0x708, 0)
        size = (components >> 16 & 3) + 1
        sources = (components >> 20 & 3) + 1
        targets = (components >> 24 & 3) + 1
        selects = [components >> 4 * index & 7 for index in range(targets)]
        constants = {4: self.registers.get(0x700, 0), 5: self.registers.get(0x704, 0)}
        mask = (1 << 8 * size) - 1
        fixed = {select: (value & mask).to_bytes(size, "little") for select, value in constants.items()}
        per_piece = max(1, PIECE // (size * max(sources, targets)))
        done = 0
        while done < elements:
            count = min(per_piece, elements - done)
            place = target + done * size * targets
            if all(select in fixed for select in selects):
                data = b"".join(fixed[select] for select in selects) * count
            else:
                old = self._load(launch, vm, place, count * size * targets) if 6 in selects else b""
                new = self._load(launch, vm, source + done * size * sources, count * size * sources)
                data = _compose(selects, fixed, old, new, size, sources, count)
            self._store(launch, vm, place, data)
            done += count
            yield max(len(data), LEAST)

    def _load(self, launch: int, vm: VirtualMemory, address: int, size: int) -> bytes:
        if launch >> 12 & 1:
            return vm.read_physical(_TARGETS[self.registers.get(0x260, 0) & 3], address, size)
        return vm.read(address, size)

    def _store(self, launch: int, vm: VirtualMemory, address: int, data: bytes) -> None:
        if launch >> 13 & 1:
            vm.write_physical(_TARGETS[self.registers.get(0x264, 0) & 3], address, data)
        else:
            vm.write(address, data)


def _compose(selects: list[int], fixed: dict[int, bytes], old: bytes, new: bytes, size: int, sources: int, count: int) -> bytes:
    """Elements of a remapped copy, component by component."""
    targets = len(selects)
    data = bytearray(count * size * targets)
    for index, select in enumerate(selects):
        for part in range(size):
            if select in fixed:
                column = bytes((fixed[select][part],)) * count
            elif select == 6:
                column = old[index * size + part :: size * targets]
            else:
                column = new[min(select, sources - 1) * size + part :: size * sources]
            data[index * size + part :: size * targets] = column
    return bytes(data)


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value
