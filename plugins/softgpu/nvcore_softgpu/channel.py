"""One channel: its GPFIFO, the PBDMA's methods, host semaphores, and what it hands to a copy object.

Owns the fetch and execute state of one channel as a generator that can stop after any slice and at an unsatisfied acquire. Runs under the
device's lock. Raises TranslationFault and ChannelError out of the generator; the host turns them into a channel fault.
Source: device-model.md 9.1 (Linux 7.3 nouveau nvif/chanc36f.c, gv100_fence.c; open-gpu-kernel-modules 570.144 clc56f.h, dev_pbdma.h).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

from nvcore_softgpu.copy import CopyObject
from nvcore_softgpu.ports import ChannelState, Memory, Violations
from nvcore_softgpu.vm import VirtualMemory

__all__ = ["BLOCKED", "Channel", "ChannelError"]

BLOCKED: Final = -1
"""A step's answer when a semaphore holds the channel: it did no work and wants to be asked again."""

NOTHING: Final = 64
METHOD: Final = 512
ENTRY: Final = 2048
"""What a word, a method and an entry of the ring count, in bytes of work: about as many as are copied in the same time (measured: 0.1, 0.8
and 3 us; 64 KiB that no cache holds: 90 us)."""
BREATH: Final = 1 << 13  # bytes of work after which a pushbuffer lets the host look around
FETCH: Final = 1 << 11  # words of a segment that are read at once
_HOST: Final = frozenset((0x08, 0x28, 0x2C, 0x30, 0x34, 0x44, 0x48, 0x50, 0x70, 0x74, 0x78, 0x7C, 0x80, 0x84, 0x8C))
WORD: Final = 0xFFFFFFFF


class ChannelError(Exception):
    """The pushbuffer is not what the PBDMA takes: `why` in words."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Channel:
    """A channel that the GSP made. enabled: scheduled; dead: stopped by a fault until it is freed; executed: methods so far."""

    def __init__(
        self,
        state: ChannelState,
        memory: Memory,
        violations: Violations,
        high_mask: int,
        copy_class: int,
        interrupt: Callable[[], None],
        nanoseconds: Callable[[], int],
    ) -> None:
        self.state = state
        self.enabled = False
        self.dead = False
        self.executed = 0
        self.objects: set[int] = set()
        self.work: Iterator[int] | None = None
        self._memory = memory
        self._violations = violations
        self._high = high_mask
        self._copy_class = copy_class
        self._interrupt = interrupt
        self._time = nanoseconds
        self._bound: dict[int, int] = {}
        self._copies: dict[int, CopyObject] = {}
        self._host: dict[int, int] = {}

    def pending(self) -> bool:
        """Whether GP_PUT is ahead of GP_GET."""
        get, put = struct.unpack("<II", self._memory.read(self.state.userd_aperture, self.state.userd + 0x88, 8))
        return bool(get != put)

    def run(self, vm: VirtualMemory) -> Iterator[int]:
        """Fetch and execute until GET meets PUT. Yields bytes of work, or BLOCKED while an acquire is not satisfied."""
        state, memory = self.state, self._memory
        userd, where = state.userd + 0x88, state.userd_aperture
        while True:
            get, put = struct.unpack("<II", memory.read(where, userd, 8))
            if get == put:
                return
            if put >= state.entries or get >= state.entries:
                raise ChannelError(f"GP_PUT {put} or GP_GET {get} outside {state.entries} entries")
            low, high = struct.unpack("<II", vm.read(state.gpfifo + 8 * get, 8))
            length = high >> 10 & 0x1FFFFF
            if length:
                address = (high & 0xFF) << 32 | low & 0xFFFFFFFC
                yield from self._segment(vm, address, length)
            memory.write(where, userd, ((get + 1) % state.entries).to_bytes(4, "little"))
            yield ENTRY

    def _segment(self, vm: VirtualMemory, address: int, length: int) -> Iterator[int]:
        """Execute `length` words. They are fetched a little at a time: a segment of 8 MiB must not hold the device while it is read."""
        words: memoryview | tuple[()] = ()
        first = stop = position = spent = 0  # words holds [first, stop) of the segment
        kind = left = step = subchannel = method = 0  # words of the method header at work that are still to come, and where they go
        while position < length:
            if spent >= BREATH:
                yield spent
                spent = 0
            if position >= stop:
                first, stop = position, min(position + FETCH, length)
                words = memoryview(vm.read(address + 4 * first, 4 * (stop - first))).cast("I")
            word = words[position - first]
            position += 1
            if left:
                left -= 1
                spent += METHOD
                yield from self._method(vm, subchannel, method, word)
                method += step
                if kind == 5:
                    step = 0
                continue
            spent += NOTHING
            kind, left = word >> 29, word >> 16 & 0x1FFF
            subchannel, method = word >> 13 & 7, (word & 0xFFF) << 2
            if kind == 7:
                break
            if kind == 4:
                spent += METHOD
                yield from self._method(vm, subchannel, method, left)
                left = 0
            elif kind in (1, 3, 5):
                step = 0 if kind == 3 else 4
                if position + left > length:
                    raise ChannelError(f"header {word:#010x} asks for {left} words, {length - position} are left in the segment")
            elif word:
                raise ChannelError(f"pushbuffer header {word:#010x} at {address + 4 * (position - 1):#x}")
        yield spent

    def _method(self, vm: VirtualMemory, subchannel: int, method: int, value: int) -> Iterator[int]:
        self.executed += 1
        if method < 0x100:
            if method == 0:
                self._bind(subchannel, value & 0xFFFF)
            else:
                yield from self._host_method(vm, method, value)
            return
        copy = self._copies.get(subchannel)
        if copy is not None:
            yield from copy.method(method, value, vm)
        elif subchannel not in self._bound:
            raise ChannelError(f"method {method:#x} on subchannel {subchannel} without an object")

    def _bind(self, subchannel: int, class_id: int) -> None:
        if class_id not in self.objects and class_id not in self.state.objects.values():
            raise ChannelError(f"SET_OBJECT of class {class_id:#x}, which was not allocated under the channel")
        self._bound[subchannel] = class_id
        self._copies.pop(subchannel, None)
        if class_id == self._copy_class:
            self._copies[subchannel] = CopyObject(self._violations, self._high_copy(), self._interrupt, self._time)

    def _high_copy(self) -> int:
        return 0x1FFFF if self._high == 0xFF else 0x1FFFFFF

    # --- host methods -------------------------------------------------------------------------------------------------------------

    def _host_method(self, vm: VirtualMemory, method: int, value: int) -> Iterator[int]:
        self._host[method] = value
        if method == 0x6C:
            get = self._host.get
            address = (get(0x60, 0) & self._high) << 32 | get(0x5C, 0) & ~3
            payload = get(0x64, 0) | (get(0x68, 0) << 32 if value >> 24 & 1 else 0)
            yield from self._semaphore(vm, value & 7, address, payload, bool(value >> 24 & 1), bool(value >> 25 & 1))
        elif method == 0x1C:
            get = self._host.get
            address = (get(0x10, 0) & 0xFF) << 32 | get(0x14, 0) & ~3
            operation = {1: 0, 2: 1, 4: 3, 8: 4}.get(value & 0xF)
            if operation is None:
                raise ChannelError(f"semaphore operation {value:#x}")
            yield from self._semaphore(vm, operation, address, get(0x18, 0), False, operation == 1 and not value >> 24 & 1)
        elif method == 0x20:
            self._interrupt()
        elif method not in _HOST and method not in (0x10, 0x14, 0x18, 0x5C, 0x60, 0x64, 0x68):
            self._violations.violation("unknown-method", f"host method {method:#x}")

    def _semaphore(self, vm: VirtualMemory, operation: int, address: int, payload: int, wide: bool, timestamp: bool) -> Iterator[int]:
        size = 8 if wide else 4
        if operation == 1:
            data = payload.to_bytes(size, "little")
            if timestamp:
                data = payload.to_bytes(8, "little") + self._time().to_bytes(8, "little")
            vm.write(address, data)
            return
        if operation == 6:
            self._reduce(vm, address, payload, size)
            return
        if operation > 5:
            raise ChannelError(f"semaphore operation {operation}")
        while not _satisfied(operation, int.from_bytes(vm.read(address, size), "little"), payload, 8 * size):
            yield BLOCKED

    def _reduce(self, vm: VirtualMemory, address: int, payload: int, size: int) -> None:
        """SEM_EXECUTE bits 30:27 name the operation: 0 min, 1 max, 2 xor, 3 and, 4 or, 5 add, 6 inc, 7 dec (bit 31 signed: not
        modelled)."""
        value = int.from_bytes(vm.read(address, size), "little")
        kind = self._host[0x6C] >> 27 & 0xF
        wrap = (1 << 8 * size) - 1
        results = {
            0: min(value, payload), 1: max(value, payload), 2: value ^ payload, 3: value & payload, 4: value | payload, 5: value + payload,
            6: 0 if value >= payload else value + 1, 7: payload if value in (0,) or value > payload else value - 1,
        }  # fmt: skip
        if kind not in results:
            raise ChannelError(f"semaphore reduction {kind}")
        vm.write(address, (results[kind] & wrap).to_bytes(size, "little"))


def _satisfied(operation: int, value: int, payload: int, bits: int) -> bool:
    """Acquire: 0 equal, 2 plain >=, 3 circular >=, 4 AND, 5 NOR."""
    if operation == 0:
        return value == payload
    if operation == 2:
        return value >= payload
    if operation == 3:
        return not (value - payload) >> (bits - 1) & 1
    if operation == 4:
        return bool(value & payload)
    return bool(~(value | payload) & (1 << bits) - 1)
