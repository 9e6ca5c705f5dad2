"""A client's descriptors count its interrupts and can do nothing else: neither end the server nor hold it up."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvcore.vfio_user.eventfds import add_one

from .fake import FakeClient, FakeDevice, served

IRQS = struct.Struct("<IIIII")
ASSIGN, INJECT, INJECT_SOME = 0x24, 0x21, 0x22
MSI, MSIX, ERR = 1, 2, 3
SET_IRQS = 8
FULL = 0xFFFFFFFFFFFFFFFE


def pipe(folder: Path) -> list[int]:
    return list(os.pipe())


def sockets(folder: Path) -> list[int]:
    return [end.detach() for end in socket.socketpair()]


def files(folder: Path) -> list[int]:
    """Whose names are an eventfd's."""
    return [os.memfd_create("[eventfd]"), os.open(folder / "anon_inode:[eventfd]", os.O_RDWR | os.O_CREAT)]


@pytest.fixture
def eventfds() -> Iterator[Callable[..., int]]:
    """Makes eventfds; closes them in the end."""
    made: list[int] = []

    def make(value: int = 0, flags: int = 0) -> int:
        made.append(os.eventfd(0, flags))
        if value:
            os.eventfd_write(made[-1], value)
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)


def assign(client: FakeClient, index: int, start: int, *fds: int) -> int:
    return client.ask(SET_IRQS, IRQS.pack(20, ASSIGN, index, start, len(fds)), list(fds))[0]


def inject(client: FakeClient, index: int, start: int, count: int) -> int:
    return client.ask(SET_IRQS, IRQS.pack(20, INJECT, index, start, count))[0]


@pytest.mark.parametrize("make", [pipe, sockets, files])
def test_what_is_no_eventfd_is_refused_and_changes_nothing(
    tmp_path: Path, eventfds: Callable[..., int], make: Callable[[Path], list[int]]
) -> None:
    good, others = eventfds(), make(tmp_path)
    with served(tmp_path / "s") as (device, client, problems):
        client.hello()
        for other in others:
            assert assign(client, ERR, 0, other) == errno.EINVAL
            assert assign(client, MSIX, 0, good, other) == errno.EINVAL
        assert device.vectors == {} and "no eventfd" in problems[-1]
        assert inject(client, MSIX, 0, 2) == 0
        assert not select.select([good], [], [], 0)[0]
    for other in others:
        os.close(other)


@pytest.mark.parametrize("flags", [os.EFD_NONBLOCK, 0])
def test_an_injected_interrupt_into_a_full_eventfd_stays_pending(tmp_path: Path, eventfds: Callable[..., int], flags: int) -> None:
    full, other = eventfds(FULL, flags), eventfds()
    with served(tmp_path / "s") as (_, client, problems):
        client.hello()
        assert assign(client, MSIX, 0, full, other) == 0
        assert inject(client, MSIX, 0, 2) == 0
        assert client.ask(SET_IRQS, IRQS.pack(20, INJECT_SOME, MSIX, 0, 2) + b"\1\0")[0] == 0
        assert (os.eventfd_read(full), os.eventfd_read(other)) == (FULL, 1)
        assert inject(client, MSIX, 0, 1) == 0
        assert os.eventfd_read(full) == 1
        assert problems == []


def test_an_eventfd_that_fills_up_at_the_last_moment_is_left_as_it_is(
    eventfds: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = eventfds(FULL - 1, os.EFD_NONBLOCK)
    write = os.eventfd_write

    def late(fd: int, value: int) -> None:
        write(fd, 1)  # the client was faster
        write(fd, value)

    monkeypatch.setattr(os, "eventfd_write", late)
    add_one(fd)
    assert os.eventfd_read(fd) == FULL


def test_a_device_that_cannot_take_an_eventfd_keeps_the_one_before(tmp_path: Path, eventfds: Callable[..., int]) -> None:
    first, second, third = eventfds(), eventfds(), eventfds()
    device = FakeDevice()
    connect = device.connect_interrupt

    def limited(kind: str, vector: int, fd: int | None) -> None:
        if vector == 1 and fd is not None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        connect(kind, vector, fd)

    with served(tmp_path / "s", device) as (_, client, problems):
        client.hello()
        device.connect_interrupt = limited  # type: ignore[method-assign]
        assert assign(client, MSIX, 0, first, second, third) == errno.EMFILE
        assert inject(client, MSIX, 1, 1) == 0
        before = len(os.listdir("/proc/self/fd"))
        device.connect_interrupt = connect  # type: ignore[method-assign]
        assert assign(client, MSIX, 1, second) == 0
        device.connect_interrupt = limited  # type: ignore[method-assign]
        assert assign(client, MSIX, 1, third) == errno.EMFILE
        assert inject(client, MSIX, 1, 1) == 0
        assert len(os.listdir("/proc/self/fd")) == before + 1
        assert (os.eventfd_read(second), select.select([third], [], [], 0)[0]) == (1, [])
        assert "Too many open files" in problems[-1]
