"""Messages per second through the queues, against XOR and memcpy of the same bytes: `python tests/bench/rpc_queue.py`.

Prints one JSON object. Per size: sends and verified receives per second, and the limit (one integer fold and one copy of the payload).
Exit status 1 if a bar is missed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from nvcore.api.clock import SYSTEM
from nvcore_fw_gsp.queue.command import CommandSender
from nvcore_fw_gsp.queue.layout import QUEUE_HEADER, RECORD, fold32
from nvcore_fw_gsp.queue.memory import SharedBlock, block_size
from nvcore_fw_gsp.queue.status import StatusReceiver

SIZES = (64, 4096, 60_000, 1 << 20)
BARS = {64: {"send": 0.3, "receive": 0.2}, 4096: {"send": 0.5, "receive": 0.4}, 60_000: {"send": 0.6, "receive": 0.6}}
"""Least share of the limit, in the same run."""


class Buffer:
    """Host memory with made-up bus addresses."""

    def __init__(self, size: int) -> None:
        self.size, self.view, self.fd, self.contiguous = size, memoryview(bytearray(size)), -1, True

    def bus_address(self, offset: int = 0) -> int:
        """Identity."""
        return offset

    def close(self) -> None:
        """Nothing is held."""


def rate(call: Callable[[], object], seconds: float = 0.2) -> float:
    """Best of three rates of `call`, per second."""
    best = 0.0
    for _ in range(3):
        count, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < seconds:
            for _ in range(20):
                call()
            count += 20
        best = max(best, count / took)
    return best


def main() -> int:
    """Measure and print; 1 when a bar is missed."""
    rows = []
    for size in SIZES:
        block = SharedBlock(Buffer(block_size()))
        payload = bytes(range(256)) * (size // 256 + 1)
        payload = payload[:size]
        target = bytearray(size)
        QUEUE_HEADER.pack_into(block.view, block.status, 0, 0x40000, 0x1000, 63, 0, 1, 0x20, 0x1000)
        pointers = block.view[block.command : block.command + 64].cast("I")
        reader = block.view[block.status : block.status + 64].cast("I")

        def consume(reader: memoryview = reader, pointers: memoryview = pointers) -> None:
            reader[8] = pointers[4]

        sender = CommandSender(block, consume, SYSTEM, alive=lambda: None, timeout=1)
        send = rate(lambda: sender.send(0x4C, 1, payload))  # noqa: B023

        def limit() -> None:
            fold32(payload)  # noqa: B023
            target[:] = payload  # noqa: B023

        row = {"size": size, "send": send, "limit": rate(limit)}
        if size <= 0xFFB0:
            receiver = StatusReceiver(block)
            receiver.link()
            ring = block.view[block.status + 0x1000 :]
            slots = (0x50 + size + 0xFFF) >> 12
            head = bytearray(RECORD.pack(0, 0, slots, 0, 0x03000000, 0x43505256, 0x20 + size, 0x4C, 0, 0, 1, 0))
            ring[:0x50], ring[0x50 : 0x50 + size] = head, payload
            head[0x20:0x24] = fold32(ring[: 0x50 + size]).to_bytes(4, "little")
            ring[:0x50] = head

            def receive(receiver: StatusReceiver = receiver, reader: memoryview = reader, slots: int = slots) -> None:
                receiver._read = receiver._expected = 0
                reader[4] = slots
                assert receiver.take()

            row["receive"] = rate(receive)
        rows.append(row)
    missed = []
    for row in rows:
        for name, bar in BARS.get(int(row["size"]), {}).items():
            if row[name] < bar * row["limit"]:
                missed.append(f"{name} {row['size']} B")
    result = {"rows": rows, "limit": "one integer fold and one copy of the payload", "bars": BARS, "missed": missed, "ok": not missed}
    print(json.dumps(result, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
