"""Every limit holds at its edge: one less is served, one more is refused."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from nvcore.vfio_user import dma, version
from nvcore.vfio_user.dma import DmaTable
from nvcore.vfio_user.wire import MAX_TRANSFER, Refused

from .fake import FakeBar, FakeDevice, served

ACCESS, MAP, UNMAP, MULTI = struct.Struct("<QII"), struct.Struct("<IIQQQ"), struct.Struct("<IIQQ"), struct.Struct("<QIIQ")
READ, WRITE, WRITE_MULTI = 9, 10, 15
PAGE = 0x1000


def number_of(call: Callable[[], object]) -> int:
    """0, or the errno of a refusal."""
    try:
        call()
    except Refused as refused:
        return refused.errno
    return 0


def test_one_transfer_has_its_bound_in_a_region_that_is_larger(tmp_path: Path) -> None:
    device = FakeDevice()
    device.bars[1] = FakeBar(1, 4 * MAX_TRANSFER)
    with served(tmp_path / "s", device) as (_, client, _):
        client.hello()
        assert client.ask(READ, ACCESS.pack(8, 1, MAX_TRANSFER))[0] == 0
        assert client.ask(READ, ACCESS.pack(8, 1, MAX_TRANSFER + 1))[0] == errno.EINVAL
        for count, code in ((MAX_TRANSFER, 0), (MAX_TRANSFER + 1, errno.EINVAL)):
            client.socket.sendall(client.pack(WRITE, ACCESS.pack(8, 1, count) + bytes(count)))
            assert client.reply()[2] == code


def test_an_access_ends_at_the_last_byte_of_its_region_and_none_reaches_behind_it(tmp_path: Path) -> None:
    with served(tmp_path / "s") as (device, client, _):
        client.hello()
        for region, size in ((0, device.bars[0].size), (7, 4096)):
            assert client.ask(READ, ACCESS.pack(size - 4, region, 4)) == (0, ACCESS.pack(size - 4, region, 4) + bytes(4))
            assert client.ask(READ, ACCESS.pack(size - 3, region, 4))[0] == errno.EINVAL
            assert client.ask(READ, ACCESS.pack(size, region, 0)) == (0, ACCESS.pack(size, region, 0)), "nothing, at the end"
            assert client.ask(WRITE, ACCESS.pack(size, region, 0)) == (0, ACCESS.pack(size, region, 0))
            assert client.ask(READ, ACCESS.pack(size + 1, region, 0))[0] == errno.EINVAL


def test_a_read_brings_nothing_but_its_request(tmp_path: Path) -> None:
    with served(tmp_path / "s") as (_, client, _):
        client.hello()
        for body in (ACCESS.pack(0, 0, 4)[:-1], ACCESS.pack(0, 0, 4) + b"\0"):
            assert client.ask(READ, body)[0] == errno.EINVAL


def test_a_batch_has_its_bounds(tmp_path: Path) -> None:
    def batch(entries: int, count: int = 8) -> bytes:
        return struct.pack("<Q", entries) + b"".join(MULTI.pack(8 * at % PAGE, 0, count, at) for at in range(entries))

    with served(tmp_path / "s") as (_, client, _):
        client.hello()
        assert client.ask(WRITE_MULTI, batch(512)) == (0, struct.pack("<Q", 512))
        assert client.ask(WRITE_MULTI, batch(0)) == (0, struct.pack("<Q", 0))
        for bad in (batch(513), batch(1, 9), batch(2)[:-1], batch(2) + b"\0", batch(1)[:7]):
            assert client.ask(WRITE_MULTI, bad)[0] == errno.EINVAL


def test_there_are_as_many_maps_as_announced_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dma.MAX_MAPS == 65535, "the protocol's default, which is not announced"
    monkeypatch.setattr(dma, "MAX_MAPS", 3)
    table = DmaTable(FakeDevice())  # type: ignore[arg-type]
    found = [number_of(lambda at=at: table.map(memoryview(MAP.pack(32, 3, 0, at * PAGE, PAGE)), [])) for at in range(4)]  # type: ignore[misc]
    assert found == [0, 0, 0, errno.ENOSPC]
    table.unmap(memoryview(UNMAP.pack(24, 0, 0, PAGE)))
    assert number_of(lambda: table.map(memoryview(MAP.pack(32, 3, 0, 9 * PAGE, PAGE)), [])) == 0


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (UNMAP.pack(24, 0, 0, 2**64 - PAGE), 0),
        (UNMAP.pack(24, 0, PAGE, 2**64 - PAGE), 0),
        (UNMAP.pack(24, 0, PAGE, 2**64 - 1), errno.EINVAL),
        (UNMAP.pack(24, 0, PAGE, 0), errno.EINVAL),
        (UNMAP.pack(24, 2, 0, PAGE), errno.EINVAL),
        (UNMAP.pack(24, 2, PAGE, 0), errno.EINVAL),
        (UNMAP.pack(24, 1, 0, PAGE), errno.EINVAL),
        (UNMAP.pack(23, 0, 0, PAGE), errno.EINVAL),
        (UNMAP.pack(24, 0, 0, PAGE)[:-1], errno.EINVAL),
        (UNMAP.pack(24, 0, 0, PAGE) + b"\0", errno.EINVAL),
    ],
)
def test_an_unmap_names_a_range_or_everything(request_: bytes, code: int) -> None:
    table = DmaTable(FakeDevice())  # type: ignore[arg-type]
    table.map(memoryview(MAP.pack(32, 3, 0, 4 * PAGE, PAGE)), [])
    assert number_of(lambda: table.unmap(memoryview(request_))) == code
    assert len(table) == (1 if code else 0)


@pytest.mark.parametrize(
    ("capability", "good"),
    [
        ('"max_msg_fds":0', True),
        ('"max_msg_fds":1024', True),
        ('"max_msg_fds":1025', False),
        ('"max_msg_fds":true', False),
        ('"max_msg_fds":1.0', False),
        ('"max_data_xfer_size":0', False),
        ('"max_dma_maps":0', False),
        ('"max_dma_maps":null', False),
        ('"pgsizes":0', False),
        ('"pgsizes":"4096"', False),
        ('"unheard_of":[]', True),
        (f'"max_dma_maps":{"9" * 5000}', False),
    ],
)
def test_a_capability_is_a_number_in_its_range(capability: str, good: bool) -> None:
    body = struct.pack("<HH", 0, 1) + f'{{"capabilities":{{{capability}}}}}\0'.encode()
    assert (number_of(lambda: version.answer(memoryview(body), batches=True)) == 0) == good


@pytest.mark.parametrize("minor", [0, 1, 65535])
def test_the_answer_has_the_lower_minor_version(minor: int) -> None:
    assert version.answer(memoryview(struct.pack("<HH", 0, minor)), batches=False)[:4] == struct.pack("<HH", 0, 0)
