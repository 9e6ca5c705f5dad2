"""One client at a time: who comes too early, too late or without a word holds up nobody."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from nvcore.api.errors import ConflictError
from nvcore.vfio_user import DeviceServer, server
from nvcore.vfio_user.listening import listen

from .fake import FakeClient, FakeDevice, MappedBar, served

ACCESS = struct.Struct("<QII")
READ = 9


def answers(client: FakeClient) -> bool:
    return client.ask(READ, ACCESS.pack(0, 0, 4))[0] == 0


def test_a_second_client_is_turned_away_at_once_and_the_first_goes_on(tmp_path: Path) -> None:
    with served(tmp_path / "s") as (_, client, problems):
        client.hello()
        for _ in range(3):
            second = FakeClient(str(tmp_path / "s"))
            assert second.socket.recv(1) == b""
            second.close()
            assert answers(client)
        assert len(problems) == 3 and all("serves another client" in text for text in problems)


def test_a_second_client_is_turned_away_while_the_device_works(tmp_path: Path) -> None:
    with served(tmp_path / "s", work=lambda: 0.0) as (_, client, _):
        client.hello()
        second = FakeClient(str(tmp_path / "s"))
        assert second.socket.recv(1) == b""
        second.close()
        assert answers(client)


def test_where_nobody_can_be_turned_away_the_first_goes_on_and_the_second_waits(tmp_path: Path) -> None:
    problems: list[str] = []
    one = DeviceServer(FakeDevice(), str(tmp_path / "s"), on_problem=problems.append)  # type: ignore[arg-type]
    accepted: list[int] = []
    real = one._listener

    def accept() -> tuple[socket.socket, object]:
        accepted.append(len(accepted))
        if len(accepted) == 2:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real.accept()

    one._listener = SimpleNamespace(accept=accept, shutdown=real.shutdown, close=real.close)  # type: ignore[assignment]
    thread = threading.Thread(target=one.serve)
    thread.start()
    try:
        client = FakeClient(str(tmp_path / "s"))
        client.hello()
        second = FakeClient(str(tmp_path / "s"))
        assert not select.select([second.socket], [], [], 0.2)[0]
        assert answers(client) and len(accepted) == 2, "asked once, not again and again"
        assert problems == ["no more clients are turned away: [Errno 24] Too many open files"]
        client.close()
        second.hello()
        assert answers(second)
        second.close()
    finally:
        one.close()
        thread.join(5)
    assert not thread.is_alive()


def test_who_comes_when_the_first_has_left_is_served(tmp_path: Path) -> None:
    with served(tmp_path / "s") as (_, client, problems):
        for _ in range(50):  # the server may not have seen the end of the one when the other comes
            client.hello()
            client.close()
            client = FakeClient(str(tmp_path / "s"))
        client.hello()
        assert answers(client) and problems == []
        client.close()


def test_a_client_that_says_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GREETING_TIMEOUT", 0.2)
    with served(tmp_path / "s", work=lambda: 60.0) as (_, client, problems):
        assert client.socket.recv(1) == b""
        after = FakeClient(str(tmp_path / "s"))
        after.hello()
        assert answers(after)
        assert problems == ["connection closed: no VERSION within 0.2 s"]
        after.close()


def test_a_client_that_says_other_things_than_version_gains_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GREETING_TIMEOUT", 0.2)
    with served(tmp_path / "s") as (_, client, problems):
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while len(problems) < 100_000:
                client.raw(client.pack(READ, ACCESS.pack(0, 0, 4), flags=0x10) * 20)
        assert problems[-1] == "connection closed: no VERSION within 0.2 s"


def test_who_comes_while_another_has_not_greeted_waits_for_it(tmp_path: Path) -> None:
    with served(tmp_path / "s") as (_, client, _):
        after = FakeClient(str(tmp_path / "s"))
        threading.Timer(0.1, client.socket.shutdown, [socket.SHUT_RDWR]).start()
        after.hello()
        assert answers(after)
        after.close()


def test_who_only_looks_whether_somebody_serves_is_no_client(tmp_path: Path) -> None:
    one = DeviceServer(FakeDevice(), str(tmp_path / "s"))  # type: ignore[arg-type]
    thread = threading.Thread(target=one.serve, kwargs={"once": True})
    thread.start()
    try:
        with pytest.raises(ConflictError, match="served by another"):
            DeviceServer(FakeDevice(), str(tmp_path / "s"))  # type: ignore[arg-type]
        client = FakeClient(str(tmp_path / "s"))
        client.hello()
        assert answers(client)
        client.close()
        thread.join(5)
        assert not thread.is_alive(), "the first client that greeted has left"
    finally:
        one.close()
        thread.join(5)


def test_a_socket_with_a_full_queue_is_served_and_not_in_the_way(tmp_path: Path) -> None:
    with listen(str(tmp_path / "s"), backlog=0) as listener:
        waiting = []
        for _ in range(8):
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            if waiting[-1].connect_ex(str(tmp_path / "s")):
                break
        else:
            pytest.fail("the queue did not fill up")
        with pytest.raises(ConflictError, match="served by another"):
            listen(str(tmp_path / "s"))
        assert listener.fileno() >= 0
        for end in waiting:
            end.close()


@pytest.mark.parametrize("mapped", [False, True])
def test_batches_are_offered_where_writes_are_trapped_only(tmp_path: Path, mapped: bool) -> None:
    device = FakeDevice()
    if mapped:
        device.bars[1] = MappedBar(1, 0x10000, [(0, 0x4000)])
    with served(tmp_path / "s", device) as (_, client, _):
        assert (b'"write_multiple":true' in client.hello()) != mapped
        entry = struct.pack("<Q", 1) + ACCESS.pack(0, 0, 4) + b"abcd".ljust(8, b"\0")
        assert client.ask(15, entry) == (0, struct.pack("<Q", 1)), "taken from everybody"


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear to somebody")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        with pytest.raises(ConflictError, match="in the way"):
            listen(str(tmp_path / name))
    assert (tmp_path / "file").read_text() == "dear to somebody" and (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_a_socket_has_its_mode_from_the_first_moment(tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = socket.socket.listen
    monkeypatch.setattr(socket.socket, "listen", lambda one, backlog: (seen.append((tmp_path / "s").stat().st_mode), real(one, backlog))[1])
    with listen(str(tmp_path / "s"), mode=mode):
        assert [bits & 0o777 for bits in seen] == [mode] == [(tmp_path / "s").stat().st_mode & 0o777]
    left = os.umask(0o22)
    os.umask(left)
    assert left != 0o777 & ~mode, "the process's own mask is as before"
