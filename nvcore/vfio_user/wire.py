"""The wire: headers, commands, and messages cut out of a stream together with the descriptors that belong to them.

Knows framing and nothing of devices. One `Stream` belongs to one thread. Sources: libvfio-user docs/vfio-user.rst; QEMU 11.1
hw/vfio-user/protocol.h.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import Final

from nvcore.api.clock import SYSTEM
from nvcore.api.errors import WaitTimeout

__all__ = ["ERROR", "HEADER", "MAX_FDS", "MAX_TRANSFER", "NO_REPLY", "REPLY", "Command", "FramingLost", "Message", "Refused", "Stream"]

HEADER: Final = Struct("<HHIII")  # message id, command, size with header, flags, errno
TYPE_MASK: Final = 0xF
REPLY: Final = 0x1
"""Flag: the message is a reply."""
NO_REPLY: Final = 0x10
"""Flag: the sender wants no reply."""
ERROR: Final = 0x20
"""Flag of a reply: the errno field holds why the command was refused."""
MAX_TRANSFER: Final = 1 << 20  # bytes of data in one message (max_data_xfer_size)
MAX_MESSAGE: Final = MAX_TRANSFER + 4096  # the longest message taken: data and any fixed part before it
MAX_FDS: Final = 16
"""Descriptors taken with one message."""
SEND_TIMEOUT: Final = 5.0
"""Seconds that a client may take to read an answer: as long as QEMU waits for one (x-msg-timeout)."""
_CHUNK: Final = 1 << 18


class Command(IntEnum):
    """Commands of protocol 0.x."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_REGION_IO_FDS = 6
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    DEVICE_RESET = 13
    REGION_WRITE_MULTI = 15
    DEVICE_FEATURE = 16
    MIG_DATA_READ = 17
    MIG_DATA_WRITE = 18


class Refused(Exception):
    """A request is answered with an errno; nothing was done."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"{errno.errorcode.get(number, number)}: {why}")
        self.errno = number


class FramingLost(Exception):
    """What follows in the stream cannot be trusted: the connection must be closed."""


class Message:
    """One message. `fds` belong to whoever takes them out; what is left is closed by `close_fds`."""

    __slots__ = ("body", "command", "error", "fds", "flags", "ident")

    def __init__(self, ident: int, command: int, flags: int, error: int, body: memoryview, fds: list[int]) -> None:
        self.ident, self.command, self.flags, self.error, self.body, self.fds = ident, command, flags, error, body, fds

    def close_fds(self) -> None:
        """Close every descriptor that nobody took."""
        while self.fds:
            os.close(self.fds.pop())


class Stream:
    """Messages over a connected unix stream socket, read ahead in large pieces.

    A message's descriptors arrive with its first byte, and the kernel ends a read behind the piece that carried descriptors; so the
    descriptors of one read belong to the last message that begins in it. Whoever stops reading calls `close_fds`.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self._position = 0
        self._owners: list[tuple[int, list[int]]] = []  # (offset in the buffer where the owning message begins, descriptors)
        self._scan = 0  # where the next message not yet seen by `_note_fds` begins
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._room = select.poll()
        self._room.register(connection, select.POLLOUT)
        self._watched = -1
        self._meanwhile: Callable[[], bool] | None = None

    def watch(self, fd: int, meanwhile: Callable[[], bool]) -> None:
        """Call `meanwhile` from now on when this descriptor can be read while nothing of the stream can, until it answers False."""
        self._poll.register(fd, select.POLLIN)
        self._watched, self._meanwhile = fd, meanwhile

    def receive(self, deadline: float | None = None) -> Message | None:
        """The next message; None at the orderly end of the stream. Raises FramingLost, and WaitTimeout for reading after `deadline`."""
        while True:
            message = self.take()
            if message is not None:
                return message
            if deadline is not None:
                left = deadline - SYSTEM.now()
                if left <= 0:
                    raise WaitTimeout("no message in time")
                if not self.arrived(left):
                    continue
            if not self.fill():
                return None

    def arrived(self, timeout: float | None) -> bool:
        """Whether `fill` would not block, waiting at most so many seconds for it; None: for ever. False before the time when something was
        done meanwhile."""
        ready = self._poll.poll(None if timeout is None else timeout * 1000)
        if self._meanwhile is None or not ready or len(ready) > 1 or ready[0][0] == self._socket.fileno():
            return bool(ready)
        if not self._meanwhile():
            self._poll.unregister(self._watched)
            self._meanwhile = None
        return False

    def take(self) -> Message | None:
        """The next message of what was read ahead; None when no whole one was. Raises FramingLost."""
        buffer, start = self._buffer, self._position
        if len(buffer) - start < 16:
            return None
        ident, command, size, flags, error = HEADER.unpack_from(buffer, start)
        if size < 16 or size > MAX_MESSAGE:
            raise FramingLost(f"message of {size} bytes (16 to {MAX_MESSAGE} can be)")
        if len(buffer) - start < size:
            return None
        body = memoryview(bytes(memoryview(buffer)[start + 16 : start + size]))
        self._position = start + size
        fds = self._owners.pop(0)[1] if self._owners and self._owners[0][0] == start else []
        return Message(ident, command, flags, error, body, fds)

    def fill(self) -> bool:
        """Read what has arrived, or wait until something does; False at the orderly end of the stream. Raises FramingLost."""
        if self._position:
            shift = self._position
            del self._buffer[:shift]
            self._owners = [(offset - shift, fds) for offset, fds in self._owners]
            self._scan -= shift
            self._position = 0
        while self._meanwhile is not None and not self.arrived(None):
            pass
        data, ancillary, flags, _ = self._socket.recvmsg(_CHUNK, socket.CMSG_SPACE(MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC)
        fds = _descriptors(ancillary)
        self._buffer += data
        if fds:
            self._note_fds(fds)
        if flags & socket.MSG_CTRUNC:
            raise FramingLost(f"descriptors lost: more than {MAX_FDS} with one message, or no room for them here")
        if not data and self._buffer:
            raise FramingLost("the stream ended inside a message")
        return bool(data)

    def _note_fds(self, fds: list[int]) -> None:
        """Give `fds` to the last message that begins in the buffer. Raises FramingLost when it had its share before."""
        position = last = max(self._scan, self._position)
        while len(self._buffer) - position >= 16:
            last = position
            size = HEADER.unpack_from(self._buffer, position)[2]
            if size < 16:
                break
            position += size
        if position < len(self._buffer):
            last = position
        self._scan = last
        if not self._owners or self._owners[-1][0] != last:
            self._owners.append((last, []))
        owned = self._owners[-1][1]
        owned += fds
        if len(owned) > MAX_FDS:  # by sending a message in pieces, each with descriptors, a client could use up all of the process's
            raise FramingLost(f"more than {MAX_FDS} descriptors with one message")

    def send(self, ident: int, command: int, flags: int, error: int, body: bytes | memoryview, fds: list[int] | None = None) -> None:
        """Write one message whole; `fds` travel with its first byte and stay the caller's. Raises FramingLost when the client does not
        read it in time."""
        head, total = HEADER.pack(ident, command, 16 + len(body), flags, error), 16 + len(body)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self._send_some([head, body], ancillary)
        if sent == total:
            return
        data, deadline = memoryview(head + bytes(body)), SYSTEM.now() + SEND_TIMEOUT
        while sent < total:
            left = deadline - SYSTEM.now()
            if left <= 0 or not self._room.poll(left * 1000):
                raise FramingLost(f"an answer of {total} bytes was not read within {SEND_TIMEOUT:g} s")
            sent += self._send_some([data[sent:]], [] if sent else ancillary)

    def _send_some(self, pieces: list[bytes | memoryview], ancillary: list[tuple[int, int, array.array[int]]]) -> int:
        """Write what the socket has room for; how many bytes that was."""
        try:
            return self._socket.sendmsg(pieces, ancillary, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def close_fds(self) -> None:
        """Close descriptors of messages that were never cut."""
        for _, fds in self._owners:
            for fd in fds:
                os.close(fd)
        self._owners.clear()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
