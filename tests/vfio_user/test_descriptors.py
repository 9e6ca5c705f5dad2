"""Every descriptor that a client sends is kept for a reason or closed, on every path."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvcore.api.device import SharedMemory
from nvcore.api.errors import DeviceGone, UsageError
from nvcore.vfio_user.wire import HEADER, MAX_FDS, Stream
from nvcore.vfio_user.working import BURST, Working

from .fake import FakeClient, FakeDevice, MappedBar, served

MAP, UNMAP, IRQS = struct.Struct("<IIQQQ"), struct.Struct("<IIQQ"), struct.Struct("<IIIII")
ACCESS, REGION = struct.Struct("<QII"), struct.Struct("<IIIIQQ")
NO_REPLY = 0x10


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


def test_a_message_in_pieces_gains_no_descriptors(tmp_path: Path) -> None:
    before = held()
    with descriptors() as fds, served(tmp_path / "s") as (device, client, problems):
        client.hello()
        message = client.pack(10, ACCESS.pack(0, 0, 4) + b"evil")
        with suppress(BrokenPipeError):  # as soon as the server has seen one too many
            for at in range(len(message)):
                client.raw(message[at : at + 1], fds[:1])
        refused_to_the_end(client)
        assert device.bars[0].data[:4] == bytes(4) and "descriptors" in problems[-1]
    assert held() == before


def test_a_bug_in_the_devices_work_leaves_no_descriptor_behind() -> None:
    before = held()
    ours, theirs = socket.socketpair()
    message = HEADER.pack(1, 13, 16, NO_REPLY, 0)

    def work() -> float:
        raise ZeroDivisionError

    stream = Stream(ours)
    receive = Working(stream, work, lambda text: None).receive
    with descriptors() as fds:
        socket.send_fds(theirs, [message * BURST], fds)  # they belong to the last, after which a piece of work is due
        assert stream.fill()
        with pytest.raises(ZeroDivisionError):
            for _ in range(BURST + 1):
                received = receive()
                assert received is not None
                received.close_fds()
    stream.close_fds()
    ours.close()
    theirs.close()
    assert held() == before


class Failing(FakeDevice):
    """A device whose calls fail where `plan` says so, one entry a call; a plan that ended says yes to everything."""

    def __init__(self, plan: list[Exception | None]) -> None:
        super().__init__()
        self.plan = plan
        self.bars[2] = bar = MappedBar(2, 0x10000, [(0, 0x8000)])
        plain = bar.descriptor

        def descriptor() -> SharedMemory:
            self._next()
            return plain()

        bar.descriptor = descriptor  # type: ignore[method-assign]

    def _next(self) -> None:
        problem = self.plan.pop() if self.plan else None
        if problem is not None:
            raise problem

    def connect_interrupt(self, kind: str, vector: int, fd: int | None) -> None:
        self._next()
        super().connect_interrupt(kind, vector, fd)

    def map_dma(self, address: int, size: int, fd: int, offset: int, *, readable: bool = True, writable: bool = True) -> None:
        self._next()
        super().map_dma(address, size, fd, offset, readable=readable, writable=writable)

    def unmap_dma(self, address: int, size: int) -> int:
        self._next()
        return super().unmap_dma(address, size)

    def reset(self) -> None:
        self._next()


SMALL = st.integers(0, 4)
PAGES = st.integers(0, 6).map(lambda page: page << 12)
MESSAGES = st.one_of(
    st.tuples(st.just(2), st.builds(MAP.pack, st.just(32), st.just(3), PAGES, PAGES, PAGES)),
    st.tuples(st.just(3), st.builds(UNMAP.pack, st.just(24), st.sampled_from([0, 2]), PAGES, PAGES)),
    st.tuples(st.just(5), st.builds(REGION.pack, st.sampled_from([32, 64]), st.just(0), SMALL, st.just(0), st.just(0), st.just(0))),
    st.tuples(st.just(8), st.builds(IRQS.pack, st.just(20), st.sampled_from([0x24, 0x21, 0x14, 0x28]), SMALL, SMALL, SMALL)),
    st.tuples(st.integers(0, 20), st.binary(max_size=40)),
)
CHOSEN = st.lists(SMALL, max_size=4)
ENDS = st.sampled_from(["leave", "inside a message", "too long", "a reply", "too many descriptors", "nothing read"])
FAILURES = st.lists(st.sampled_from([None, None, OSError(errno.EMFILE, "too many"), DeviceGone("gone"), UsageError("no")]), max_size=12)


def finish(client: FakeClient, end: str, fds: list[int]) -> None:
    """The last thing that the client says."""
    body = ACCESS.pack(0, 0, 4)
    last = {
        "inside a message": client.pack(9, body)[:20],
        "too long": HEADER.pack(1, 9, 1 << 30, 0, 0),
        "a reply": client.pack(9, body, flags=1),
        "too many descriptors": client.pack(9, body),
    }.get(end)
    if last is not None:
        client.raw(last, fds[:1] * (MAX_FDS + 1) if end == "too many descriptors" else fds)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(st.tuples(MESSAGES, CHOSEN, st.booleans()), max_size=10), end=ENDS, plan=FAILURES)
def test_no_descriptor_is_left_whatever_is_sent_and_whatever_the_device_says(
    tmp_path: Path, messages: list[tuple[tuple[int, bytes], list[int], bool]], end: str, plan: list[Exception | None]
) -> None:
    before = held()
    with descriptors() as fds, served(tmp_path / "s", Failing(plan)) as (_, client, _):
        client.hello()
        for (command, body), chosen, posted in messages:
            client.raw(client.pack(command, body, NO_REPLY if posted else 0), [fds[at] for at in chosen])
            if not posted and end != "nothing read":
                for fd in client.reply()[4]:
                    os.close(fd)
        finish(client, end, fds)
    assert held() == before
