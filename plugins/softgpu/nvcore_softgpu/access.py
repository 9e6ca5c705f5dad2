"""The watch on BAR0 accesses: faults that act on one access, and the trace that finds the places for them.

Owns nothing of the registers; it sits in front of them only while a fault is armed or a trace runs (`active`), so that the ordinary path
costs one test. Runs under the device's lock.
Source: the issue's list of disturbances: all-ones, zero, lost write, no reply, device gone.
"""

from __future__ import annotations

from collections.abc import Callable

from nvcore_softgpu.faults import ArmedFaults
from nvcore_softgpu.registers.file import RegisterFile

__all__ = ["AccessWatch"]

WORD = 0xFFFFFFFF


class AccessWatch:
    """BAR0 accesses one by one. gone: the device left; silent: registers that answer no more; trace: counts by (offset, write) while it
    is set."""

    def __init__(self, registers: RegisterFile, faults: ArmedFaults) -> None:
        self._read = registers.read
        self._write = registers.write
        self._faults = faults
        self.gone = False
        self.on_gone: Callable[[], None] = lambda: None
        self.silent: set[int] = set()
        self.trace: dict[tuple[int, bool], int] | None = None
        self.active = False

    def update(self) -> None:
        """Recompute `active`: after arming, disarming, or starting and ending a trace."""
        self.active = self.gone or bool(self._faults.access) or bool(self.silent) or self.trace is not None

    def _strike(self, offset: int, write: bool) -> str | None:
        """What happens to this access."""
        if self.trace is not None:
            key = (offset, write)
            self.trace[key] = self.trace.get(key, 0) + 1
        faults = self._faults
        for fault in faults.access:
            if fault.hits(offset, write):
                faults.access.remove(fault)
                faults.acted.append(fault.kind)
                if fault.kind == "no-reply":
                    self.silent.add(offset)
                elif fault.kind == "device-gone":
                    self.gone = True
                    self.on_gone()
                self.update()
                if fault.kind not in ("no-reply", "device-gone"):
                    return fault.kind
                break
        return "lost" if self.gone or offset in self.silent else None

    def read(self, offset: int) -> int:
        """One watched read."""
        effect = self._strike(offset, False)
        if effect is None:
            return self._read(offset)
        return 0 if effect == "zero" else WORD

    def write(self, offset: int, value: int) -> None:
        """One watched write."""
        effect = self._strike(offset, True)
        if effect is None:
            self._write(offset, value)
        elif effect == "zero":
            self._write(offset, 0)
