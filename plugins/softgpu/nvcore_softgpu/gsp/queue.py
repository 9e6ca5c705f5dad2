"""The GSP's end of the two message rings: it consumes commands, it produces status records.

Owns the read index of the command ring and the write index of the status ring. Never writes the driver's half of the block, never trusts
a length, index or count that the driver wrote. Runs on the caller's thread under the device's lock.
Source: open-gpu-kernel-modules 570.144, message_queue_cpu.c, message_queue_priv.h, msgq.c; the swap flag decides who writes which
pointer.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import NamedTuple

from nvcore_softgpu.gsp.shared_memory import PAGE, BadBlock, SharedMemory
from nvcore_softgpu.ports import Violations

__all__ = ["ELEMENT_HEADER", "MAX_RPC", "MAX_SLOTS", "RPC_HEADER", "CommandRing", "Record", "StatusRing", "fold"]

ELEMENT_HEADER = 0x30  # bytes in front of the RPC header
RPC_HEADER = 0x20  # bytes in front of the payload
MAX_SLOTS = 16  # of one record
MAX_RPC = MAX_SLOTS * PAGE - ELEMENT_HEADER  # bytes of one record's RPC, its header included
SWAP_RX = 1
_TX = struct.Struct("<8I")  # version, size, msgSize, msgCount, writePtr, flags, rxHdrOff, entryOff
_RX_OFFSET = 0x20
_WRITE_POINTER = 0x10
_ELEMENT = struct.Struct("<32x4I")  # checkSum, seqNum, elemCount, padding
_RPC = struct.Struct("<8I")
_VERSION = 0x03000000
_SIGNATURE = 0x43505256
# a driver that never reads its status ring must not make the model grow without bound
MAX_WAITING = 4096


def fold(data: bytes) -> int:
    """XOR of all 64-bit words of `data` (padded with zeros), the halves folded together: 0 over a record whose checksum is right."""
    size = 8
    while size < len(data):
        size *= 2
    value = int.from_bytes(data, "little")
    # halving a big integer: 13 steps for 64 KiB instead of 8,192 words
    while size > 4:
        size //= 2
        value = (value >> (size * 8)) ^ (value & ((1 << (size * 8)) - 1))
    return value


class Record(NamedTuple):
    """One record of the command ring, checked."""

    function: int
    result: int
    sequence: int
    gfid: int
    payload: bytes


def _geometry(header: tuple[int, ...], room: int) -> str | None:
    version, size, message, count, write, _, rx, entry = header
    if version != 0:
        return f"version {version}"
    if message != PAGE:
        return f"slot size {message:#x}, expected {PAGE:#x}"
    if size < 3 * PAGE or size > room or size % PAGE:
        return f"size {size:#x} with {room:#x} bytes of block behind it"
    if rx < _TX.size or rx % 4 or rx + 4 > entry:
        return f"receive header at {rx:#x}, entries at {entry:#x}"
    if entry % PAGE or entry + 2 * message > size:
        return f"entries at {entry:#x} of {size:#x}"
    if count != (size - entry) // message:
        return f"{count} slots, expected {(size - entry) // message}"
    if write >= count:
        return f"write pointer {write} of {count}"
    return None


class CommandRing:
    """Consumer of the command queue."""

    __slots__ = ("_base", "_block", "_count", "_entry", "_odd", "_read", "_read_at", "_sequence", "_violations", "rx_offset")

    def __init__(self, block: SharedMemory, offset: int, status_offset: int, violations: Violations) -> None:
        """Link to the header that the driver wrote. Raises BadBlock when a link is not possible."""
        header = _TX.unpack(block.read(offset, _TX.size))
        wrong = _geometry(header, block.size - offset)
        if wrong is not None:
            raise BadBlock(f"command queue header: {wrong}")
        if not header[5] & SWAP_RX:
            raise BadBlock("command queue header: the swap flag is not set")
        self._block, self._base, self._violations = block, offset, violations
        self._count, self._entry, self.rx_offset = header[3], header[7], header[6]
        self._read = self._sequence = 0
        self._odd: int | None = None
        self._read_at = status_offset + _RX_OFFSET
        block.write_u32(self._read_at, 0)

    @property
    def size(self) -> int:
        """Bytes of the queue, header page included."""
        return int(self._entry + self._count * PAGE)

    def _available(self) -> int:
        write = self._block.read_u32(self._base + _WRITE_POINTER)
        if write >= self._count:
            if write != self._odd:
                self._violations.violation("queue-pointer", f"command write pointer {write} of {self._count} slots")
            self._odd = write
            return 0
        self._odd = None
        return int((write - self._read) % self._count)

    def _bytes(self, size: int) -> bytes:
        start = self._base + self._entry + self._read * PAGE
        to_end = (self._count - self._read) * PAGE
        if size <= to_end:
            return self._block.read(start, size)
        return self._block.read(start, to_end) + self._block.read(self._base + self._entry, size - to_end)

    def _advance(self, slots: int) -> None:
        self._read = (self._read + slots) % self._count
        self._block.write_u32(self._read_at, self._read)

    def _framing(self, slots: int, length: int, available: int) -> str | None:
        if not RPC_HEADER <= length <= MAX_RPC:
            return f"length {length:#x}, allowed {RPC_HEADER:#x} to {MAX_RPC:#x}"
        if slots != (ELEMENT_HEADER + length + PAGE - 1) // PAGE:
            return f"{slots} slots announced for a length of {length:#x}"
        if slots > available:
            return f"{slots} slots announced, {available} written"
        return None

    def next(self) -> Record | None:
        """The next good record, its slots given back; None when the ring is empty. Bad ones are logged and dropped."""
        while True:
            available = self._available()
            if not available:
                return None
            head = self._bytes(ELEMENT_HEADER + RPC_HEADER)
            _, sequence, slots, padding = _ELEMENT.unpack_from(head)
            rpc = _RPC.unpack_from(head, ELEMENT_HEADER)
            length = rpc[2]
            wrong = self._framing(slots, length, available)
            if wrong is not None:
                # without a trustworthy length nothing behind it can be found either
                self._violations.violation("queue-framing", wrong)
                self._advance(available)
                return None
            data = self._bytes((ELEMENT_HEADER + length + 7) & ~7)
            self._advance(slots)
            if self._refused(data, sequence, padding, rpc):
                continue
            return Record(rpc[3], rpc[4], rpc[6], rpc[7], data[ELEMENT_HEADER + RPC_HEADER : ELEMENT_HEADER + length])

    def _refused(self, data: bytes, sequence: int, padding: int, rpc: tuple[int, ...]) -> bool:
        report = self._violations.violation
        if fold(data):
            report("queue-checksum", f"record {sequence}: the sum is {fold(data):#x}, expected 0")
            return True
        expected = self._sequence
        if sequence != expected:
            report("queue-sequence", f"record number {sequence}, expected {expected}")
            if sequence < expected:
                return True
        self._sequence = (sequence + 1) & 0xFFFFFFFF
        if padding or any(data[:32]):
            report("queue-header", "authentication tag, additional data or padding is not zero")
        if rpc[0] != _VERSION or rpc[1] != _SIGNATURE:
            report("rpc-header", f"version {rpc[0]:#x}, signature {rpc[1]:#x}")
            return True
        if rpc[4] != 0xFFFFFFFF or rpc[5] != 0xFFFFFFFF:
            report("rpc-header", f"a request whose result is {rpc[4]:#x}, {rpc[5]:#x} instead of pending")
        return False


class StatusRing:
    """Producer of the status queue, with the records that found no room yet."""

    __slots__ = (
        "_base",
        "_block",
        "_count",
        "_odd",
        "_peer_read_at",
        "_sequence",
        "_violations",
        "_waiting",
        "_write",
        "posted",
        "spoil_checksum",
        "spoil_sequence",
        "spoil_slots",
    )

    def __init__(self, block: SharedMemory, offset: int, size: int, command_offset: int, violations: Violations) -> None:
        """Write the transmit header: the driver may link from here on. Raises BadBlock when the queue does not fit the block."""
        self._count = (size - PAGE) // PAGE
        if offset % PAGE or offset + size > block.size or self._count < 2:
            raise BadBlock(f"status queue of {size:#x} bytes at {offset:#x}, block of {block.size:#x}")
        self._block, self._base, self._violations = block, offset, violations
        self._write = self._sequence = self.posted = 0
        self._odd: int | None = None
        # fault injection: taken by the next record, then cleared
        self.spoil_checksum = self.spoil_sequence = self.spoil_slots = 0
        self._peer_read_at = command_offset + _RX_OFFSET
        self._waiting: deque[bytes] = deque()
        block.write(offset, _TX.pack(0, size, PAGE, self._count, 0, SWAP_RX, _RX_OFFSET, PAGE) + bytes(4))

    def link(self, peer_read_at: int) -> None:
        """Where the driver keeps its read pointer, as its own header says."""
        self._peer_read_at = peer_read_at

    @property
    def waiting(self) -> int:
        """Records that found no room."""
        return len(self._waiting)

    def _free(self) -> int:
        read = self._block.read_u32(self._peer_read_at)
        if read >= self._count:
            # looked at again and again while something waits: named once per value
            if read != self._odd:
                self._violations.violation("queue-pointer", f"status read pointer {read} of {self._count} slots")
            self._odd = read
            return 0
        self._odd = None
        return (read - self._write - 1) % self._count

    def post(self, function: int, payload: bytes, *, result: int = 0, sequence: int = 0, event: bool = False) -> bool:
        """Queue one record of at most MAX_RPC bytes; True when something new became visible. An event is dropped when too much waits."""
        if event and len(self._waiting) >= MAX_WAITING:
            self._violations.violation("status-overflow", f"{len(self._waiting)} records wait for room")
            return False
        length = RPC_HEADER + len(payload)
        self._waiting.append(_RPC.pack(_VERSION, _SIGNATURE, length, function, result, result, sequence, 0) + payload)
        return self.pump()

    def pump(self) -> bool:
        """Move waiting records into free slots; True when the write pointer moved."""
        moved = False
        while self._waiting:
            rpc = self._waiting[0]
            slots = (ELEMENT_HEADER + len(rpc) + PAGE - 1) // PAGE
            if slots > self._free():
                break
            self._waiting.popleft()
            self._put(rpc, slots)
            moved = True
        return moved

    def _put(self, rpc: bytes, slots: int) -> None:
        head = bytes(32) + struct.pack("<4I", 0, (self._sequence + self.spoil_sequence) & 0xFFFFFFFF, slots + self.spoil_slots, 0)
        checksum = fold(head + rpc) ^ self.spoil_checksum
        body = head[:32] + checksum.to_bytes(4, "little") + head[36:] + rpc
        body += bytes(-len(body) % 8)
        self.spoil_checksum = self.spoil_sequence = self.spoil_slots = 0
        entries = self._base + PAGE
        room = (self._count - self._write) * PAGE
        self._block.write(entries + self._write * PAGE, body[:room])
        if len(body) > room:
            self._block.write(entries, body[room:])
        self._write = (self._write + slots) % self._count
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        self.posted += 1
        # data first, then the pointer that makes it visible
        self._block.write_u32(self._base + _WRITE_POINTER, self._write)
