"""A device of a few bytes and a client that says exactly what it is told: neither shares code with the server under test."""

from __future__ import annotations

import array
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nvcore.api.device import PciIdentity, SharedMemory
from nvcore.api.errors import DeviceGone
from nvcore.vfio_user import DeviceServer
from nvcore.vfio_user.working import Work

HEADER = struct.Struct("<HHIII")


class FakeBar:
    def __init__(self, index: int, size: int) -> None:
        self.index, self.size, self.mapped, self.prefetchable = index, size, False, False
        self.data = bytearray(size)
        self.gone = False

    def read32(self, offset: int) -> int:
        if self.gone:
            raise DeviceGone("gone")
        return int(struct.unpack_from("<I", self.data, offset)[0])

    def write32(self, offset: int, value: int) -> None:
        struct.pack_into("<I", self.data, offset, value)

    def read(self, offset: int, size: int) -> bytes:
        assert offset + size <= self.size
        return bytes(self.data[offset : offset + size])

    def write(self, offset: int, data: bytes | memoryview) -> None:
        assert offset + len(data) <= self.size
        self.data[offset : offset + len(data)] = data


class MappedBar(FakeBar):
    def __init__(self, index: int, size: int, areas: list[tuple[int, int]]) -> None:
        super().__init__(index, size)
        self.areas = areas
        self.write_port = self.read_port = self.view = lambda *a: None  # type: ignore[assignment]  # the rest of the protocol, unused here

    def descriptor(self) -> SharedMemory:
        fd = os.memfd_create("bar")
        os.ftruncate(fd, self.size + 0x1000)
        return SharedMemory(fd, 0x1000, self.size)


class FakeDevice:
    def __init__(self) -> None:
        self.identity = PciIdentity("0000:00:00.0", 0x10DE, 0x20B0, 0x10DE, 0x134F, 0xA1, 0x030200)
        self.source = "fake:"
        self.bars: dict[int, FakeBar] = {0: FakeBar(0, 0x1000), 1: FakeBar(1, 0x10000)}
        self.interrupts = {"intx": 0, "msi": 1, "msix": 4}
        self.total_functions = 0
        self.config = bytearray(4096)
        self.maps: dict[int, tuple[int, int, bool]] = {}
        self.vectors: dict[tuple[str, int], int | None] = {}
        self.resets = 0
        self.gone = False

    def config_read(self, offset: int, size: int) -> bytes:
        return bytes(self.config[offset : offset + size])

    def config_write(self, offset: int, data: bytes) -> None:
        self.config[offset : offset + len(data)] = data

    def connect_interrupt(self, kind: str, vector: int, fd: int | None) -> None:
        self.vectors[kind, vector] = fd

    def map_dma(self, address: int, size: int, fd: int, offset: int, *, readable: bool = True, writable: bool = True) -> None:
        self.maps[address] = (size, offset, writable)

    def unmap_dma(self, address: int, size: int) -> int:
        return self.maps.pop(address)[0]

    def reset(self) -> None:
        self.resets += 1


class FakeClient:
    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(5)
        self.socket.connect(path)
        self.ident = 0

    def raw(self, data: bytes, fds: list[int] | None = None) -> None:
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([data], anc)

    def pack(self, command: int, body: bytes = b"", flags: int = 0) -> bytes:
        self.ident += 1
        return HEADER.pack(self.ident & 0xFFFF, command, 16 + len(body), flags, 0) + body

    def reply(self) -> tuple[int, int, int, bytes, list[int]]:
        """(id, command, errno or 0, body, descriptors)"""
        head, anc, _, _ = self.socket.recvmsg(16, 256)
        if not head:
            raise ConnectionResetError
        ident, command, size, flags, error = HEADER.unpack(head)
        assert flags & 0xF == 1
        fds = array.array("i")
        for _, _, data in anc:
            fds.frombytes(data)
        body = b""
        while len(body) < size - 16:
            piece = self.socket.recv(size - 16 - len(body))
            if not piece:
                raise ConnectionResetError
            body += piece
        assert bool(flags & 0x20) == bool(error)
        return ident, command, error, body, list(fds)

    def ask(self, command: int, body: bytes = b"", fds: list[int] | None = None) -> tuple[int, bytes]:
        self.raw(self.pack(command, body), fds)
        ident, answered, error, data, got = self.reply()
        assert (ident, answered) == (self.ident & 0xFFFF, command)
        for fd in got:
            os.close(fd)
        return error, data

    def hello(self) -> bytes:
        error, body = self.ask(1, struct.pack("<HH", 0, 0) + b'{"capabilities":{"max_msg_fds":16,"write_multiple":true}}\0')
        assert error == 0
        return body

    def close(self) -> None:
        self.socket.close()


@contextmanager
def served(path: Path, device: FakeDevice | None = None, work: Work | None = None) -> Iterator[tuple[FakeDevice, FakeClient, list[str]]]:
    """A device behind a server in a thread of its own, and a client that has not said hello."""
    device = device or FakeDevice()
    problems: list[str] = []
    server = DeviceServer(device, str(path), on_problem=problems.append, work=work)  # type: ignore[arg-type]
    failures: list[BaseException] = []

    def run() -> None:
        try:
            server.serve()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    client = FakeClient(str(path))
    try:
        yield device, client, problems
    finally:
        client.close()
        server.close()
        thread.join(5)
        assert not thread.is_alive()
        assert not failures, failures
