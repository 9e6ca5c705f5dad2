"""Register access while booting: error patterns never become data, and the last value of every register is kept for the report.

Owns nothing of the device; wraps BAR0. The opener's thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from nvcore.api.clock import Clock
from nvcore.api.device import Bar
from nvcore.api.errors import DeviceGone
from nvcore.hw.chips import BOOT_0
from nvcore.hw.register import Register, is_bus_error
from nvcore_fw_gsp.boot.errors import BootTimeout, RegisterBlocked

__all__ = ["BootIo"]

_R = TypeVar("_R", bound=Register)


class BootIo:
    """BAR0 with names. `last`: the last value read of each register since `last` was replaced. Limits are multiplied by `scale`."""

    __slots__ = ("bar", "clock", "last", "scale")

    def __init__(self, bar: Bar, clock: Clock, scale: float = 1.0) -> None:
        self.bar, self.clock, self.scale = bar, clock, scale
        self.last: dict[str, str] = {}

    def read(self, register: type[_R], base: int = 0, index: int = 0, unit: str = "") -> _R:
        """One load. Raises DeviceGone when the GPU does not answer at all, RegisterBlocked for an error pattern in this register."""
        value = self.peek(register, base, index, unit)
        if is_bus_error(value.raw):
            self.refuse(register.__name__, register.address(base, index), value.raw)
        return value

    def peek(self, register: type[_R], base: int = 0, index: int = 0, unit: str = "") -> _R:
        """One load whose error pattern is an answer for the caller to judge."""
        value = register.read(self.bar, base, index)
        self.last[f"{unit}{register.__name__}{index or ''}"] = f"{value.raw:#010x}"
        return value

    def write(self, value: Register, base: int = 0, index: int = 0) -> None:
        """One store."""
        value.write(self.bar, base, index)

    def refuse(self, name: str, address: int, raw: int) -> None:
        """Raise for an error pattern: is the whole GPU gone, or only this register out of reach?"""
        boot0 = self.bar.read32(BOOT_0.OFFSET)
        if is_bus_error(boot0):
            raise DeviceGone(
                "the GPU does not answer any more",
                expected="a chip id at BAR0 + 0",
                seen=f"{name} {raw:#010x}, PMC_BOOT_0 {boot0:#010x}",
                where=f"{address:#x}",
                remedy="check power and bus, then: nvcore gpus retry GPU",
            )
        raise RegisterBlocked(
            f"register {name} cannot be read",
            expected="a value",
            seen=f"{raw:#010x}",
            where=f"BAR0 + {address:#x}",
            remedy="reset the device: nvcore gpus reset GPU",
        )

    def wait(self, read: Callable[[], _R], done: Callable[[_R], bool], *, timeout: float, what: str, poll: float = 0.0002) -> _R:
        """Poll until `done`; the value. Raises BootTimeout with the limit and the last value, decoded. timeout: seconds before scaling."""
        value = read()
        if done(value):
            return value
        clock = self.clock
        limit = timeout * self.scale
        deadline = clock.now() + limit
        while True:
            late = clock.now() >= deadline
            if not late:
                clock.sleep(poll)
            value = read()
            if done(value):
                return value
            if late:
                raise BootTimeout(f"no end of the wait for {what}", expected=f"within {limit:g} s", seen=f"last value {value!r}")
