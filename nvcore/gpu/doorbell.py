"""Doorbells: one register write, behind a gate that the core can close.

Owns the gate of a GPU's generation and the doorbells of its channels. `ring` may run inside a signalling section, in any thread, and takes
no lock; closing a gate is a store that every later ring sees. A ring that raced with the closing reaches a channel that the hardware is
taken off anyway. Source: open-gpu-kernel-modules 570.144 dev_vm.h (NV_VIRTUAL_FUNCTION_DOORBELL).
"""

from __future__ import annotations

from nvcore.api.device import Bar
from nvcore.api.errors import DeviceGone, FirmwareDead
from nvcore.api.marks import signalling_safe
from nvcore.hw.interrupts import USERMODE_DOORBELL

_DOORBELL = USERMODE_DOORBELL.address()


class Gate:
    """Whether the hardware of one generation may be touched. Closed once, for ever; `cause` is the first one."""

    def __init__(self, generation: int) -> None:
        self.generation, self.open = generation, True
        self.cause: str | None = None

    def close(self, cause: str) -> bool:
        """Close it; whether this call did."""
        if not self.open:
            return False
        self.cause, self.open = cause, False
        return True

    def check(self) -> None:
        """Raise FirmwareDead with the first cause when the generation is over."""
        if not self.open:
            raise FirmwareDead(f"generation {self.generation} of the GPU is over", seen=self.cause, remedy="wait for resume")


class ChannelDoorbell:
    """The doorbell of one channel."""

    __slots__ = ("_gate", "_token", "_write", "armed")

    def __init__(self, bar: Bar, token: int, gate: Gate) -> None:
        self._write, self._token, self._gate = bar.write32, token, gate
        self.armed = True

    @signalling_safe
    def ring(self) -> bool:
        """Tell the hardware to look at the channel's ring; False when channel or generation is dead, and nothing was rung."""
        if not (self.armed and self._gate.open):
            return False
        try:
            self._write(_DOORBELL, self._token)
        except DeviceGone:
            return False
        return True
