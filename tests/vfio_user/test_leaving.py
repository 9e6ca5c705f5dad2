"""What a client leaves behind is taken back whole, whatever the device says to it, and the next client is served."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvcore.api.errors import DeviceGone
from nvcore.vfio_user.wire import Stream

from .fake import FakeClient, FakeDevice, served

MAP, UNMAP, IRQS, ACCESS = struct.Struct("<IIQQQ"), struct.Struct("<IIQQ"), struct.Struct("<IIIII"), struct.Struct("<QII")
PAGES = range(0x10000, 0x15000, 0x1000)
VECTORS = 3
GONE = DeviceGone("the device left")
BUSY = OSError(errno.EBUSY, "the device is busy")


class Balky(FakeDevice):
    """A device that refuses to take back what `refuses` says, once it is told to."""

    def __init__(self, problem: Exception, refuses: Callable[[int], bool]) -> None:
        super().__init__()
        self.problem, self.refuses, self.balks = problem, refuses, False
        self.asked: list[int] = []

    def _maybe(self, what: int) -> None:
        if self.balks:
            self.asked.append(what)
            if self.refuses(what):
                raise self.problem

    def unmap_dma(self, address: int, size: int) -> int:
        self._maybe(address)
        return super().unmap_dma(address, size)

    def connect_interrupt(self, kind: str, vector: int, fd: int | None) -> None:
        if fd is None:
            self._maybe(vector)
        super().connect_interrupt(kind, vector, fd)


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create("ram", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 1 << 20)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    yield fd
    os.close(fd)


def move_in(client: FakeClient, memory: int) -> None:
    """Maps of five pages and three connected vectors."""
    client.hello()
    for page in PAGES:
        assert client.ask(2, MAP.pack(32, 3, 0, page, 0x1000), [memory])[0] == 0
    events = [os.eventfd(0) for _ in range(VECTORS)]
    assert client.ask(8, IRQS.pack(20, 0x24, 2, 0, VECTORS), events)[0] == 0
    for event in events:
        os.close(event)


@pytest.mark.parametrize("problem", [GONE, BUSY])
@pytest.mark.parametrize(
    ("refuses", "told"),
    [
        (lambda what: True, ["3 of the client's eventfds", "5 of the client's DMA maps"]),
        (lambda what: what >= PAGES[0], ["5 of the client's DMA maps"]),
        (lambda what: what in (1, PAGES[2]), ["1 of the client's eventfds", "1 of the client's DMA maps"]),
    ],
)
def test_a_device_that_lets_nothing_go_holds_up_nobody(
    tmp_path: Path, memory: int, problem: Exception, refuses: Callable[[int], bool], told: list[str]
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    device = Balky(problem, refuses)
    with served(tmp_path / "s", device) as (_, client, problems):
        move_in(client, memory)
        device.balks = True
        client.close()
        after = FakeClient(str(tmp_path / "s"))
        after.hello()
        assert after.ask(9, ACCESS.pack(0, 0, 4))[0] == 0
        assert sorted(device.asked) == [*range(VECTORS), *PAGES], "each was asked for once"
        assert set(device.maps) == {page for page in PAGES if refuses(page)}
        assert [f"the device did not let go of {what}: {problem}" for what in told] == problems
        after.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_client_that_unmaps_and_disables_is_told_and_everything_it_named_is_forgotten(tmp_path: Path, memory: int) -> None:
    device = Balky(GONE, lambda what: what in (1, PAGES[1]))
    with served(tmp_path / "s", device) as (_, client, problems):
        move_in(client, memory)
        before = len(os.listdir("/proc/self/fd"))
        device.balks = True
        assert client.ask(3, UNMAP.pack(24, 2, 0, 0)) == (errno.EIO, b"")
        assert client.ask(8, IRQS.pack(20, 0x21, 2, 0, 0)) == (errno.EIO, b"")
        assert sorted(device.asked) == [*range(VECTORS), *PAGES]
        assert client.ask(4, struct.pack("<IIII", 16, 0, 0, 0))[0] == 0
        assert len(os.listdir("/proc/self/fd")) == before - VECTORS
        device.balks = False
        assert client.ask(2, MAP.pack(32, 3, 0, PAGES[0], 0x1000), [memory])[0] == 0
        assert client.ask(3, UNMAP.pack(24, 2, 0, 0))[0] == 0
        assert len(problems) == 2


@pytest.mark.parametrize("tail", [b"\1\2\3", struct.pack("<HHIII", 9, 9, 7, 0, 0)])
def test_however_the_stream_ends_everything_is_taken_back(tmp_path: Path, memory: int, tail: bytes) -> None:
    with served(tmp_path / "s") as (device, client, _):
        move_in(client, memory)
        client.raw(tail)
        client.close()
        limit = time.monotonic() + 5
        while device.maps or any(device.vectors.values()):
            assert time.monotonic() < limit
            time.sleep(0.001)


def test_an_error_of_the_connection_ends_nothing_but_the_connection(tmp_path: Path, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tmp_path / "s") as (device, client, problems):
        move_in(client, memory)

        def send(*args: object) -> None:
            raise OSError(errno.ETOOMANYREFS, "too many descriptors under way")

        with monkeypatch.context() as broken:
            broken.setattr(Stream, "send", send)
            client.raw(client.pack(13))
            with pytest.raises(ConnectionResetError):
                client.reply()
        after = FakeClient(str(tmp_path / "s"))
        after.hello()
        assert not device.maps and not any(device.vectors.values())
        assert len(problems) == 1 and "too many descriptors under way" in problems[0]
        after.close()
