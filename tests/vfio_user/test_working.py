"""A device's own work is done between messages: neither waits for more than a piece, or a burst, of the other."""

from __future__ import annotations

import errno
import struct
import threading
import time
from pathlib import Path

import pytest

from nvcore.api.errors import DeviceGone
from nvcore.vfio_user.working import BURST

from .fake import FakeDevice, served

ACCESS = struct.Struct("<QII")
READ, WRITE, NO_REPLY = 9, 10, 0x10


class Job:
    """Work that says what it is told to say, and how often it was asked."""

    def __init__(self, answer: float | None) -> None:
        self.answer = answer
        self.calls = 0
        self.thread: threading.Thread | None = None

    def __call__(self) -> float | None:
        self.calls += 1
        self.thread = threading.current_thread()
        return self.answer

    def until(self, calls: int) -> None:
        limit = time.monotonic() + 5
        while self.calls < calls:
            assert time.monotonic() < limit, f"{self.calls} pieces, waiting for {calls}"
            time.sleep(0.0005)


def test_endless_work_is_done_while_nothing_arrives_and_reads_are_answered(tmp_path: Path) -> None:
    job = Job(0.0)
    with served(tmp_path / "s", work=job) as (_, client, _):
        client.hello()
        job.until(100)
        for _ in range(50):
            assert client.ask(READ, ACCESS.pack(0, 0, 4))[0] == 0
        job.until(job.calls + 100)
        assert job.thread is not threading.current_thread()


def test_a_device_with_nothing_to_do_is_asked_after_messages_only(tmp_path: Path) -> None:
    job = Job(None)
    with served(tmp_path / "s", work=job) as (_, client, _):
        client.hello()
        client.ask(READ, ACCESS.pack(0, 0, 4))
        job.until(2)  # after each of two messages
        time.sleep(0.05)
        assert job.calls == 2


def test_a_device_that_waits_is_asked_again_in_time_and_before_it_if_a_message_comes(tmp_path: Path) -> None:
    job = Job(0.01)
    with served(tmp_path / "s", work=job) as (_, client, _):
        client.hello()
        job.until(job.calls + 5)
        job.answer = 60.0
        job.until(job.calls + 1)
        start = time.monotonic()
        assert client.ask(READ, ACCESS.pack(0, 0, 4))[0] == 0
        assert time.monotonic() - start < 10


def test_a_flood_of_messages_does_not_stop_the_work(tmp_path: Path) -> None:
    device, job = FakeDevice(), Job(0.0)
    seen: list[int] = []
    bar = device.bars[0]
    bar.write32 = lambda offset, value: seen.append(job.calls)  # type: ignore[method-assign]
    with served(tmp_path / "s", device, job) as (_, client, _):
        client.hello()
        client.raw(b"".join(client.pack(WRITE, ACCESS.pack(0, 0, 4) + bytes(4), NO_REPLY) for _ in range(10 * BURST)))
        assert client.ask(READ, ACCESS.pack(0, 0, 4))[0] == 0
    assert len(seen) == 10 * BURST
    assert all(seen[at + BURST] > seen[at] for at in range(len(seen) - BURST)), "a piece in every burst"


def test_messages_keep_their_order_and_work_sees_what_came_before_it(tmp_path: Path) -> None:
    device = FakeDevice()
    seen: list[int] = []

    def work() -> float | None:
        seen.append(device.bars[0].read32(0))
        return 0.0

    with served(tmp_path / "s", device, work) as (_, client, _):
        client.hello()
        for number in range(300):
            client.raw(client.pack(WRITE, ACCESS.pack(0, 0, 4) + struct.pack("<I", number), NO_REPLY))
        assert client.ask(READ, ACCESS.pack(0, 0, 4))[1][16:] == struct.pack("<I", 299)
    assert seen == sorted(seen)


def test_a_message_in_two_pieces_is_served_between_work(tmp_path: Path) -> None:
    job = Job(0.0)
    with served(tmp_path / "s", work=job) as (_, client, _):
        client.hello()
        whole = client.pack(READ, ACCESS.pack(0, 0, 4))
        client.raw(whole[:20])
        job.until(job.calls + 20)
        client.raw(whole[20:])
        assert client.reply()[2] == 0


@pytest.mark.parametrize("reason", [DeviceGone("the device left"), OSError(errno.EAGAIN, "the device left")])
def test_work_that_fails_is_a_problem_and_the_messages_go_on(tmp_path: Path, reason: Exception) -> None:
    def work() -> float | None:
        raise reason

    with served(tmp_path / "s", work=work) as (_, client, problems):
        client.hello()
        assert client.ask(READ, ACCESS.pack(0, 0, 4))[0] == 0
    assert f"the device's own work: {reason}" in problems[0]


def test_a_client_that_leaves_in_the_middle_of_work_is_followed_by_the_next(tmp_path: Path) -> None:
    from .fake import FakeClient

    job = Job(0.0)
    with served(tmp_path / "s", work=job) as (_, client, problems):
        client.hello()
        client.raw(client.pack(READ, ACCESS.pack(0, 0, 4))[:7])
        client.close()
        after = FakeClient(str(tmp_path / "s"))
        after.hello()
        assert after.ask(READ, ACCESS.pack(0, 0, 4))[0] == 0
        after.close()
    assert problems == ["connection closed: the stream ended inside a message"]
