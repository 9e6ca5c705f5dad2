"""PTIMER: nanoseconds of the GPU, in multiples of 32.

Owns TIME_0 and TIME_1, their copies in the virtual-function page, and the alarm registers. A driver may set the time; reads must advance.
Source: device-model.md 4.2; gsp-boot.md 1.4 (open-gpu-kernel-modules 570.144 dev_timer.h).
"""

from __future__ import annotations

from collections.abc import Callable

from nvcore_softgpu.chips import Chip
from nvcore_softgpu.ports import Faults
from nvcore_softgpu.registers.file import OGKM, RegisterFile

__all__ = ["Timer"]

MASK = (1 << 61) - 1


class Timer:
    """The GPU's clock. now: monotonic seconds of the model's clock."""

    def __init__(self, registers: RegisterFile, chip: Chip, now: Callable[[], float], faults: Faults) -> None:
        self._now = now
        self._stands = faults.stands
        self._offset = 0
        self._high = 0
        self._last = 0
        source = OGKM + " dev_timer.h"
        registers.handled(0x009400, "PTIMER_TIME_0", "nanoseconds, bits 31:5", source, read=self._read_low, write=self._write_low)
        registers.handled(0x009410, "PTIMER_TIME_1", "nanoseconds >> 32", source, read=self._read_high, write=self._write_high)
        for base in (0x030080, 0xBB0080):
            registers.handled(base, "USERMODE_TIME_0", "copy of TIME_0", OGKM + " dev_vm.h", read=self._read_low, write=self._ignore)
            registers.handled(base + 4, "USERMODE_TIME_1", "copy of TIME_1", OGKM + " dev_vm.h", read=self._read_high, write=self._ignore)
        registers.stored(0x009100, "PTIMER_INTR_0", "alarm pending; no alarm exists", source)
        registers.stored(0x009140, "PTIMER_INTR_EN_0", "alarm enable; no alarm exists", source)
        registers.constant(0x009430, "PTIMER_TIME_PLM", "every level may write the time", source, value=0xFFFFFFFF)
        if chip.flow == "fsp":
            for base, write in ((0x118F54, False), (0x118DF4, True)):
                name = "SYSTEM_TIMER_OFFSET" if write else "SCI_SECURE_TIMER"
                meaning = "offset of the time, set by a driver" if write else "time since power on"
                if write:
                    registers.stored(base, name + "_0", meaning + ", low word", OGKM + " dev_timer.h")
                    registers.stored(base + 4, name + "_1", meaning + ", high word", OGKM + " dev_timer.h")
                else:
                    registers.handled(base, name + "_0", meaning, OGKM + " dev_timer.h", read=self._read_low, write=self._ignore)
                    registers.handled(base + 4, name + "_1", meaning, OGKM + " dev_timer.h", read=self._read_high, write=self._ignore)

    def nanoseconds(self) -> int:
        """The GPU's time: nanoseconds, a multiple of 32, never going back but by a driver's own setting."""
        if self._stands("timer-frozen"):
            return self._last
        self._last = (int(self._now() * 1e9) + self._offset) & MASK & ~0x1F
        return self._last

    def _read_low(self, offset: int) -> int:
        return self.nanoseconds() & 0xFFFFFFE0

    def _read_high(self, offset: int) -> int:
        return self.nanoseconds() >> 32

    def _write_high(self, offset: int, value: int) -> None:
        self._high = value & 0x1FFFFFFF  # latched by the write of the low half

    def _write_low(self, offset: int, value: int) -> None:
        self._offset = (self._high << 32 | value & 0xFFFFFFE0) - int(self._now() * 1e9)

    def _ignore(self, offset: int, value: int) -> None:
        """Writes to the copies do nothing."""
