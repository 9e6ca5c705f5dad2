"""The software GPU as a `nvcore.api.device.Device`: in process, one lock, interrupts by eventfd.

Owns the card (the model and its lock, which outlive one opening as a real card does) and one opening of it: DMA buffers, maps, connected
eventfds. Any thread. Nothing here interprets registers.
Source: nvcore.api.device; DESIGN 4, 6.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.device import Bar, InterruptKind, PciIdentity, SharedMemory
from nvcore.api.errors import ContractError, NotSupportedError, OutOfResources, UsageError
from nvcore.api.marks import may_sleep
from nvcore_softgpu.bars import RegisterBar, WindowBar, gone
from nvcore_softgpu.chips import Chip
from nvcore_softgpu.dma import SoftDmaBuffer
from nvcore_softgpu.faults import ArmedFaults
from nvcore_softgpu.journal import Violation
from nvcore_softgpu.memory import PAGE
from nvcore_softgpu.model import Model
from nvcore_softgpu.ports import Environment, Gsp, ImageShelf
from nvcore_softgpu.programs import BootProgram

__all__ = ["Card", "Inspector", "SoftDevice", "SoftFunction"]

FIRST_ADDRESS: Final = 1 << 42


class Card:
    """A GPU in its slot: the model, its lock, and the eventfds of whoever has it open."""

    def __init__(
        self,
        chip: Chip,
        vram_size: int,
        bar1_size: int,
        make_gsp: Callable[[Environment], Gsp],
        *,
        address: str = "0000:41:00.0",
        clock: Clock = SYSTEM,
        shelf: ImageShelf | None = None,
        faults: Sequence[str] = (),
        scattered: bool = False,
        programs: Sequence[BootProgram] = (),
    ) -> None:
        self.lock = threading.RLock()  # the inside of a device, not a lock of the host: it is below every named lock and calls nobody
        self.address = address
        self.scattered = scattered
        self.next_dma = FIRST_ADDRESS
        self.message_fd: int | None = None
        armed = ArmedFaults()
        for fault in faults:
            armed.arm(fault)
        self.model = Model(chip, vram_size, bar1_size, clock, self.lock, self._send, make_gsp, shelf, armed, programs)
        self.model.watch.update()
        self.holder: SoftDevice | None = None
        self.closed = False

    def _send(self) -> None:
        """Raise the message. What the receiver's descriptor is and does must not reach the register write that raises it: a message that
        it cannot take now, or at all, is counted."""
        if self.message_fd is None:
            return
        room = select.poll()
        room.register(self.message_fd, select.POLLOUT)
        try:
            if room.poll(0):  # one that is full would block, and the device with it
                os.eventfd_write(self.message_fd, 1)
                return
        except OSError:  # no eventfd
            pass
        self.model.messages_lost += 1

    def turns(self) -> Callable[[], float | None]:
        """Leave channels to the caller from now on: a doorbell only queues them. Each call of what is returned does one slice of at most
        64 KiB, and answers in how many seconds it wants to be called again (None: after the next access)."""
        lock, host = self.lock, self.model.host
        host.eager = False

        def turn() -> float | None:
            with lock:
                return host.turn()

        return turn

    def close(self) -> None:
        """Pull the card: whoever has it open gets DeviceGone. Idempotent."""
        if self.closed:
            return
        self.closed = True
        if self.holder is not None:
            self.holder.remove()
        self.model.ticker.close()
        with self.lock:
            self.model.close()


class Inspector:
    """The model's side of a card, for tests, `nvcore doctor` and the softgpu commands."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._model = card.model

    @property
    def violations(self) -> list[Violation]:
        """Distinct violations in the order first seen."""
        with self._card.lock:
            return self._model.journal.violations

    @property
    def unknown_registers(self) -> dict[tuple[int, bool], int]:
        """Accesses to registers without a row: (offset, write) to count."""
        with self._card.lock:
            return dict(self._model.journal.unknown_registers)

    @property
    def unknown_controls(self) -> dict[int, int]:
        """Controls without a handler: command to count."""
        with self._card.lock:
            return dict(self._model.journal.unknown_controls)

    @property
    def counters(self) -> dict[str, int]:
        """Counts since the start."""
        with self._card.lock:
            return self._model.counters()

    def view(self) -> dict[str, object]:
        """The device's own view of itself, JSON-able."""
        with self._card.lock:
            return self._model.view()

    def arm(self, fault: str) -> None:
        """Arm a fault: "NAME" or "NAME:ARGUMENT". Raises UnknownFault."""
        with self._card.lock:
            name = self._model.faults.arm(fault)
            self._model.watch.update()
            # a driver's prepare phase may send nothing at all: whoever arms this one does it at that moment
            if name == "gsp-halt@prepare" and self._model.gsp.running:
                self._model.faults.take(name)
                self._model.gsp.halt(f"fault {name}")

    def disarm(self, name: str | None = None) -> None:
        """Disarm one fault, or all; registers that a no-reply silenced answer again."""
        with self._card.lock:
            self._model.faults.disarm(name)
            if name in (None, "no-reply"):
                self._model.watch.silent.clear()
            self._model.watch.update()

    def faults_acted(self) -> list[str]:
        """Names of the faults that acted, in order."""
        with self._card.lock:
            return list(self._model.faults.acted)

    def trace(self, on: bool) -> dict[tuple[int, bool], int]:
        """Start or end counting BAR0 accesses by (offset, write); the counts so far."""
        with self._card.lock:
            seen = dict(self._model.watch.trace or {})
            self._model.watch.trace = {} if on else None
            self._model.watch.update()
            return seen

    def rows(self) -> list[tuple[int, str, str, str, str, int]]:
        """Every register row: offset, name, kind, meaning, source, count."""
        return [(row.offset, row.name, row.kind, row.meaning, row.source, row.number) for row in sorted(self._model.registers.rows)]

    def read_vram(self, offset: int, size: int) -> bytes:
        """Bytes of VRAM, past every protection: what a probe on the bench would see."""
        with self._card.lock:
            return bytes(self._model.memory.vram[offset : offset + size])

    def clear(self) -> None:
        """Forget violations and counts of unknowns."""
        with self._card.lock:
            self._model.journal.clear()


class SoftFunction:
    """A virtual function of an in-process card: it exists in configuration space and has no endpoint."""

    def __init__(self, device: SoftDevice, index: int, address: str, bar_sizes: Mapping[int, int]) -> None:
        self._device = device
        self.index = index
        self.address = address
        self.bar_sizes = bar_sizes

    @may_sleep
    def endpoint(self) -> str:
        """An in-process card has none."""
        raise NotSupportedError(
            f"virtual function {self.index} has no endpoint",
            where=self._device.source,
            remedy="serve the GPU in a process of its own: nvcore softgpu serve",
        )

    @may_sleep
    def reset(self) -> None:
        """Nothing of a virtual function's own runs in process: there is no state to lose."""
        self._device.check()


class SoftDevice:
    """One opening of a card. model: the card's own side (`Inspector`)."""

    def __init__(self, card: Card, source: str, *, owns_card: bool = True) -> None:
        self.source = source
        self.card = card
        self._model = card.model
        self._lock = card.lock
        self._owns_card = owns_card
        self._gone = False
        self._closed = False
        self._buffers: list[SoftDmaBuffer] = []
        chip = self._model.chip
        self.identity = PciIdentity(card.address, 0x10DE, chip.device_id, 0x10DE, 0x134F, 0xA1, 0x030200)
        model = self._model
        self._bars: tuple[RegisterBar | WindowBar, ...] = (
            RegisterBar(model.registers, model.watch, card.lock, source),
            WindowBar(1, model.bar1, card.lock, source),
            WindowBar(3, model.bar2, card.lock, source),
        )
        self.bars: Mapping[int, Bar] = {bar.index: bar for bar in self._bars}
        self.interrupts: Mapping[InterruptKind, int] = {"intx": 0, "msi": 1, "msix": 0}
        self.total_functions = chip.sriov.total_vfs
        self.model = Inspector(card)
        model.watch.on_gone = self.remove
        card.holder = self

    @property
    def gone(self) -> bool:
        """Whether the device left."""
        return self._gone

    def check(self) -> None:
        """Raise DeviceGone after removal, ContractError after close."""
        if self._gone:
            raise gone(self.source)
        if self._closed:
            raise ContractError("the device was closed", where=self.source)

    def remove(self) -> None:
        """The device leaves the bus: no access and no DMA from now on."""
        with self._lock:
            self._gone = True
            self._model.memory.bus_master = False
            for bar in self._bars:
                bar.remove()

    @may_sleep
    def config_read(self, offset: int, size: int) -> bytes:
        """Configuration space."""
        self.check()
        if offset < 0 or size < 0 or offset + size > 4096:
            raise ContractError("access outside configuration space", expected="0 to 4095", seen=f"{size} bytes at {offset:#x}")
        with self._lock:
            return self._model.config.read(offset, size)

    @may_sleep
    def config_write(self, offset: int, data: bytes) -> None:
        """Configuration space."""
        self.check()
        if offset < 0 or offset + len(data) > 4096:
            raise ContractError("access outside configuration space", expected="0 to 4095", seen=f"{len(data)} bytes at {offset:#x}")
        with self._lock:
            self._model.config.write(offset, data)

    @may_sleep
    def connect_interrupt(self, kind: InterruptKind, vector: int, fd: int | None) -> None:
        """Connect the one MSI vector; the descriptor is duplicated. Raises OutOfResources when it cannot be."""
        self.check()
        if not 0 <= vector < self.interrupts.get(kind, 0):
            raise UsageError(f"no {kind} vector {vector}", expected="msi vector 0", where=self.source)
        try:
            new = None if fd is None else os.dup(fd)
        except OSError as problem:
            raise OutOfResources("no descriptor for an interrupt", seen=str(problem), where=self.source) from problem
        with self._lock:
            old, self.card.message_fd = self.card.message_fd, new
        if old is not None:
            os.close(old)

    @may_sleep
    def set_bus_master(self, enabled: bool) -> None:
        """Allow or stop DMA; the lock makes sure that no access is under way when this returns."""
        self.check()
        with self._lock:
            self._model.config.set_bus_master(enabled)

    @may_sleep
    def allocate_dma(self, size: int, *, label: str) -> SoftDmaBuffer:
        """Zeroed host memory."""
        self.check()
        if size <= 0:
            raise UsageError("a DMA buffer of no bytes", expected="a positive size", seen=size, where=label)
        with self._lock:
            card = self.card
            buffer = SoftDmaBuffer(size, card.next_dma, label, card.scattered, self._unmap)
            if buffer.address + buffer.size > 1 << self._model.chip.address_bits:
                buffer.close()
                raise OutOfResources("no bus addresses left", expected=f"below 2**{self._model.chip.address_bits}", where=label)
            self._model.memory.map_view(buffer.address, buffer.device_view(), buffer.pages)
            card.next_dma += buffer.size + PAGE
            self._buffers = [known for known in self._buffers if not known.closed]
            self._buffers.append(buffer)
            return buffer

    def _unmap(self, address: int, size: int) -> int:
        with self._lock:
            return 0 if self.card.closed else self._model.memory.unmap(address, size)

    @may_sleep
    def map_dma(self, address: int, size: int, fd: int, offset: int, *, readable: bool = True, writable: bool = True) -> None:
        """Let the device reach a client's memory."""
        self.check()
        with self._lock:
            self._model.memory.map_file(address, size, fd, offset, readable, writable)

    @may_sleep
    def unmap_dma(self, address: int, size: int) -> int:
        """Take back every mapping inside the range."""
        self.check()
        return self._unmap(address, size)

    @may_sleep
    def reset(self) -> None:
        """Function-level reset. DMA maps of the transport stay, bus mastering is off."""
        self.check()
        with self._lock:
            self._model.function_reset()

    @may_sleep
    def enable_functions(self, count: int) -> Sequence[SoftFunction]:
        """Set the number of virtual functions."""
        self.check()
        if not 0 <= count <= self.total_functions:
            raise UsageError("not a number of virtual functions", expected=f"0 to {self.total_functions}", seen=count, where=self.source)
        with self._lock:
            self._model.config.set_functions(count)
        facts = self._model.chip.sriov
        sizes = {0: facts.bar0, 1: facts.bar1, 3: facts.bar2}
        return [SoftFunction(self, index, self._function_address(index), sizes) for index in range(count)]

    def _function_address(self, index: int) -> str:
        facts = self._model.chip.sriov
        domain, bus, _ = self.identity.address.split(":")
        routing = (int(bus, 16) << 8) + facts.first_vf_offset + index * facts.stride
        return f"{domain}:{routing >> 8 & 0xFF:02x}:{routing >> 3 & 0x1F:02x}.{routing & 7}"

    @may_sleep
    def share(self, offset: int, size: int) -> SharedMemory:
        """A descriptor onto VRAM; the extent becomes a sealed memfd of its own. Raises OutOfResources with nothing changed."""
        self.check()
        with self._lock:
            try:
                return SharedMemory(self._model.memory.share(offset, size), 0, size)
            except OSError as problem:
                raise OutOfResources("no descriptor or address range for a part of VRAM", seen=str(problem), where=self.source) from problem

    @may_sleep
    def unshare(self, offset: int) -> int:
        """Take an extent back, which scrubs it; bytes freed. Not part of the contract: the extent's owner frees through the core's
        ledger."""
        self.check()
        with self._lock:
            return self._model.memory.unshare(offset)

    @may_sleep
    def close(self) -> None:
        """Release the device. A card that belongs to a bus stays powered, as a real one does."""
        if self._closed:
            return
        self._closed = True
        for buffer in self._buffers:
            buffer.close()
        self._buffers.clear()
        with self._lock:
            self.remove()
            if not self.card.closed:
                self._model.memory.unmap(0, 1 << 64)
                self._model.config.set_bus_master(False)
            fd, self.card.message_fd = self.card.message_fd, None
            if self.card.holder is self:
                self.card.holder = None
        if fd is not None:
            os.close(fd)
        if self._owns_card:
            self.card.close()
