"""Numbers of the message queues: headers, elements, limits.

Owns constants and precompiled Structs; holds no state. The same in every firmware version that is supported.
Source: open-gpu-kernel-modules 570.144, message_queue_priv.h, msgq_priv.h, rpc_headers.h.
"""

from __future__ import annotations

import sys
from struct import Struct
from typing import Final

if sys.byteorder != "little":  # ring pointers are accessed as native 32-bit words
    raise ImportError("the message queues are little-endian and are accessed as native words; this machine is big-endian")

PAGE: Final = 0x1000  # bytes of a page of the shared block
SLOT: Final = 0x1000  # bytes of one element of a queue
QUEUE_SIZE: Final = 0x40000
"""Bytes of each queue, header page included, unless told otherwise."""

ELEMENT_HEADER: Final = 0x30  # bytes in front of the RPC header
RPC_HEADER: Final = 0x20  # bytes in front of the payload
HEADERS: Final = ELEMENT_HEADER + RPC_HEADER  # both, in the first slot of a record only
RECORD_SLOTS: Final = 16
"""Most slots of one record."""

RPC_VERSION: Final = 0x03000000  # of the header: major 3, minor 0
RPC_SIGNATURE: Final = 0x43505256  # "VRPC" as bytes are written
RESULT_PENDING: Final = 0xFFFFFFFF  # both results of a request
CONTINUATION: Final = 0x47
"""Function number of the second and later records of a split message."""

FIRST_EVENT: Final = 0x1000
"""Function numbers from here on are events."""

QUEUE_HEADER: Final = Struct("<8I")
"""version, size, msgSize, msgCount, writePtr, flags, rxHdrOff, entryOff."""

WRITE_POINTER: Final = 0x10  # offset in a queue's header page
RX_HEADER: Final = 0x20  # offset in a queue's header page: the read pointer of the other queue
FLAG_SWAP_RX: Final = 1  # each side's read pointer lies in its own queue's header

RECORD: Final = Struct("<32x4I8I")
"""Element header (checkSum, seqNum, elemCount, padding) and RPC header (version, signature, length, function, result, private result,
sequence, spare) behind the 32 bytes that only Confidential Computing uses."""

HEADER_XOR: Final = RPC_VERSION ^ RPC_SIGNATURE
"""The constant words of a request's headers; the two pending results cancel each other."""


def fold32(data: bytes | bytearray | memoryview) -> int:
    """XOR of all little-endian 32-bit words of `data`, zero-padded. The element checksum is this over the record, checksum field zeroed."""
    value = int.from_bytes(data, "little")
    bits = (len(data) * 8 + 31) & ~31
    while bits > 32:  # one big integer folded in halves: a loop over words takes ten times as long (bench rpc_queue)
        half = (bits + 63) // 64 * 32
        value = (value >> half) ^ (value & ((1 << half) - 1))
        bits = half
    return value
