"""Every descriptor that a client sends is kept for a reason or closed, on every path."""

from __future__ import annotations

import fcntl
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nvcore.vfio_user.wire import MAX_FDS

from .fake import FakeClient, served

ACCESS = struct.Struct("<QII")


def held() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def descriptors() -> Iterator[list[int]]:
    """One of each kind: eventfd, memory that cannot shrink, memory that can, the two ends of a pipe."""
    sealed, loose = os.memfd_create("sealed", os.MFD_ALLOW_SEALING), os.memfd_create("loose")
    for fd in (sealed, loose):
        os.ftruncate(fd, 1 << 16)
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    fds = [os.eventfd(0), sealed, loose, *os.pipe()]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def refused_to_the_end(client: FakeClient) -> None:
    """The server closed the connection and answered nothing more."""
    with pytest.raises(ConnectionResetError):
        client.reply()


def test_a_message_with_more_descriptors_than_can_be_is_not_served(tmp_path: Path) -> None:
    before = held()
    with descriptors() as fds, served(tmp_path / "s") as (device, client, problems):
        client.hello()
        kept = held()
        assert client.ask(10, ACCESS.pack(0, 0, 4) + b"good", fds[:1] * MAX_FDS)[0] == 0
        client.raw(client.pack(10, ACCESS.pack(4, 0, 4) + b"evil"), fds[:1] * (MAX_FDS + 1))
        refused_to_the_end(client)
        assert device.bars[0].data[:8] == b"good" + bytes(4)
        after = FakeClient(str(tmp_path / "s"))  # served when the connection before has been tidied up
        after.hello()
        assert held() == kept + 1  # the client's socket that is not closed yet
        assert "descriptors" in problems[-1]
        after.close()
    assert held() == before


def test_descriptors_that_find_no_room_in_the_process_end_the_connection(tmp_path: Path) -> None:
    before, limits = held(), resource.getrlimit(resource.RLIMIT_NOFILE)
    with descriptors() as fds, served(tmp_path / "s") as (device, client, problems):
        client.hello()
        message = client.pack(10, ACCESS.pack(0, 0, 4) + b"evil")
        used = set(map(int, os.listdir("/proc/self/fd")))
        free = [number for number in range(1024) if number not in used]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[4], limits[1]))
        try:
            client.raw(message, fds[:1] * MAX_FDS)
            refused_to_the_end(client)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert device.bars[0].data[:4] == bytes(4) and "descriptors" in problems[-1]
    assert held() == before
