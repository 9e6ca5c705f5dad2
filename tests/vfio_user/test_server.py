"""The server answers what the protocol says, refuses what it must, and takes back what a client leaves behind."""

from __future__ import annotations

import errno
import os
import select
import struct
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvcore.api.errors import ConflictError, DeviceGone, UsageError
from nvcore.vfio_user import DeviceServer

from .fake import FakeClient, FakeDevice, MappedBar, served

MAP = struct.Struct("<IIQQQ")
UNMAP = struct.Struct("<IIQQ")
ACCESS = struct.Struct("<QII")
IRQS = struct.Struct("<IIIII")
INFO = struct.Struct("<IIII")
REGION = struct.Struct("<IIIIQQ")


@pytest.fixture
def memory() -> int:
    fd = os.memfd_create("ram", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 1 << 20)
    import fcntl

    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    yield fd  # type: ignore[misc]
    os.close(fd)


def test_version_reply_is_not_longer_than_qemus_request(tmp_path: Path) -> None:
    with served(tmp_path / "s") as (_, client, _):
        body = client.hello()
        assert len(body) <= 198 and body.endswith(b"\0")  # QEMU 11.1.3 sends 214 bytes in all


@pytest.mark.parametrize(
    "body",
    [
        b"",
        struct.pack("<HH", 1, 0),
        struct.pack("<HH", 0, 0) + b"{}",
        struct.pack("<HH", 0, 0) + b"{nonsense\0",
        struct.pack("<HH", 0, 0) + b'{"capabilities":{"max_msg_fds":-1}}\0',
        struct.pack("<HH", 0, 0) + b'{"capabilities":7}\0',
        struct.pack("<HH", 0, 0) + b"[" * 5000 + b"\0",
    ],
)
def test_a_bad_version_is_refused(tmp_path: Path, body: bytes) -> None:
    with served(tmp_path / "s") as (_, client, _):
        assert client.ask(1, body)[0] == errno.EINVAL


def test_nothing_is_served_before_version_and_version_only_once(tmp_path: Path) -> None:
    with served(tmp_path / "s") as (_, client, _):
        assert client.ask(4, INFO.pack(16, 0, 0, 0))[0] == errno.EINVAL
        client.hello()
        assert client.ask(1, struct.pack("<HH", 0, 0))[0] == errno.EINVAL
        error, body = client.ask(4, INFO.pack(16, 0, 0, 0))
        assert error == 0 and INFO.unpack(body) == (16, 3, 9, 5)


def test_region_info_says_size_and_absent_regions_have_none(tmp_path: Path) -> None:
    with served(tmp_path / "s") as (_, client, _):
        client.hello()
        for index, size in ((0, 0x1000), (1, 0x10000), (2, 0), (6, 0), (7, 4096), (8, 0)):
            error, body = client.ask(5, REGION.pack(32, 0, index, 0, 0, 0))
            assert error == 0
            assert REGION.unpack(body)[4] == size
        assert client.ask(5, REGION.pack(32, 0, 9, 0, 0, 0))[0] == errno.EINVAL
        assert client.ask(5, REGION.pack(31, 0, 0, 0, 0, 0))[0] == errno.EINVAL


def test_a_sparse_bar_brings_areas_and_a_descriptor_with_the_complete_reply(tmp_path: Path) -> None:
    device = FakeDevice()
    device.bars[1] = MappedBar(1, 0x10000, [(0, 0x4000), (0x8000, 0x8000)])
    with served(tmp_path / "s", device) as (_, client, _):
        client.hello()
        client.raw(client.pack(5, REGION.pack(32, 0, 1, 0, 0, 0)))
        _, _, error, body, fds = client.reply()
        argsz = REGION.unpack(body)[0]
        assert (error, fds, argsz) == (0, [], 32 + 16 + 32)
        client.raw(client.pack(5, REGION.pack(argsz, 0, 1, 0, 0, 0)))
        _, _, error, body, fds = client.reply()
        assert error == 0 and len(fds) == 1 and len(body) == argsz
        assert struct.unpack_from("<HHIII", body, 32) == (1, 1, 0, 2, 0)
        assert struct.unpack_from("<4Q", body, 48) == (0, 0x4000, 0x8000, 0x8000)
        os.close(fds[0])


@pytest.mark.parametrize("size", [1, 2, 4, 8, 64])
def test_reads_and_writes_of_every_width_reach_bar_and_config(tmp_path: Path, size: int) -> None:
    with served(tmp_path / "s") as (device, client, _):
        client.hello()
        data = bytes(range(1, size + 1))
        for region in (0, 7):
            assert client.ask(10, ACCESS.pack(0x40, region, size) + data) == (0, ACCESS.pack(0x40, region, size))
            error, body = client.ask(9, ACCESS.pack(0x40, region, size))
            assert error == 0 and body[16:] == data
        assert device.bars[0].data[0x40 : 0x40 + size] == data == device.config[0x40 : 0x40 + size]


@pytest.mark.parametrize(
    ("offset", "region", "count"),
    [(0x1000, 0, 4), (0xFFE, 0, 4), (2**64 - 4, 0, 8), (0, 2, 4), (0, 6, 4), (0, 77, 4), (4096, 7, 1), (0, 1, 0xFFFFFFFF)],
)
def test_an_access_outside_its_region_is_refused(tmp_path: Path, offset: int, region: int, count: int) -> None:
    with served(tmp_path / "s") as (_, client, _):
        client.hello()
        assert client.ask(9, ACCESS.pack(offset, region, count))[0] == errno.EINVAL
        assert client.ask(10, ACCESS.pack(offset, region, count))[0] == errno.EINVAL


def test_a_write_whose_count_differs_from_its_data_is_refused(tmp_path: Path) -> None:
    with served(tmp_path / "s") as (device, client, _):
        client.hello()
        assert client.ask(10, ACCESS.pack(0, 0, 4) + b"\1\2\3")[0] == errno.EINVAL
        assert client.ask(10, ACCESS.pack(0, 0, 4) + b"\1\2\3\4\5")[0] == errno.EINVAL
        assert device.bars[0].data[:8] == bytes(8)


def test_posted_writes_get_no_reply_and_are_seen_by_the_next_read(tmp_path: Path) -> None:
    with served(tmp_path / "s") as (_, client, _):
        client.hello()
        burst = b"".join(client.pack(10, ACCESS.pack(4 * n, 0, 4) + struct.pack("<I", n + 7), flags=0x10) for n in range(300))
        client.raw(burst + client.pack(9, ACCESS.pack(0, 0, 1200)))
        ident, command, error, body, _ = client.reply()
        assert (ident, command, error) == (client.ident, 9, 0)
        assert struct.unpack("<300I", body[16:]) == tuple(range(7, 307))


def test_write_multi_stores_all_or_nothing(tmp_path: Path) -> None:
    entry = lambda offset, count, data: ACCESS.pack(offset, 0, count) + data.ljust(8, b"\0")  # noqa: E731
    good = struct.pack("<Q", 2) + entry(0, 4, b"abcd") + entry(4, 2, b"ef")
    with served(tmp_path / "s") as (device, client, _):
        client.hello()
        bad = struct.pack("<Q", 2) + entry(0x100, 4, b"abcd") + entry(0xFFF, 4, b"xxxx")
        assert client.ask(15, bad)[0] == errno.EINVAL
        assert device.bars[0].data[0x100:0x104] == bytes(4)
        assert client.ask(15, struct.pack("<Q", 2**61) + entry(0, 4, b"abcd"))[0] == errno.EINVAL
        assert client.ask(15, good) == (0, struct.pack("<Q", 2))
        assert device.bars[0].data[:6] == b"abcdef"


def test_dma_maps_reach_the_device_and_leave_with_the_client(tmp_path: Path, memory: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with served(tmp_path / "s") as (device, client, _):
        client.hello()
        assert client.ask(2, MAP.pack(32, 3, 0, 0x10000, 0x1000), [memory])[0] == 0
        assert client.ask(2, MAP.pack(32, 1, 0x2000, 0x20000, 0x1000), [memory])[0] == 0
        assert client.ask(2, MAP.pack(32, 3, 0, 0x30000, 0x1000))[0] == 0  # without a descriptor: remembered, not given
        assert device.maps == {0x10000: (0x1000, 0, True), 0x20000: (0x1000, 0x2000, False)}
        error, body = client.ask(3, UNMAP.pack(24, 0, 0x10000, 0x1000))
        assert error == 0 and body == UNMAP.pack(24, 0, 0x10000, 0x1000)
        assert set(device.maps) == {0x20000}
    assert device.maps == {}
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (MAP.pack(32, 3, 0, 0x10800, 0x1000), errno.EINVAL),
        (MAP.pack(32, 3, 0, 0x10000, 0), errno.EINVAL),
        (MAP.pack(32, 3, 0, 0x10000, 0x1234), errno.EINVAL),
        (MAP.pack(32, 3, 0, 2**64 - 0x1000, 0x2000), errno.EINVAL),
        (MAP.pack(32, 3, 0x100000, 0x10000, 0x1000), errno.EINVAL),  # the file ends there
        (MAP.pack(32, 3, 2**63, 0x10000, 0x1000), errno.EINVAL),
        (MAP.pack(32, 3, 0, 0, 9 << 40), errno.EINVAL),
        (MAP.pack(32, 8, 0, 0x10000, 0x1000), errno.EINVAL),
        (MAP.pack(31, 3, 0, 0x10000, 0x1000), errno.EINVAL),
        (MAP.pack(32, 3, 0, 0x10000, 0x1000)[:-1], errno.EINVAL),
        (MAP.pack(32, 3, 0, 0x40000, 0x1000), errno.EEXIST),
        (MAP.pack(32, 3, 0, 0x3F000, 0x2000), errno.EEXIST),
        (MAP.pack(32, 3, 0, 0x41000, 0x1000), errno.EEXIST),
        (MAP.pack(32, 3, 0, 0x30000, 0x20000), errno.EEXIST),
    ],
)
def test_a_bad_map_changes_nothing(tmp_path: Path, memory: int, request_: bytes, code: int) -> None:
    with served(tmp_path / "s") as (device, client, _):
        client.hello()
        assert client.ask(2, MAP.pack(32, 3, 0, 0x40000, 0x2000), [memory])[0] == 0
        assert client.ask(2, request_, [memory])[0] == code
        assert set(device.maps) == {0x40000}


def test_unmap_takes_what_lies_inside_and_refuses_to_cut(tmp_path: Path, memory: int) -> None:
    with served(tmp_path / "s") as (device, client, _):
        client.hello()
        for address in (0x10000, 0x20000, 0x30000):
            assert client.ask(2, MAP.pack(32, 3, 0, address, 0x2000), [memory])[0] == 0
        assert client.ask(3, UNMAP.pack(24, 0, 0x11000, 0x10000))[0] == errno.EINVAL
        assert client.ask(3, UNMAP.pack(24, 0, 0x30000, 0x1000))[0] == errno.EINVAL
        assert len(device.maps) == 3
        assert client.ask(3, UNMAP.pack(24, 0, 0x10000, 0x12000))[0] == 0
        assert set(device.maps) == {0x30000}
        assert client.ask(3, UNMAP.pack(24, 0, 0x800000, 2**64 - 0x800000))[0] == 0  # as a virtual IOMMU sends it: contains none
        assert client.ask(3, UNMAP.pack(24, 2, 0, 0))[0] == 0
        assert not device.maps


@pytest.mark.parametrize("flags", [0, 2])
def test_a_map_that_the_device_may_not_read_is_remembered_and_not_given_to_it(tmp_path: Path, memory: int, flags: int) -> None:
    with served(tmp_path / "s") as (device, client, _):
        client.hello()
        assert client.ask(2, MAP.pack(32, flags, 0, 0x10000, 0x1000), [memory])[0] == 0
        assert client.ask(2, MAP.pack(32, 3, 0, 0x10000, 0x1000), [memory])[0] == errno.EEXIST
        assert not device.maps


def test_a_map_of_memory_that_can_shrink_is_not_given_to_the_device(tmp_path: Path) -> None:
    fd = os.memfd_create("loose")
    os.ftruncate(fd, 0x1000)
    with served(tmp_path / "s") as (device, client, _):
        client.hello()
        assert client.ask(2, MAP.pack(32, 3, 0, 0x10000, 0x1000), [fd])[0] == 0
        assert not device.maps
    os.close(fd)


def test_descriptors_go_to_their_own_message_when_messages_arrive_together(tmp_path: Path, memory: int) -> None:
    with served(tmp_path / "s") as (device, client, _):
        client.hello()
        client.raw(client.pack(2, MAP.pack(32, 3, 0, 0x10000, 0x1000)))  # no descriptor
        client.raw(client.pack(2, MAP.pack(32, 3, 0, 0x20000, 0x1000)), [memory])
        client.raw(client.pack(2, MAP.pack(32, 3, 0, 0x30000, 0x1000)))
        client.raw(client.pack(2, MAP.pack(32, 3, 0x3000, 0x40000, 0x1000)), [memory])
        assert [client.reply()[2] for _ in range(4)] == [0, 0, 0, 0]
        assert device.maps == {0x20000: (0x1000, 0, True), 0x40000: (0x1000, 0x3000, True)}


def test_interrupts_are_connected_replaced_and_disconnected(tmp_path: Path) -> None:
    first, second = os.eventfd(0), os.eventfd(0)
    with served(tmp_path / "s") as (device, client, _):
        client.hello()
        assert INFO.unpack(client.ask(7, INFO.pack(16, 0, 1, 0))[1])[3] == 1
        assert client.ask(8, IRQS.pack(20, 0x24, 1, 0, 1), [first])[0] == 0
        assert device.vectors["msi", 0] is not None
        assert client.ask(8, IRQS.pack(20, 0x24, 1, 0, 1), [second])[0] == 0
        os.eventfd_write(device.vectors["msi", 0] or -1, 5)
        assert os.eventfd_read(second) == 5
        assert client.ask(8, IRQS.pack(20, 0x21, 1, 0, 1))[0] == 0  # inject
        assert os.eventfd_read(second) == 1
        held = len(os.listdir("/proc/self/fd"))
        for event in (first, second, second):
            assert client.ask(8, IRQS.pack(20, 0x24, 1, 0, 1), [event])[0] == 0
        assert client.ask(4, INFO.pack(16, 0, 0, 0))[0] == 0
        assert len(os.listdir("/proc/self/fd")) == held, "the one before is closed"
        assert client.ask(8, IRQS.pack(20, 0x21, 1, 0, 0))[0] == 0
        assert device.vectors["msi", 0] is None
        assert not select.select([first], [], [], 0)[0]
    os.close(first)
    os.close(second)


@pytest.mark.parametrize(
    ("body", "fds"),
    [
        (IRQS.pack(20, 0x24, 5, 0, 1), 1),
        (IRQS.pack(20, 0x24, 2, 3, 2), 2),
        (IRQS.pack(20, 0x24, 2, 0xFFFFFFFF, 1), 1),
        (IRQS.pack(20, 0x26, 2, 0, 1), 1),
        (IRQS.pack(20, 0x30, 2, 0, 1), 0),
        (IRQS.pack(20, 0x24, 2, 0, 2), 1),
        (IRQS.pack(20, 0x21, 2, 0, 1), 1),
        (IRQS.pack(20, 0x22, 2, 0, 3) + b"\1", 0),
        (IRQS.pack(20, 0x22, 2, 0, 3) + b"\1" * 4, 0),
        (IRQS.pack(19, 0x24, 2, 0, 1), 1),
        (IRQS.pack(20, 0x124, 2, 0, 1), 1),
        (b"\0" * 19, 0),
    ],
)
def test_a_bad_interrupt_request_is_refused_and_leaks_nothing(tmp_path: Path, body: bytes, fds: int) -> None:
    event = os.eventfd(0)
    with served(tmp_path / "s") as (device, client, _):
        client.hello()
        before = len(os.listdir("/proc/self/fd"))
        assert client.ask(8, body, [event] * fds)[0] == errno.EINVAL
        assert client.ask(4, INFO.pack(16, 0, 0, 0))[0] == 0  # served after the refused one was tidied up
        assert len(os.listdir("/proc/self/fd")) == before
        assert not any(device.vectors.values())
    os.close(event)


def test_reset_reaches_the_device_and_keeps_maps(tmp_path: Path, memory: int) -> None:
    with served(tmp_path / "s") as (device, client, _):
        client.hello()
        assert client.ask(2, MAP.pack(32, 3, 0, 0x10000, 0x1000), [memory])[0] == 0
        assert client.ask(13)[0] == client.ask(13)[0] == 0
        assert device.resets == 2 and device.maps


def test_a_device_that_left_answers_with_an_error_and_the_connection_stays(tmp_path: Path) -> None:
    with served(tmp_path / "s") as (device, client, problems):
        client.hello()
        device.bars[0].gone = True
        assert client.ask(9, ACCESS.pack(0, 0, 4))[0] == errno.EIO
        assert client.ask(9, ACCESS.pack(0, 7, 4))[0] == 0
        assert problems


@pytest.mark.parametrize(
    ("problem", "number"),
    [
        (OSError(errno.EMFILE, "too many"), errno.EMFILE),
        (BlockingIOError(errno.EAGAIN, "not now"), errno.EAGAIN),
        (OSError("a system's error without a number"), errno.EIO),
        (DeviceGone("gone"), errno.EIO),
        (UsageError("not so"), errno.EINVAL),
    ],
)
def test_what_a_device_raises_is_an_answer_and_the_connection_stays(tmp_path: Path, memory: int, problem: Exception, number: int) -> None:
    device = FakeDevice()

    def fail(*args: object, **more: object) -> None:
        raise problem

    device.reset = device.map_dma = device.config_write = fail  # type: ignore[assignment]
    with served(tmp_path / "s", device) as (_, client, problems):
        client.hello()
        assert client.ask(13) == (number, b"")
        assert client.ask(2, MAP.pack(32, 3, 0, 0x10000, 0x1000), [memory]) == (number, b"")
        assert client.ask(10, ACCESS.pack(0, 7, 4) + b"abcd") == (number, b"")
        assert client.ask(9, ACCESS.pack(0, 0, 4))[0] == 0
        assert len(problems) == 3 and all(str(problem) in text for text in problems)


@pytest.mark.parametrize("command", [0, 6, 11, 12, 14, 16, 17, 18, 999])
def test_what_is_not_offered_is_refused(tmp_path: Path, command: int) -> None:
    with served(tmp_path / "s") as (_, client, _):
        client.hello()
        assert client.ask(command, b"\0" * 32)[0] == errno.EINVAL


@pytest.mark.parametrize("size", [0, 15, (1 << 20) + 4097, 0xFFFFFFFF])
def test_a_size_that_cannot_be_closes_the_connection(tmp_path: Path, size: int) -> None:
    with served(tmp_path / "s") as (_, client, problems):
        client.hello()
        client.raw(struct.pack("<HHIII", 1, 9, size, 0, 0))
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.reply()
        deadline = time.monotonic() + 5
        while not problems and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "closed" in problems[-1]


def test_a_stale_socket_is_replaced_and_a_served_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    import socket

    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    with served(path), pytest.raises(ConflictError, match="served by another"):
        DeviceServer(FakeDevice(), str(path))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="too long"):
        DeviceServer(FakeDevice(), str(tmp_path / ("x" * 120)))  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    for place in ("none/s", "file/s"):
        with pytest.raises(UsageError, match="no socket can be made"):
            DeviceServer(FakeDevice(), str(tmp_path / place))  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=st.lists(st.tuples(st.integers(0, 20), st.binary(max_size=80)), max_size=12), tail=st.binary(max_size=40))
def test_arbitrary_messages_never_stop_the_server(tmp_path: Path, bodies: list[tuple[int, bytes]], tail: bytes) -> None:
    path = tmp_path / "fuzz"
    with served(path) as (_, client, _):
        client.hello()
        for command, body in bodies:
            client.ask(command, body)
        client.raw(tail or b"x")
        client.close()
        again = FakeClient(str(path))
        try:
            again.hello()
            assert again.ask(9, ACCESS.pack(0, 0, 4))[0] == 0
        finally:
            again.close()
