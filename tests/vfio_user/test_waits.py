"""No wait is without an end: not for a client that does not read, and not for one that came while the server was being closed."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from nvcore.vfio_user import DeviceServer, wire

from .fake import FakeBar, FakeClient, FakeDevice, MappedBar, served

ACCESS, REGION = struct.Struct("<QII"), struct.Struct("<IIIIQQ")
READ, REGION_INFO = 9, 5
MIB = 1 << 20
LIMIT = 5.0


def until(seen: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + LIMIT
    while not seen():
        assert time.monotonic() < limit, what
        time.sleep(0.001)


def large() -> FakeDevice:
    """A device whose BAR 1 is more than a socket's buffer holds."""
    device = FakeDevice()
    device.bars[1] = FakeBar(1, MIB)
    device.bars[1].data[:] = os.urandom(MIB)
    return device


def test_a_client_that_does_not_read_is_left_and_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SEND_TIMEOUT", 0.2)
    pieces = 0

    def work() -> float:
        nonlocal pieces
        pieces += 1
        return 0.001

    with served(tmp_path / "s", large(), work) as (_, client, problems):
        client.hello()
        client.raw(client.pack(READ, ACCESS.pack(0, 1, MIB)))
        until(lambda: bool(problems), "the connection closed")
        assert problems == [f"connection closed: an answer of {MIB + 32} bytes was not read within 0.2 s"]
        with pytest.raises(ConnectionResetError):  # what was sent before, then the end
            client.reply()
        after = FakeClient(str(tmp_path / "s"))
        after.hello()
        before = pieces
        until(lambda: pieces > before, "the next client's work")
        after.close()


def test_a_client_that_reads_a_little_now_and_then_gains_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SEND_TIMEOUT", 0.2)
    with served(tmp_path / "s", large()) as (_, client, problems):
        client.hello()
        client.raw(client.pack(READ, ACCESS.pack(0, 1, MIB)))
        got = 0
        while not problems and got < MIB // 4 * 3:  # enough for the server to go on sending, and more than 0.2 s of it
            got += len(client.socket.recv(1 << 14))
            time.sleep(0.01)
        assert len(problems) == 1 and "was not read within" in problems[0]


def test_a_client_that_reads_slowly_gets_all_of_it(tmp_path: Path) -> None:
    device = large()
    with served(tmp_path / "s", device) as (_, client, problems):
        client.hello()
        client.raw(client.pack(READ, ACCESS.pack(0, 1, MIB)))
        got = bytearray()
        while len(got) < 32 + MIB:
            time.sleep(0.005)
            got += client.socket.recv(1 << 16)
        assert got[32:] == device.bars[1].data
        assert problems == []


def test_a_descriptor_behind_answers_that_fill_the_socket_comes_with_its_own(tmp_path: Path) -> None:
    device = large()
    device.bars[2] = MappedBar(2, 0x10000, [(0, 0x10000)])
    with served(tmp_path / "s", device) as (_, client, _):
        client.hello()
        asked = 400
        pair = client.pack(REGION_INFO, REGION.pack(32, 0, 2, 0, 0, 0)) + client.pack(READ, ACCESS.pack(0, 1, 2048))
        client.raw(asked * pair)
        time.sleep(0.05)
        for _ in range(asked):
            _, command, error, _, fds = client.reply()
            assert (command, error, len(fds)) == (REGION_INFO, 0, 1)
            os.close(fds[0])
            assert client.reply()[1:3] == (READ, 0)


def test_close_ends_a_wait_for_a_client_that_does_not_read(tmp_path: Path) -> None:
    server = DeviceServer(large(), str(tmp_path / "s"))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve)
    thread.start()
    client = FakeClient(str(tmp_path / "s"))
    client.hello()
    client.raw(client.pack(READ, ACCESS.pack(0, 1, MIB)))
    client.socket.recv(1)  # it is being sent
    server.close()
    thread.join(wire.SEND_TIMEOUT / 2)
    client.close()
    assert not thread.is_alive()


def test_close_between_a_connection_and_its_bookkeeping_ends_the_server(tmp_path: Path) -> None:
    server = DeviceServer(FakeDevice(), str(tmp_path / "s"))  # type: ignore[arg-type]
    listener = server._listener

    def accept() -> tuple[socket.socket, object]:
        accepted = listener.accept()
        server.close()  # at the worst moment: accepted, and not yet noted
        return accepted

    server._listener = SimpleNamespace(accept=accept, shutdown=listener.shutdown, close=listener.close)  # type: ignore[assignment]
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    client = FakeClient(str(tmp_path / "s"))
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert client.socket.recv(1) == b""
    client.close()


class Dribbling:
    """A socket that takes a few bytes at a time."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner, self.fileno = inner, inner.fileno

    def sendmsg(self, pieces: list[bytes], ancillary: list[tuple[int, int, bytes]], flags: int) -> int:
        return self._inner.sendmsg([b"".join(pieces)[:5]], ancillary, flags)


def test_an_answer_that_goes_out_in_pieces_is_whole_and_brings_its_descriptor_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire.Stream(Dribbling(ours)).send(7, REGION_INFO, wire.REPLY, 0, b"0123456789", [ours.fileno()])  # type: ignore[arg-type]
        data, got = b"", []
        while len(data) < 26:
            piece, fds, _, _ = socket.recv_fds(theirs, 64, 16)
            data += piece
            got += fds
        for fd in got:
            os.close(fd)
    assert data == wire.HEADER.pack(7, REGION_INFO, 26, wire.REPLY, 0) + b"0123456789"
    assert len(got) == 1
