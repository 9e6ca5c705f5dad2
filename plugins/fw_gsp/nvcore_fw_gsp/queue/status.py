"""The status receiver: takes records out of the status queue and believes nothing it has not checked.

Owns the read pointer and the expected record number. Used by one thread at a time: the opener while booting, the core's receiver
afterwards.
Takes no lock, sends nothing, calls nobody.
Source: open-gpu-kernel-modules 570.144, message_queue_cpu.c (GspMsgQueueReceiveStatus).
"""

from __future__ import annotations

import threading

from nvcore_fw_gsp.queue.errors import QueueCorrupt
from nvcore_fw_gsp.queue.layout import (
    ELEMENT_HEADER,
    HEADERS,
    RECORD,
    RECORD_SLOTS,
    RPC_HEADER,
    RPC_SIGNATURE,
    RPC_VERSION,
    RX_HEADER,
    SLOT,
    WRITE_POINTER,
    fold32,
)
from nvcore_fw_gsp.queue.memory import SharedBlock, kept

__all__ = ["Record", "StatusReceiver"]

_MAX_LENGTH = RECORD_SLOTS * SLOT - ELEMENT_HEADER
_READS = 3

Record = tuple[int, int, int, bytes]
"""function, result, sequence, payload."""


class StatusReceiver:
    """Receives from `block`. `linked` once the firmware wrote a header that can be used. stale: records of a number seen before,
    skipped."""

    __slots__ = ("_block", "_count", "_expected", "_fence", "_pointer", "_read", "_ring", "_write", "linked", "stale")

    def __init__(self, block: SharedBlock) -> None:
        self._block = block
        self._count = 0
        self._ring = block.view[:0]
        self._write = block.view[block.status + WRITE_POINTER : block.status + WRITE_POINTER + 4].cast("I")
        # our read pointer lives in our own queue's header page: both sides set the swap flag
        self._pointer = block.view[block.command + RX_HEADER : block.command + RX_HEADER + 4].cast("I")
        self._fence = threading.Lock()
        self._read = self._expected = self.stale = 0
        self.linked = False

    def link(self) -> int | None:
        """Look for the firmware's header; the offset of its read pointer once it is there, else None. Raises QueueCorrupt."""
        header = self._block.status_header()
        if header is None:
            return None
        count, entry, rx = header
        first = self._block.status + entry
        self._count, self._ring, self.linked = count, self._block.view[first : first + count * SLOT], True
        return rx

    def forget(self) -> None:
        """Let go of the block, so that it can be freed; the last pointers can still be read."""
        self._ring, self._write, self._pointer = memoryview(b""), kept(self._write), kept(self._pointer)
        self.linked = False

    @property
    def pointers(self) -> tuple[int, int]:
        """(the firmware's write pointer, read pointer), in slots."""
        return self._write[0], self._read

    def take(self) -> Record | None:
        """The next record, or None. Raises QueueCorrupt; the queue must not be used afterwards."""
        read = self._read
        while (write := self._write[0]) != read:
            count = self._count
            if write >= count:
                raise self._corrupt("write pointer out of range", f"below {count}", write)
            fence = self._fence
            fence.acquire()
            fence.release()
            record, slots, fresh = self._read_record(read, (write - read) % count)
            read += slots
            self._read = read = read - count if read >= count else read
            fence.acquire()
            fence.release()
            self._pointer[0] = read
            if fresh:
                return record
            self.stale += 1
        return None

    def _read_record(self, read: int, available: int) -> tuple[Record, int, bool]:
        ring, at = self._ring, read << 12
        for attempt in range(_READS):  # the reference reads a record with a bad sum again; the data may still be on its way
            _sum, number, slots, _pad, version, signature, length, function, result, _private, sequence, _spare = RECORD.unpack_from(
                ring, at
            )
            if not RPC_HEADER <= length <= _MAX_LENGTH:
                raise self._corrupt("length out of range", f"{RPC_HEADER:#x} to {_MAX_LENGTH:#x}", f"{length:#x}")
            total = ELEMENT_HEADER + length
            needed = (total + SLOT - 1) >> 12
            if slots != needed or slots > available:
                raise self._corrupt("slot count does not fit", f"{needed} (length {length:#x}), at most {available}", slots)
            padded = (total + 7) & ~7
            room = len(ring) - at
            if padded <= room:
                check = fold32(ring[at : at + padded])
                payload = bytes(ring[at + HEADERS : at + total])
            else:
                check = fold32(ring[at:]) ^ fold32(ring[: padded - room])
                payload = bytes(ring[at + HEADERS :]) + bytes(ring[: total - room])
            if check == 0:
                break
            if attempt == _READS - 1:
                raise self._corrupt("checksum wrong", "0 over the record", f"{check:#x}")
        if version != RPC_VERSION or signature != RPC_SIGNATURE:
            raise self._corrupt("not an RPC header", f"{RPC_VERSION:#x} {RPC_SIGNATURE:#x}", f"{version:#x} {signature:#x}")
        behind = (number - self._expected) & 0xFFFFFFFF
        if behind == 0:
            self._expected = (number + 1) & 0xFFFFFFFF
        elif behind < 0x80000000:
            raise self._corrupt("record number skips", self._expected, number)
        return (function, result, sequence, payload), slots, behind == 0

    def _corrupt(self, what: str, expected: object, seen: object) -> QueueCorrupt:
        return QueueCorrupt(
            f"a record of the status queue cannot be used: {what}",
            expected=expected,
            seen=seen,
            where=f"status queue, slot {self._read}, record {self._expected}",
            remedy="the firmware is declared dead; nvcore dump keeps the queue",
        )
