"""RPC functions by number, and messages put together from records and cut into records.

Owns the one unfinished message of the command stream. Never interprets a payload beyond the length that its function implies.
Runs on the caller's thread under the device's lock.
Source: open-gpu-kernel-modules 570.144, rpc_global_enums.h, g_rpc-structures.h, rpc.c; the same numbers in 535.113.01.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from nvcore_softgpu.gsp.queue import MAX_RPC, RPC_HEADER, Record
from nvcore_softgpu.ports import Violations

__all__ = ["CONTINUATION", "FUNCTIONS", "MAX_PAYLOAD", "Assembler", "Fn", "Message", "cut", "function_name"]

MAX_PAYLOAD: Final = MAX_RPC - RPC_HEADER
"""Bytes of payload that one record can hold."""

# the longest request of any version is a page list of a suspend buffer; far above it a length is garbage
MAX_MESSAGE: Final = 16 << 20


class Fn:
    """Function numbers that the model answers."""

    ALLOC_MEMORY = 0x04
    FREE = 0x0A
    UNLOADING_GUEST_DRIVER = 0x2F
    SET_PAGE_DIRECTORY = 0x36
    GET_GSP_STATIC_INFO = 0x41
    UPDATE_BAR_PDE = 0x46
    CONTINUATION_RECORD = 0x47
    GSP_SET_SYSTEM_INFO = 0x48
    SET_REGISTRY = 0x49
    GSP_RM_CONTROL = 0x4C
    UNSET_PAGE_DIRECTORY = 0x4F
    GSP_RM_ALLOC = 0x67


CONTINUATION: Final = Fn.CONTINUATION_RECORD
"""Function number of the second and later records of a split message."""

FUNCTIONS: Final[dict[int, str]] = {value: name for name, value in vars(Fn).items() if isinstance(value, int) and not name.startswith("_")}
"""Their names, by number."""


def function_name(number: int) -> str:
    """The name of a function, or its number."""
    return FUNCTIONS.get(number, f"function {number:#x}")


class Message(NamedTuple):
    """One whole request."""

    function: int
    sequence: int
    gfid: int
    payload: bytes


# function: (bytes before the variable part, where its length is stated, bytes per unit)
_LENGTHS: Final[dict[int, tuple[int, int, int]]] = {
    Fn.GSP_RM_CONTROL: (0x18, 0x10, 1),
    Fn.GSP_RM_ALLOC: (0x20, 0x14, 1),
    Fn.ALLOC_MEMORY: (0x38, 0x28, 8),
    Fn.SET_REGISTRY: (0, 0, 1),
}


def announced(function: int, payload: bytes) -> int:
    """Payload bytes that the first record announces; what is there for functions of fixed size."""
    row = _LENGTHS.get(function)
    if row is None or len(payload) < row[1] + 4:
        return len(payload)
    head, where, unit = row
    return head + int(struct.unpack_from("<I", payload, where)[0]) * unit


class Assembler:
    """Joins a request and its continuation records."""

    __slots__ = ("_first", "_parts", "_total", "_violations", "_want")

    def __init__(self, violations: Violations) -> None:
        """Nothing is pending."""
        self._violations = violations
        self._first: Record | None = None
        self._parts: list[bytes] = []
        self._total = self._want = 0

    def drop(self) -> None:
        """Forget an unfinished message."""
        self._first = None
        self._parts = []
        self._total = self._want = 0

    def feed(self, record: Record) -> Message | None:
        """One more record; the message it completes, if any."""
        report = self._violations.violation
        if record.function == CONTINUATION:
            if self._first is None:
                report("stray-continuation", f"{len(record.payload):#x} bytes that no message announced")
                return None
            return self._append(record)
        if self._first is not None:
            report("interleaved-message", f"{function_name(record.function)} inside {function_name(self._first.function)}")
            self.drop()
        want = announced(record.function, record.payload)
        if want > MAX_MESSAGE:
            report("message-too-long", f"{function_name(record.function)} announces {want:#x} bytes")
            return None
        if want > len(record.payload):
            if len(record.payload) < MAX_PAYLOAD:
                report("short-message", f"{function_name(record.function)}: {len(record.payload):#x} bytes of {want:#x} announced")
                return Message(record.function, record.sequence, record.gfid, record.payload)
            self._first, self._want, self._total = record, want, 0
            return self._append(record)
        return Message(record.function, record.sequence, record.gfid, record.payload)

    def _append(self, record: Record) -> Message | None:
        first = self._first
        assert first is not None
        self._parts.append(record.payload)
        self._total += len(record.payload)
        if self._total < self._want:
            if len(record.payload) < MAX_PAYLOAD:
                text = f"{len(record.payload):#x} bytes in the middle of {function_name(first.function)}"
                self._violations.violation("short-record", text)
            return None
        if self._total > self._want:
            self._violations.violation("long-message", f"{function_name(first.function)}: {self._total:#x} bytes of {self._want:#x}")
        message = Message(first.function, first.sequence, first.gfid, b"".join(self._parts)[: self._want])
        self.drop()
        return message


def cut(function: int, payload: bytes) -> Iterator[tuple[int, bytes]]:
    """(function, payload) of each record that carries `payload`."""
    yield function, payload[:MAX_PAYLOAD]
    for start in range(MAX_PAYLOAD, len(payload), MAX_PAYLOAD):
        yield CONTINUATION, payload[start : start + MAX_PAYLOAD]
