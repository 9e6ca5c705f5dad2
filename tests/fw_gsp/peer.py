"""A GSP at queue level, written from the public headers alone: shares no code with the driver's queues.

It maps the shared block through its page list, creates the status queue, reads commands record by record, and writes answers and events.
"""

from __future__ import annotations

import struct
from collections.abc import Callable


class Buffer:
    """A DmaBuffer whose pages have scattered bus addresses."""

    fd = -1
    contiguous = False

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = bytearray(size)
        self.view = memoryview(self.memory)

    def bus_address(self, offset: int = 0) -> int:
        page, rest = divmod(offset, 4096)
        return 0x7_0000_0000 + (page * 7919 % 65536) * 4096 + rest

    def close(self) -> None: ...


def xor_words(data: bytes) -> int:
    data = data + bytes(-len(data) % 8)
    total = 0
    for (word,) in struct.iter_unpack("<Q", data):
        total ^= word
    return total >> 32 ^ total & 0xFFFFFFFF


class Peer:
    """handler(function, sequence, payload) → answers as (function, result, sequence, payload), called for each whole message."""

    def __init__(
        self, buffer: Buffer, command: int = 0x1000, status: int = 0x41000, size: int = 0x40000, status_size: int = 0x40000
    ) -> None:
        self.buffer, self.command, self.status = buffer, command, status
        self.slots, self.status_slots, self.status_size = (size - 0x1000) // 0x1000, (status_size - 0x1000) // 0x1000, status_size
        self.read = self.write = self.sent = self.records = 0
        self.partial: list[bytes] = []
        self.head: tuple[int, int] = (0, 0)
        self.expect = 0
        self.got: list[tuple[int, int, bytes]] = []
        self.answer: Callable[[int, int, bytes], None] | None = None
        pages = {struct.unpack_from("<Q", buffer.memory, i * 8)[0] for i in range(len(buffer.memory) // 4096)}
        assert pages == {buffer.bus_address(i * 4096) for i in range(len(buffer.memory) // 4096)}, "page list"

    # the firmware's own header
    def start(self) -> None:
        struct.pack_into(
            "<8I", self.buffer.memory, self.status, 0, self.status_size, 0x1000, self.status_slots, self.write, 1, 0x20, 0x1000
        )

    @property
    def memory(self) -> bytearray:
        return self.buffer.memory

    def u32(self, at: int) -> int:
        return int(struct.unpack_from("<I", self.memory, at)[0])

    def doorbell(self) -> None:
        while self.read != self.u32(self.command + 0x10):
            self.take_command()

    def _bytes(self, base: int, slots: int, slot: int, size: int) -> bytes:
        ring = self.memory[base + 0x1000 : base + 0x1000 + slots * 0x1000]
        start = slot * 0x1000
        return bytes((ring + ring)[start : start + size])

    def take_command(self) -> None:
        head = self._bytes(self.command, self.slots, self.read, 0x50)
        assert head[:32] == bytes(32)
        _check, number, count, pad = struct.unpack_from("<4I", head, 32)
        version, signature, length, function, result, private, sequence, spare = struct.unpack_from("<8I", head, 48)
        assert (version, signature, result, private, spare, pad) == (0x03000000, 0x43505256, 0xFFFFFFFF, 0xFFFFFFFF, 0, 0)
        assert number == self.records, "record number"
        assert count == -(-(0x30 + length) // 0x1000) <= 16, "element count"
        assert length <= 0xFFD0
        available = (self.u32(self.command + 0x10) - self.read) % self.slots
        assert count <= available, "record beyond the write pointer"
        whole = self._bytes(self.command, self.slots, self.read, -(-(0x30 + length) // 8) * 8)
        assert xor_words(whole) == 0, "checksum"
        self.records += 1
        self.read = (self.read + count) % self.slots
        struct.pack_into("<I", self.memory, self.status + 0x20, self.read)
        payload = whole[0x50 : 0x30 + length]
        if function == 0x47:
            assert self.partial, "continuation of nothing"
            self.partial.append(payload)
        else:
            self.flush()
            self.head, self.partial = (function, sequence), [payload]
        if len(payload) < 0xFFB0 or sum(map(len, self.partial)) == self.expect:
            self.flush()

    def flush(self) -> None:
        if self.partial:
            message = (*self.head, b"".join(self.partial))
            self.partial = []
            self.got.append(message)
            if self.answer is not None:
                self.answer(*message)

    def room(self) -> int:
        read = self.u32(self.command + 0x20)
        return (read - self.write - 1) % self.status_slots

    def put(
        self, function: int, payload: bytes, result: int = 0, sequence: int = 0, *, number: int | None = None, bad: bool = False
    ) -> None:
        """One record into the status queue."""
        length = 0x20 + len(payload)
        count = -(-(0x30 + length) // 0x1000)
        assert self.room() >= count, "status queue full"
        record = bytearray(
            struct.pack(
                "<32x4I8I",
                0,
                self.sent if number is None else number,
                count,
                0,
                0x03000000,
                0x43505256,
                length,
                function,
                result,
                0,
                sequence,
                0,
            )
        )
        record += payload
        record += bytes(-len(record) % 8)
        struct.pack_into("<I", record, 32, xor_words(bytes(record)) ^ (1 if bad else 0))
        base, size = self.status + 0x1000, self.status_slots * 0x1000
        start = self.write * 0x1000
        first = min(size - start, len(record))
        self.memory[base + start : base + start + first] = record[:first]
        self.memory[base : base + len(record) - first] = record[first:]
        self.write = (self.write + count) % self.status_slots
        self.sent += 1
        struct.pack_into("<I", self.memory, self.status + 0x10, self.write)

    def put_message(self, function: int, payload: bytes, result: int = 0, sequence: int = 0) -> None:
        """One message, split where it must be."""
        self.put(function, payload[:0xFFB0], result, sequence)
        for start in range(0xFFB0, len(payload), 0xFFB0):
            self.put(0x47, payload[start : start + 0xFFB0], result, sequence)
