"""The bars of the software GPU as a driver in the same process, or a vfio-user server, uses them.

Owns bounds, access widths and the device's lock around each access. Any thread. The word paths are hot.
Source: nvcore.api.device.Bar.
"""

from __future__ import annotations

import threading
from typing import Final, NoReturn

from nvcore.api.errors import ContractError, DeviceGone, NotSupportedError
from nvcore.api.marks import interrupt_safe, may_sleep, signalling_safe
from nvcore_softgpu.access import AccessWatch
from nvcore_softgpu.registers.file import RegisterFile
from nvcore_softgpu.windows import BarWindow

__all__ = ["RegisterBar", "WindowBar", "gone"]

BAR0_SIZE: Final = 16 << 20


def gone(source: str) -> DeviceGone:
    """The error of every call after removal."""
    return DeviceGone("the software GPU was removed", where=source, remedy="open it again when it is back")


class _Bar:
    """What both kinds share."""

    mapped = False

    def __init__(self, index: int, size: int, prefetchable: bool, lock: threading.RLock, source: str) -> None:
        self.index = index
        self.size = size
        self.prefetchable = prefetchable
        self.removed = False
        self._lock = lock
        self._source = source

    def _refuse(self, offset: int, size: int) -> NoReturn:
        """The access is not one that reaches a device: say why."""
        if self.removed:
            raise gone(self._source)
        raise ContractError(
            f"access outside BAR{self.index} or not aligned",
            expected=f"inside {self.size:#x} bytes, words at multiples of 4",
            seen=f"{size} bytes at {offset:#x}",
            where=self._source,
        )

    def remove(self) -> None:
        """The device left, or was closed: every access fails from now on."""
        self.removed = True
        self.size = 0

    @may_sleep
    def view(self, offset: int, size: int) -> memoryview:
        """The bars of the model are trapped."""
        if self.removed:
            raise gone(self._source)
        raise NotSupportedError(f"BAR{self.index} of a software GPU cannot be mapped", where=self._source)


class RegisterBar(_Bar):
    """BAR0."""

    def __init__(self, registers: RegisterFile, watch: AccessWatch, lock: threading.RLock, source: str) -> None:
        super().__init__(0, BAR0_SIZE, False, lock, source)
        self._read = registers.read
        self._write = registers.write
        self._ports = registers.ports_in
        self._watch = watch

    @interrupt_safe
    def read32(self, offset: int) -> int:
        """One aligned word."""
        if offset & 3 or not 0 <= offset < self.size:
            self._refuse(offset, 4)
        with self._lock:
            if self._watch.active:
                value = self._watch.read(offset)
                if self.removed:
                    raise gone(self._source)
                return value
            return self._read(offset)

    @interrupt_safe
    def write32(self, offset: int, value: int) -> None:
        """One aligned word."""
        if offset & 3 or not 0 <= offset < self.size:
            self._refuse(offset, 4)
        with self._lock:
            if self._watch.active:
                self._watch.write(offset, value & 0xFFFFFFFF)
                if self.removed:
                    raise gone(self._source)
                return
            self._write(offset, value & 0xFFFFFFFF)

    @signalling_safe
    def read(self, offset: int, size: int) -> bytes:
        """Bytes, word by word."""
        if offset < 0 or size < 0 or offset + size > self.size:
            self._refuse(offset, size)
        first, last = offset & ~3, offset + size + 3 & ~3
        data = b"".join(self.read32(place).to_bytes(4, "little") for place in range(first, last, 4))
        return data[offset - first : offset - first + size]

    @signalling_safe
    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Bytes, word by word; a part of a word is merged with what the register reads."""
        data = memoryview(data).cast("B")
        size = len(data)
        if offset < 0 or offset + size > self.size:
            self._refuse(offset, size)
        done = 0
        with self._lock:
            while done < size:
                place = offset + done
                inside = place & 3
                step = min(4 - inside, size - done)
                piece = bytes(data[done : done + step])
                if step < 4:
                    old = self.read32(place - inside).to_bytes(4, "little")
                    piece = old[:inside] + piece + old[inside + step :]
                self.write32(place - inside, int.from_bytes(piece, "little"))
                done += step

    @signalling_safe
    def write_port(self, offset: int, words: bytes | memoryview) -> None:
        """Words one after another to the same register."""
        view = memoryview(words).cast("B")
        if offset & 3 or not 0 <= offset < self.size or len(view) & 3:
            self._refuse(offset, len(view))
        with self._lock:
            many = self._ports.get(offset)
            if many is not None and not self._watch.active:
                many(view)
                return
            for value in view.cast("I"):
                self.write32(offset, value)

    @signalling_safe
    def read_port(self, offset: int, count: int) -> bytes:
        """Words one after another from the same register."""
        with self._lock:
            return b"".join(self.read32(offset).to_bytes(4, "little") for _ in range(count))


class WindowBar(_Bar):
    """BAR1 or BAR2 (PCI index 3)."""

    def __init__(self, index: int, window: BarWindow, lock: threading.RLock, source: str) -> None:
        super().__init__(index, window.size, True, lock, source)
        self._window = window

    @interrupt_safe
    def read32(self, offset: int) -> int:
        """One aligned word."""
        if offset & 3 or not 0 <= offset < self.size:
            self._refuse(offset, 4)
        with self._lock:
            return self._window.read32(offset)

    @interrupt_safe
    def write32(self, offset: int, value: int) -> None:
        """One aligned word."""
        if offset & 3 or not 0 <= offset < self.size:
            self._refuse(offset, 4)
        with self._lock:
            self._window.write32(offset, value & 0xFFFFFFFF)

    @signalling_safe
    def read(self, offset: int, size: int) -> bytes:
        """Bytes."""
        if offset < 0 or size < 0 or offset + size > self.size:
            self._refuse(offset, size)
        with self._lock:
            return self._window.read(offset, size) if size else b""

    @signalling_safe
    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Bytes."""
        if data.__class__ is memoryview and data.itemsize != 1:
            data = data.cast("B")
        if offset < 0 or offset + len(data) > self.size:
            self._refuse(offset, len(data))
        with self._lock:
            self._window.write(offset, data)

    @signalling_safe
    def write_port(self, offset: int, words: bytes | memoryview) -> None:
        """Words one after another to the same place."""
        for value in memoryview(words).cast("B").cast("I"):
            self.write32(offset, value)

    @signalling_safe
    def read_port(self, offset: int, count: int) -> bytes:
        """Words one after another from the same place."""
        return b"".join(self.read32(offset).to_bytes(4, "little") for _ in range(count))
