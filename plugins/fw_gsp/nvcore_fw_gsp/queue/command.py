"""The command sender: puts records into the command queue and rings the doorbell.

Owns the command queue's slots, its write pointer and the record counter. Used by one thread at a time (the caller holds the command lock).
Never reads the status queue's records; of the status queue it reads the firmware's read pointer only.
Source: open-gpu-kernel-modules 570.144, message_queue_cpu.c (GspMsgQueueSendCommand), rpc.c (large messages).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from nvcore.api.clock import Clock
from nvcore_fw_gsp.queue.errors import QueueCorrupt, QueueFull
from nvcore_fw_gsp.queue.layout import (
    CONTINUATION,
    ELEMENT_HEADER,
    HEADER_XOR,
    HEADERS,
    PAGE,
    RECORD,
    RECORD_SLOTS,
    RESULT_PENDING,
    RPC_HEADER,
    RPC_SIGNATURE,
    RPC_VERSION,
    RX_HEADER,
    SLOT,
    WRITE_POINTER,
    fold32,
)
from nvcore_fw_gsp.queue.memory import SharedBlock, kept

__all__ = ["CommandSender"]

_POLL = 0.0002


class CommandSender:
    """Sends into `block`. `doorbell()` tells the firmware; `alive()` raises when it makes no sense to wait any longer.

    max_payload: bytes of one record; longer messages are split into continuation records. sent: records so far.
    """

    __slots__ = ("_alive", "_clock", "_count", "_doorbell", "_fence", "_limit", "_pointer", "_ring", "_rx", "_write", "max_payload", "sent")

    def __init__(
        self, block: SharedBlock, doorbell: Callable[[], None], clock: Clock, *, alive: Callable[[], None], timeout: float
    ) -> None:
        self._count = (block.command_size - PAGE) // SLOT
        first = block.command + PAGE
        self._ring = block.view[first : first + self._count * SLOT]
        self._pointer = block.view[block.command + WRITE_POINTER : block.command + WRITE_POINTER + 4].cast("I")
        self._doorbell, self._clock, self._alive, self._limit = doorbell, clock, alive, timeout
        self._fence = threading.Lock()
        self._rx = block.view[block.status + RX_HEADER : block.status + RX_HEADER + 4].cast("I")
        self._write = self.sent = 0
        self.max_payload = min(RECORD_SLOTS, self._count - 1) * SLOT - HEADERS

    def link(self, block: SharedBlock, read_pointer: int) -> None:
        """Take the place of the firmware's read pointer from its own header (bytes from the status queue's start)."""
        at = block.status + read_pointer
        self._rx = block.view[at : at + 4].cast("I")

    def forget(self) -> None:
        """Let go of the block, so that it can be freed; the last pointers can still be read."""
        self._ring, self._pointer, self._rx = memoryview(b""), kept(self._pointer), kept(self._rx)

    @property
    def pointers(self) -> tuple[int, int]:
        """(write pointer, the firmware's read pointer), in slots."""
        return self._write, self._rx[0]

    def send(self, function: int, sequence: int, payload: bytes | bytearray | memoryview) -> None:
        """Send one message, in as many records as it needs; may sleep while the queue is full.

        Raises QueueFull when the firmware takes nothing out for the limit, QueueCorrupt when its read pointer makes no sense, and whatever
        `alive` raises.
        """
        size = len(payload)
        limit = self.max_payload
        if size <= limit:
            self._put(function, sequence, payload, size)
            return
        data = memoryview(payload)
        self._put(function, sequence, data[:limit], limit)
        for start in range(limit, size, limit):
            part = data[start : start + limit]
            self._put(CONTINUATION, sequence, part, len(part))

    def _put(self, function: int, sequence: int, payload: bytes | bytearray | memoryview, size: int) -> None:
        length = RPC_HEADER + size
        slots = (ELEMENT_HEADER + length + SLOT - 1) >> 12
        write, count = self._write, self._count
        read = self._rx[0]
        if read >= count or (read - write - 1) % count < slots:
            self._room(slots)
        number = self.sent & 0xFFFFFFFF
        ring, at = self._ring, write << 12
        # one Struct, the headers' XOR on integers, the payload copied once: bench rpc_queue
        checksum = HEADER_XOR ^ number ^ slots ^ length ^ function ^ sequence ^ fold32(payload)
        RECORD.pack_into(
            ring, at, checksum, number, slots, 0, RPC_VERSION, RPC_SIGNATURE, length, function, RESULT_PENDING, RESULT_PENDING, sequence, 0
        )
        start, pad = at + HEADERS, -size & 7
        room = (count << 12) - start
        if size + pad <= room:
            ring[start : start + size] = payload
            if pad:
                ring[start + size : start + size + pad] = bytes(pad)
        else:
            data = memoryview(payload)
            first = min(room, size)
            ring[start : start + first] = data[:first]
            ring[: size - first] = data[first:]
            if pad:  # slots are multiples of 8 bytes: the padding never straddles the end
                end = (start + size) % (count << 12)
                ring[end : end + pad] = bytes(pad)
        fence = self._fence  # two atomic operations: a barrier between data and pointer on every processor
        fence.acquire()
        fence.release()
        write += slots
        self._write = write = write - count if write >= count else write
        self._pointer[0] = write
        self.sent += 1
        fence.acquire()
        fence.release()
        self._doorbell()

    def _room(self, slots: int) -> None:
        """Wait until `slots` are free. The limit starts anew whenever the firmware takes something out."""
        clock, count, write = self._clock, self._count, self._write
        last = -1
        deadline = 0.0
        while True:
            read = self._rx[0]
            if read >= count:
                raise QueueCorrupt(
                    "the firmware's read pointer for the command queue is out of range",
                    expected=f"below {count}",
                    seen=read,
                    where="status queue, read pointer",
                )
            if (read - write - 1) % count >= slots:
                return
            self._alive()
            now = clock.now()
            if read != last:
                last, deadline = read, now + self._limit
            elif now >= deadline:
                raise QueueFull(
                    "no room in the command queue",
                    expected=f"{slots} free slots within {self._limit:g} s",
                    seen=f"{(read - write - 1) % count} free, write pointer {write}, read pointer {read}",
                    where="command queue",
                )
            clock.sleep(_POLL)
