"""The host RPC channel of one vGPU: messages in its management heap, rung by a doorbell, answered by the firmware's task.

Owns the heap's head through the lease that the client gave. One message at a time per vGPU, under the vGPU's lock. The layout is the one of
the 570 firmware; the control buffer's version number does not tell layouts apart, so the firmware version chooses it. May sleep.
Source: "[RFC] nvidia-vgpu" patches of 2025 (drivers/vfio/pci/nvidia-vgpu), dev_vgpu_gsp.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from nvcore.api.clock import Clock
from nvcore.api.device import Bar
from nvcore.api.grant import Lease
from nvcore.locks import Lock
from nvcore_fw_gsp.queue.errors import CallRefused, CallTimeout, TaskGone
from nvcore_fw_gsp.session.status import status_name

__all__ = ["CHANNEL_SIZE", "HEAP_PARTS", "HeapPart", "HostRpc"]


class HeapPart(NamedTuple):
    """A buffer in the management heap: offset and size in bytes."""

    offset: int
    size: int


HEAP_PARTS: Final = {
    "control": HeapPart(0x000000, 0x1000),
    "response": HeapPart(0x001000, 0x1000),
    "message": HeapPart(0x002000, 0x1000),
    "migration": HeapPart(0x003000, 0x200000),
    "error": HeapPart(0x203000, 0x1000),
    "init-log": HeapPart(0x204000, 0x20000),
    "task-log": HeapPart(0x224000, 0x40000),
    "kernel-log": HeapPart(0x264000, 0x10000),
}
"""Where in the heap each buffer lies, by name."""

CHANNEL_SIZE: Final = 0x274000
"""Where the task's own heap begins."""

_VERSION: Final = 1
_BOOTLOADED: Final = 0x4E654A6F
_TYPE_AT, _NUMBER_AT, _BUFFERS_AT = 4, 8, 16
_PROCESSED_AT, _RESULT_AT = 4, 8
_DOORBELL: Final = 0xB82200
BOOT_TIMEOUT: Final = 10.0
MESSAGE_TIMEOUT: Final = 120.0
_POLL: Final = 0.0005


class HostRpc:
    """Messages to the task of virtual function `function`. alive(): raises when the firmware is dead; gone(function): the word of the
    firmware when it told that the task runs no more, else None."""

    __slots__ = ("_alive", "_bar", "_clock", "_function", "_gone", "_heap", "_lock", "_number", "_scale")

    def __init__(
        self, heap: Lease, bar: Bar, clock: Clock, function: int, alive: Callable[[], None], gone: Callable[[int], str | None], scale: float
    ) -> None:
        self._heap, self._bar, self._clock, self._function = heap, bar, clock, function
        self._alive, self._gone, self._scale = alive, gone, scale
        self._lock = Lock("fw_gsp.vgpu")
        self._number = 0

    def clear(self) -> None:
        """Before the task is started: a marker that an earlier task left would look like success."""
        for name in ("control", "response", "message"):
            part = HEAP_PARTS[name]
            self._heap.write(part.offset, bytes(part.size))

    def announce(self) -> None:
        """Tell the task where the buffers are."""
        offsets = struct.pack("<4Q", *(HEAP_PARTS[name].offset for name in ("response", "message", "migration", "error")))
        self._heap.write(_BUFFERS_AT, offsets)
        self._heap.write(0, struct.pack("<I", _VERSION))

    def wait_bootloaded(self) -> None:
        """Wait for the task's marker. Raises CallTimeout, TaskGone."""
        self._poll(_NUMBER_AT, _BOOTLOADED, BOOT_TIMEOUT, "the task's start")

    def send(self, message: int, body: bytes, what: str) -> bytes:
        """One message and its answer: the message buffer's first bytes as the task left them. Raises CallRefused, CallTimeout, TaskGone."""
        with self._lock:
            heap, buffer = self._heap, HEAP_PARTS["message"]
            heap.write(buffer.offset, body.ljust(64, b"\0"))
            self._number += 1
            heap.write(_TYPE_AT, struct.pack("<I", message))
            heap.write(_NUMBER_AT, struct.pack("<I", self._number))
            heap.read(_NUMBER_AT, 4)  # the stores have arrived when this returns
            self._bar.write32(_DOORBELL, self._function * 32 + 17)
            response = HEAP_PARTS["response"].offset
            self._poll(response + _PROCESSED_AT, self._number, MESSAGE_TIMEOUT, what)
            (result,) = struct.unpack("<I", heap.read(response + _RESULT_AT, 4))
            if result:
                raise CallRefused(
                    f"the vGPU task of function {self._function} refused {what}",
                    result,
                    seen=status_name(result),
                    where=f"message {message}",
                )
            return heap.read(buffer.offset, 64)

    def _poll(self, offset: int, wanted: int, timeout: float, what: str) -> None:
        clock, limit = self._clock, timeout * self._scale
        deadline = clock.now() + limit
        while True:
            gone = self._gone(self._function)  # before the look: what a task that is gone had answered counts
            seen = int.from_bytes(self._heap.read(offset, 4), "little")
            if seen == wanted:
                return
            self._alive()
            if gone is not None:
                raise TaskGone(f"the vGPU task of function {self._function} {gone} during {what}")
            if clock.now() >= deadline:
                raise CallTimeout(
                    f"the vGPU task of function {self._function} did not end {what}",
                    expected=f"{wanted:#x} within {limit:g} s",
                    seen=f"{seen:#x}",
                    where=f"heap + {offset:#x}",
                    remedy="nvcore events shows what the firmware said of it; nvcore dump keeps its logs",
                )
            clock.sleep(_POLL)
