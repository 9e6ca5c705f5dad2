"""A fake device of a few registers, and the bus that opens it: enough hardware for a core, a client or a backend under test.

Owns its registers, its VRAM (one memfd) and its interrupt tree. It is polite where a software GPU is strict: it proves the order of a
host's calls, not the truth of what is written. `log` holds what happened, in order. Any thread; one lock per device, which no callback is
called under.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Mapping, Sequence

from nvcore.api.device import Bar, BusEvent, Device, DmaBuffer, InterruptKind, PciIdentity, SharedMemory, VirtualFunction
from nvcore.api.errors import ContractError, DeviceGone, NotFoundError, NotSupportedError, UsageError
from nvcore.api.offers import BusOffer
from nvcore.hw.chips import BOOT_0, BOOT_1, BOOT_42, chip_row
from nvcore.hw.interrupts import LEAF, LEAF_ENABLE_CLEAR, LEAF_ENABLE_SET, TOP, TOP_ENABLE_CLEAR, TOP_ENABLE_SET, USERMODE_DOORBELL
from nvcore.hw.mmu import INVALIDATE, INVALIDATE_PDB, PRAMIN, PRAMIN_SIZE, WINDOW, WINDOW_HOPPER
from nvcore.testing.faults import FaultScript

__all__ = ["FakeBar", "FakeBus", "FakeGpu", "fake_bus"]

_BUSY = INVALIDATE.trigger.mask


class FakeBar:
    """BAR0 of a fake: trapped accesses into `FakeGpu`."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self.index, self.size, self.mapped, self.prefetchable = 0, 0x1000000, False, False

    def read32(self, offset: int) -> int:
        """One load."""
        self._check(offset, 4)
        return self._gpu.register_read(offset)

    def write32(self, offset: int, value: int) -> None:
        """One store."""
        self._check(offset, 4)
        self._gpu.register_write(offset, value)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes, also of the window into VRAM."""
        self._check(offset, size)
        if PRAMIN <= offset < PRAMIN + PRAMIN_SIZE:
            return self._gpu.window_read(offset - PRAMIN, size)
        return b"".join(self.read32(at).to_bytes(4, "little") for at in range(offset, offset + size, 4))

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Bytes, also of the window into VRAM."""
        self._check(offset, len(data))
        if PRAMIN <= offset < PRAMIN + PRAMIN_SIZE:
            self._gpu.window_write(offset - PRAMIN, data)
            return
        for at in range(0, len(data), 4):
            self.write32(offset + at, int.from_bytes(data[at : at + 4], "little"))

    def write_port(self, offset: int, words: bytes | memoryview) -> None:
        """Words to one offset."""
        for at in range(0, len(words), 4):
            self.write32(offset, int.from_bytes(words[at : at + 4], "little"))

    def read_port(self, offset: int, count: int) -> bytes:
        """Words from one offset."""
        return b"".join(self.read32(offset).to_bytes(4, "little") for _ in range(count))

    def view(self, offset: int, size: int) -> memoryview:
        """Never: it is trapped."""
        raise NotSupportedError("a fake's register window is trapped")

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.size or offset % 4:
            raise ContractError("access outside of a bar", expected=f"aligned, within {self.size:#x}", seen=f"{offset:#x} + {size:#x}")


class FakeDma:
    """Host memory; bus addresses start at 4 GiB and are contiguous."""

    def __init__(self, gpu: FakeGpu, size: int, label: str, base: int) -> None:
        self._gpu, self.size, self.label, self._base = gpu, size, label, base
        self.fd = os.memfd_create(f"fake-dma-{label}", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self._map = mmap.mmap(self.fd, size)
        self.view = memoryview(self._map)
        self.closed = False

    def bus_address(self, offset: int = 0) -> int:
        """Its address for the device."""
        return self._base + offset

    @property
    def contiguous(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Unmap and free. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._gpu.log.append(f"unmap {self.label}")
        self._gpu.buffers.discard(self)
        self.view.release()
        self._map.close()
        os.close(self.fd)


class FakeFunction:
    """One virtual function."""

    def __init__(self, gpu: FakeGpu, index: int) -> None:
        self._gpu, self.index = gpu, index
        self.address = f"{gpu.identity.address[:-1]}{index + 1}"
        self.bar_sizes: Mapping[int, int] = {0: 0x40000, 1: 0x10000000}

    def endpoint(self) -> str:
        """There is none."""
        raise NotSupportedError("a fake's virtual function has no endpoint")

    def reset(self) -> None:
        """Note it."""
        self._gpu.log.append(f"reset VF {self.index + 1}")


class FakeGpu:
    """One fake GPU. It outlives `close`, as hardware does: opening the source again finds it as it was left.

    share: whether `share` works. functions: VFs that it can have. `doorbells` are the tokens rung, `interrupts_sent` the messages raised.
    """

    def __init__(
        self, source: str, *, chip: str = "TU102", vram: int = 64 << 20, address: str = "0000:f0:00.0", share: bool = True
    ) -> None:
        self.source, self.chip = source, chip_row(chip)
        self.identity = PciIdentity(address, 0x10DE, 0x1E04, 0x10DE, 0x0001, 0xA1, 0x030000)
        self.vram_size, self._share = vram, share
        self.faults = FaultScript()
        self.log: list[str] = []
        self.doorbells: list[int] = []
        self.buffers: set[FakeDma] = set()
        self.interrupts: Mapping[InterruptKind, int] = {"msi": 1}
        self.total_functions = 8
        self.functions = 0
        self.bus_master, self.opened, self.firmware_running = False, False, False
        self._lock = threading.Lock()
        self._fd = os.memfd_create("fake-vram", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, vram)
        self._vram = mmap.mmap(self._fd, vram)
        self._gone = False
        self._next_dma = 1 << 32
        self._bars: dict[int, Bar] = {0: FakeBar(self)}
        self.bars: Mapping[int, Bar] = self._bars
        self.on_halt: Callable[[str], None] = self.log.append
        self._reset_registers()

    def _reset_registers(self) -> None:
        self._registers: dict[int, int] = {}
        self._pending, self._enabled = [0] * 16, [0] * 16
        self._top_enabled, self._busy = 0, False
        self._message_fd: int | None = getattr(self, "_message_fd", None)

    # registers

    def register_read(self, offset: int) -> int:
        """What a load gives."""
        self._alive()
        with self._lock:
            if offset in (BOOT_0.OFFSET, BOOT_42.OFFSET):
                high, low = self.chip.number >> 4, self.chip.number & 0xF
                old = BOOT_0.of(
                    architecture=high & 0x1F, architecture_high=high >> 5, implementation=low, major_revision=0xA, minor_revision=1
                )
                new = BOOT_42.of(architecture=high, implementation=low, major_revision=0xA, minor_revision=1)
                return old.raw if offset == BOOT_0.OFFSET else new.raw
            if offset == BOOT_1.OFFSET:
                return 0
            if offset == TOP.OFFSET:
                return self._top()
            if offset == INVALIDATE.OFFSET:
                return self._registers.get(offset, 0) & ~_BUSY | (_BUSY if self._busy else 0)
            for register, values in ((LEAF, self._pending), (LEAF_ENABLE_SET, self._enabled)):
                index = (offset - register.OFFSET) // 4
                if 0 <= index < 16 and offset >= register.OFFSET:
                    return values[index]
            return self._registers.get(offset, 0)

    def register_write(self, offset: int, value: int) -> None:
        """What a store does."""
        self._alive()
        send, halt = False, False
        with self._lock:
            if not self._tree_write(offset, value):
                self._registers[offset] = value
            if offset == USERMODE_DOORBELL.OFFSET:
                self.doorbells.append(value)
            elif offset == INVALIDATE.OFFSET and value & _BUSY:
                halt = self.faults.take("gsp-halt@invalidate") is not None
                self._busy = halt or self.faults.peek("stuck-invalidate")
                self.log.append(f"invalidate {self._registers.get(INVALIDATE_PDB.OFFSET, 0):#x}" + (" stuck" if self._busy else ""))
            send = self._message_due()
        if halt:
            self.on_halt("halted when an invalidate was triggered")
        if send:
            self._send()

    def _tree_write(self, offset: int, value: int) -> bool:
        if offset == TOP_ENABLE_SET.OFFSET:
            self._top_enabled |= value
            return True
        if offset == TOP_ENABLE_CLEAR.OFFSET:
            self._top_enabled &= ~value
            return True
        for register in (LEAF, LEAF_ENABLE_SET, LEAF_ENABLE_CLEAR):
            index = (offset - register.OFFSET) // 4
            if offset >= register.OFFSET and 0 <= index < 16:
                if register is LEAF:
                    self._pending[index] &= ~value
                elif register is LEAF_ENABLE_SET:
                    self._enabled[index] |= value
                else:
                    self._enabled[index] &= ~value
                return True
        return False

    def _top(self) -> int:
        return sum(1 << leaf // 2 for leaf in range(0, 16, 2) if any(self._pending[n] & self._enabled[n] for n in (leaf, leaf + 1)))

    def _message_due(self) -> bool:
        return bool(self._top() & self._top_enabled)

    def _send(self) -> None:
        fd = self._message_fd
        if fd is not None:
            os.eventfd_write(fd, 1)

    def raise_vector(self, vector: int) -> None:
        """The hardware raises a vector."""
        with self._lock:
            self._pending[vector // 32] |= 1 << vector % 32
            send = self._message_due()
        if send:
            self._send()

    def finish_invalidate(self) -> None:
        """A stuck invalidate ends after all."""
        self.faults.disarm("stuck-invalidate")
        self._busy = False

    def window_read(self, offset: int, size: int) -> bytes:
        """VRAM through the window."""
        self._alive()
        start = self._window() + offset
        return self._vram[start : start + size]

    def window_write(self, offset: int, data: bytes | memoryview) -> None:
        """VRAM through the window."""
        self._alive()
        start = self._window() + offset
        self._vram[start : start + len(data)] = bytes(data)

    def _window(self) -> int:
        register = WINDOW_HOPPER if self.chip.page_tables >= 3 else WINDOW
        return (self._registers.get(register.OFFSET, 0) & 0xFFFFFF) << 16

    def vram(self, start: int, size: int) -> bytes:
        """What VRAM holds, for assertions."""
        return self._vram[start : start + size]

    def poke(self, start: int, data: bytes) -> None:
        """Change VRAM behind the host's back."""
        self._vram[start : start + len(data)] = data

    # the Device contract

    @property
    def gone(self) -> bool:
        """Whether it left."""
        return self._gone

    def leave(self) -> None:
        """It leaves the bus."""
        self._gone = True

    def _alive(self) -> None:
        if self.faults.take("device-gone") is not None:
            self._gone = True
        if self._gone:
            raise DeviceGone(f"{self.source} left")

    def config_read(self, offset: int, size: int) -> bytes:
        """Zeros behind the ids."""
        self._alive()
        ids = (self.identity.device << 16 | self.identity.vendor).to_bytes(4, "little")
        return (ids + bytes(4092))[offset : offset + size]

    def config_write(self, offset: int, data: bytes) -> None:
        """Ignored."""
        self._alive()

    def connect_interrupt(self, kind: InterruptKind, vector: int, fd: int | None) -> None:
        """Its one message."""
        self._alive()
        self._message_fd = fd

    def set_bus_master(self, enabled: bool) -> None:
        """DMA or not."""
        self._alive()
        self.bus_master = enabled
        self.log.append(f"bus master {'on' if enabled else 'off'}")

    def allocate_dma(self, size: int, *, label: str) -> DmaBuffer:
        """Host memory."""
        self._alive()
        base, self._next_dma = self._next_dma, self._next_dma + (size + 0xFFFF) // 0x10000 * 0x10000
        buffer = FakeDma(self, size, label, base)
        self.buffers.add(buffer)
        return buffer

    def map_dma(self, address: int, size: int, fd: int, offset: int, *, readable: bool = True, writable: bool = True) -> None:
        """Not for clients' memory."""
        raise NotSupportedError("a fake maps no client memory")

    def unmap_dma(self, address: int, size: int) -> int:
        """Nothing is mapped."""
        return 0

    def reset(self) -> None:
        """Registers, interrupt tree and firmware start anew; VRAM keeps its contents."""
        self._alive()
        self.log.append("device reset")
        self.faults.disarm("stuck-invalidate")
        self.firmware_running = False
        self._reset_registers()

    def enable_functions(self, count: int) -> Sequence[VirtualFunction]:
        """That many VFs."""
        self._alive()
        if not 0 <= count <= self.total_functions:
            raise UsageError("more virtual functions than there are", expected=f"0 to {self.total_functions}", seen=count)
        self.functions = count
        self.log.append(f"virtual functions {count}")
        return [FakeFunction(self, index) for index in range(count)]

    def share(self, offset: int, size: int) -> SharedMemory:
        """A descriptor onto VRAM."""
        self._alive()
        if not self._share:
            raise NotSupportedError("this fake shares no memory")
        return SharedMemory(os.dup(self._fd), offset, size)

    def unshare(self, offset: int) -> int:
        """Nothing to end: every descriptor is onto the whole memory."""
        return 0

    def close(self) -> None:
        """The host lets go of it."""
        self.opened = False
        self._message_fd = None
        for buffer in tuple(self.buffers):
            buffer.close()

    def scrap(self) -> None:
        """The end of the fake itself, for tests that count descriptors."""
        self.close()
        self._vram.close()
        os.close(self._fd)


class FakeBus:
    """Sources "fake:NAME" of a fixed set of devices."""

    def __init__(self, gpus: Sequence[FakeGpu]) -> None:
        self.gpus = {gpu.source: gpu for gpu in gpus}
        self._callbacks: list[Callable[[BusEvent], None]] = []

    def open(self, source: str) -> Device:
        """The device of that source."""
        gpu = self.gpus.get(source)
        if gpu is None:
            raise NotFoundError(f"no fake {source!r}", expected=", ".join(self.gpus), seen=source)
        gpu._alive()
        gpu.opened = True
        return gpu

    def scan(self) -> Sequence[str]:
        """All sources."""
        return tuple(self.gpus)

    def subscribe(self, callback: Callable[[BusEvent], None]) -> Callable[[], None]:
        """Be told of removals."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def remove(self, source: str) -> None:
        """The device leaves, and the bus says so."""
        self.gpus[source].leave()
        for callback in tuple(self._callbacks):
            callback(BusEvent("removed", source))

    def close(self) -> None:
        """Nothing to release."""


def fake_bus(*gpus: FakeGpu) -> BusOffer:
    """An offer of a bus with these devices."""
    bus = FakeBus(gpus)
    return BusOffer("fake", "devices of a few registers", ("fake",), lambda config: bus)
