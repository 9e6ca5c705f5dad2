"""The server: one device exported at a unix socket, to one client at a time, in one blocking loop.

Owns the listening socket and the connection. Every command is answered before the next is read, so a read that has been answered has
seen all writes before it. What a client leaves behind (DMA maps, eventfds) is taken back when it goes. A device that computes does so in
the same loop, one short piece between two looks at the socket (`working`). A second client is turned away at once, one that does not greet
is left. Runs in the thread that calls `serve`; `close` may be called from any thread. Never waits for the client's DMA. Source:
libvfio-user docs/vfio-user.rst; reference page vfio-user.md, section 11.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from struct import Struct
from typing import Final

from nvcore.api.clock import SYSTEM
from nvcore.api.device import Device
from nvcore.api.errors import DeviceGone, NvcoreError, WaitTimeout
from nvcore.vfio_user.dma import DmaTable
from nvcore.vfio_user.interrupts import IRQ_INDEXES, Interrupts
from nvcore.vfio_user.listening import listen
from nvcore.vfio_user.regions import REGIONS, Regions
from nvcore.vfio_user.version import answer
from nvcore.vfio_user.wire import ERROR, NO_REPLY, REPLY, TYPE_MASK, Command, FramingLost, Message, Refused, Stream
from nvcore.vfio_user.working import Work, Working

__all__ = ["DeviceServer"]

GREETING_TIMEOUT: Final = 5.0
"""Seconds that a client has for its VERSION."""
_INFO: Final = Struct("<IIII")
_FLAG_RESET, _FLAG_PCI = 1, 2

Handler = Callable[[Message], bytes]


class DeviceServer:
    """Exports `device` at the socket `path`.

    on_problem is told, in words, of every refused request and of how a connection ended. work is called on the serving thread, while a
    client is connected, whenever no message has arrived, and at least once in `working.BURST` messages: it does one short piece of the
    device's own work and answers in how many seconds it wants to be called again (0: there is more; None: only a message can bring some).
    How long a piece takes is how long an access may have to wait. Raises UsageError for a path that is too long, ConflictError for one that
    somebody serves; a stale socket file is replaced.
    """

    def __init__(
        self, device: Device, path: str, *, on_problem: Callable[[str], None] = lambda text: None, work: Work | None = None
    ) -> None:
        self.device, self.path = device, path
        self.work = work
        self._on_problem = on_problem
        self._listener = listen(path)
        self._listening = self._listener.fileno()  # noted, because `close` may come at any moment
        self._connection: socket.socket | None = None
        self._closed = False
        self.messages = 0

    def serve(self, *, once: bool = False) -> None:
        """Serve clients one after another until `close`; with `once`, until the first that greeted has left."""
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._is_closed():
                    return
                raise
            self._connection = connection
            try:
                if self._is_closed():  # by a `close` that came after accept and saw no connection to end
                    return
                session = Session(self, connection)
                session.run()
            finally:
                self._connection = None
                connection.close()
            if once and session.greeted:
                return

    def _is_closed(self) -> bool:
        return self._closed

    def admit_nobody_else(self, stream: Stream) -> None:
        """Turn away whoever comes while the client of `stream` is served: that one would wait without a word, perhaps for ever."""
        stream.watch(self._listening, self._turn_away)

    def _turn_away(self) -> bool:
        try:
            surplus, _ = self._listener.accept()
        except OSError as problem:  # `close`, which ends the connection next; or there is no room for one descriptor more: who comes waits
            if not self._closed:
                self.problem(f"no more clients are turned away: {problem}")
            return False
        surplus.close()
        self.problem("a client was turned away: the device serves another client")
        return True

    def problem(self, text: str) -> None:
        """Pass on a problem."""
        self._on_problem(text)

    def close(self) -> None:
        """Stop serving: the connection ends, the socket file goes. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        for open_socket in (self._listener, self._connection):
            if open_socket is not None:
                with contextlib.suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Session:
    """One client's connection."""

    def __init__(self, server: DeviceServer, connection: socket.socket) -> None:
        self._server = server
        self._device = server.device
        self._stream = Stream(connection)
        self._regions = Regions(server.device)
        self._dma = DmaTable(server.device)
        self._interrupts = Interrupts(server.device)
        self.greeted = False
        self._reply_fds: list[int] = []
        regions = self._regions
        self._handlers: dict[int, Handler] = {
            Command.REGION_READ: lambda message: regions.read(message.body),
            Command.REGION_WRITE: lambda message: regions.write(message.body),
            Command.REGION_WRITE_MULTI: lambda message: regions.write_multi(message.body),
            Command.DMA_MAP: lambda message: self._dma.map(message.body, message.fds),
            Command.DMA_UNMAP: lambda message: self._dma.unmap(message.body),
            Command.DEVICE_GET_INFO: self._device_info,
            Command.DEVICE_GET_REGION_INFO: self._region_info,
            Command.DEVICE_GET_IRQ_INFO: lambda message: self._interrupts.info(message.body),
            Command.DEVICE_SET_IRQS: lambda message: self._interrupts.set(message.body, message.fds),
            Command.DEVICE_RESET: self._reset,
        }

    def run(self) -> None:
        """Until the client leaves or the stream cannot be trusted any more."""
        work = self._server.work
        receive = self._stream.receive if work is None else Working(self._stream, work, self._server.problem).receive
        with contextlib.ExitStack() as leaving:  # each is called whatever another meets
            leaving.callback(self._take_back, "DMA maps", self._dma.clear)
            leaving.callback(self._take_back, "eventfds", self._interrupts.clear)
            leaving.callback(self._stream.close_fds)
            try:
                deadline = SYSTEM.now() + GREETING_TIMEOUT
                while not self.greeted and self._serve_next(lambda: self._stream.receive(deadline)):
                    pass
                self._server.admit_nobody_else(self._stream)
                while self.greeted and self._serve_next(receive):
                    pass
            except FramingLost as lost:
                self._server.problem(f"connection closed: {lost}")
            except WaitTimeout:
                self._server.problem(f"connection closed: no VERSION within {GREETING_TIMEOUT:g} s")
            except (BrokenPipeError, ConnectionResetError):
                self._server.problem("the client left without reading an answer")
            except OSError as problem:  # the socket's: what a device raises is answered
                self._server.problem(f"connection closed: {problem}")

    def _take_back(self, what: str, clear: Callable[[], list[NvcoreError | OSError]]) -> None:
        if problems := clear():
            self._server.problem(f"the device did not let go of {len(problems)} of the client's {what}: {problems[0]}")

    def _serve_next(self, receive: Callable[[], Message | None]) -> bool:
        message = receive()
        if message is None:
            return False
        self._server.messages += 1
        try:
            self._serve(message)
        finally:
            message.close_fds()
        return True

    def _serve(self, message: Message) -> None:
        if message.flags & TYPE_MASK:
            raise FramingLost(f"flags {message.flags:#x}: not a command")
        try:
            body, error = self._handle(message), 0
        except (Refused, NvcoreError, OSError) as problem:  # its own text says why
            self._server.problem(f"command {message.command}: {problem}")
            body, error = b"", _number(problem)
        try:
            if not message.flags & NO_REPLY:
                flags = REPLY | ERROR if error else REPLY
                self._stream.send(message.ident, message.command, flags, error, body, self._reply_fds)
        finally:
            while self._reply_fds:
                os.close(self._reply_fds.pop())

    def _handle(self, message: Message) -> bytes:
        if message.command == Command.VERSION:
            if self.greeted:
                raise Refused(errno.EINVAL, "a second VERSION")
            body = answer(message.body, batches=not self._regions.any_mapped)
            self.greeted = True
            return body
        if not self.greeted:
            raise Refused(errno.EINVAL, "a command before VERSION")
        handler = self._handlers.get(message.command)
        if handler is None:
            raise Refused(errno.EINVAL, "not offered")
        return handler(message)

    def _device_info(self, message: Message) -> bytes:
        if len(message.body) < _INFO.size or _INFO.unpack_from(message.body)[0] < _INFO.size:
            raise Refused(errno.EINVAL, "GET_INFO too short")
        return _INFO.pack(_INFO.size, _FLAG_RESET | _FLAG_PCI, REGIONS, IRQ_INDEXES)

    def _region_info(self, message: Message) -> bytes:
        body, self._reply_fds = self._regions.info(message.body)
        return body

    def _reset(self, message: Message) -> bytes:
        self._device.reset()
        return b""


def _number(problem: Refused | NvcoreError | OSError) -> int:
    """The errno of an answer: a refusal's own, the system's own, EIO where the device left, EINVAL where it refused."""
    if isinstance(problem, NvcoreError):
        return errno.EIO if isinstance(problem, DeviceGone) else errno.EINVAL
    return problem.errno or errno.EIO
