"""The interrupt tree of the physical function: leaves, TOP, and the message that leaves the device.

Owns pending and enable bits and the decision when a message is sent: when an enabled bit becomes visible at TOP, and again when TOP is
enabled with something still visible. Runs under the device's lock; the message itself is one call.
Source: device-model.md 4.7; gsp-boot.md 1.8 (open-gpu-kernel-modules 570.144 dev_vm.h, dev_ctrl.h).
"""

from __future__ import annotations

from collections.abc import Callable

from nvcore_softgpu.chips import Chip
from nvcore_softgpu.ports import Violations
from nvcore_softgpu.registers.file import OGKM, RegisterFile

__all__ = ["InterruptTree"]

BASE = 0xB80000
WORD = 0xFFFFFFFF


class InterruptTree:
    """Vectors of one function: vector v is bit v % 32 of leaf v // 32; TOP bit k covers leaves 2k and 2k + 1. messages counts what was
    sent."""

    def __init__(self, registers: RegisterFile, chip: Chip, send: Callable[[], None], violations: Violations) -> None:
        self.leaves = chip.leaves
        self.pending = [0] * chip.leaves
        self.enabled = [0] * chip.leaves
        self.top_enabled = 0
        self.messages = 0
        self._send = send
        self._violation = violations.violation
        self._visible = False
        source = OGKM + " dev_vm.h"
        count = chip.leaves
        add = registers.handled
        add(BASE + 0x1000, "CPU_INTR_LEAF", "pending, write 1 to clear", source, read=self._leaf, write=self._clear_leaf, count=count)
        add(BASE + 0x1200, "CPU_INTR_LEAF_EN_SET", "enables", source, read=self._enable, write=self._enable_set, count=count)
        add(BASE + 0x1400, "CPU_INTR_LEAF_EN_CLEAR", "enables", source, read=self._enable, write=self._enable_clear, count=count)
        add(BASE + 0x1600, "CPU_INTR_TOP", "subtrees with something enabled and pending", source, read=self._top, write=self._read_only)
        add(BASE + 0x1608, "CPU_INTR_TOP_EN_SET", "subtree enables", source, read=self._top_enable, write=self._top_set)
        add(BASE + 0x1610, "CPU_INTR_TOP_EN_CLEAR", "subtree enables", source, read=self._top_enable, write=self._top_clear)
        add(BASE + 0x1640, "CPU_INTR_LEAF_TRIGGER", "set the bit of a vector", source, write=self._trigger)

    def set(self, vector: int) -> None:
        """A source raised `vector`."""
        leaf, bit = vector >> 5, 1 << (vector & 31)
        if leaf >= self.leaves:
            self._violation("vector-outside-tree", f"vector {vector}")
            return
        self.pending[leaf] |= bit
        self._update(False)

    def reset(self) -> None:
        """Power-on state: nothing pending, nothing enabled."""
        for leaf in range(self.leaves):
            self.pending[leaf] = self.enabled[leaf] = 0
        self.top_enabled = 0
        self._visible = False

    def top(self) -> int:
        """TOP: bit k for leaves 2k and 2k + 1."""
        value = 0
        for leaf in range(self.leaves):
            if self.pending[leaf] & self.enabled[leaf]:
                value |= 1 << (leaf >> 1)
        return value

    def _update(self, again: bool) -> None:
        visible = bool(self.top() & self.top_enabled)
        if visible and (again or not self._visible):
            self.messages += 1
            self._send()
        self._visible = visible

    def _leaf(self, offset: int) -> int:
        return self.pending[(offset & 0xFF) >> 2]

    def _clear_leaf(self, offset: int, value: int) -> None:
        self.pending[(offset & 0xFF) >> 2] &= ~value & WORD
        self._update(False)

    def _enable(self, offset: int) -> int:
        return self.enabled[(offset & 0xFF) >> 2]

    def _enable_set(self, offset: int, value: int) -> None:
        self.enabled[(offset & 0xFF) >> 2] |= value
        self._update(False)

    def _enable_clear(self, offset: int, value: int) -> None:
        self.enabled[(offset & 0xFF) >> 2] &= ~value & WORD
        self._update(False)

    def _top(self, offset: int) -> int:
        return self.top()

    def _top_enable(self, offset: int) -> int:
        return self.top_enabled

    def _top_set(self, offset: int, value: int) -> None:
        self.top_enabled |= value
        self._update(True)

    def _top_clear(self, offset: int, value: int) -> None:
        self.top_enabled &= ~value & WORD
        self._update(False)

    def _trigger(self, offset: int, value: int) -> None:
        self.set(value & 0xFFF)

    def _read_only(self, offset: int, value: int) -> None:
        self._violation("write-to-constant", f"CPU_INTR_TOP <- {value:#x}")
