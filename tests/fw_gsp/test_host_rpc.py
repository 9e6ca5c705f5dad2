"""Messages to a vGPU's task, on a heap of our own: what is written before the doorbell, how long is waited, whose answer counts."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from nvcore_fw_gsp.families.host_rpc import HEAP_PARTS, HostRpc
from nvcore_fw_gsp.families.vgpu import routing_id
from nvcore_fw_gsp.queue.errors import CallRefused, CallTimeout, FirmwareIsDead, TaskGone

from .test_queue_rings import Clock

DOORBELL, FUNCTION = 0xB82200, 3
RESPONSE, MESSAGE = HEAP_PARTS["response"].offset, HEAP_PARTS["message"].offset


class Task:
    """The heap as the task sees it; `answer` is what it does when its doorbell rings."""

    def __init__(self) -> None:
        self.heap = bytearray(b"\x5a" * 0x4000)
        self.rings: list[tuple[int, int]] = []
        self.unseen: list[int] = []
        self.answer: Callable[[int, int], None] = self.done
        self.clock = Clock()
        self.dead: list[Exception] = []
        self.gone: dict[int, str] = {}
        self.rpc = HostRpc(self, self, self.clock, FUNCTION, self.alive, self.gone.get, 1.0)  # type: ignore[arg-type]

    def alive(self) -> None:
        if self.dead:
            raise self.dead[0]

    # the lease

    def read(self, offset: int, size: int) -> bytes:
        self.unseen.clear()
        return bytes(self.heap[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        self.unseen.append(offset)
        self.heap[offset : offset + len(data)] = data

    # the BAR

    def write32(self, offset: int, value: int) -> None:
        assert self.unseen == [], "a store was not read back before the doorbell"
        self.rings.append((offset, value))
        self.answer(*struct.unpack_from("<2I", self.heap, 4))

    def done(self, message: int, number: int, result: int = 0) -> None:
        struct.pack_into("<2I", self.heap, RESPONSE + 4, number, result)


def test_a_message_is_in_place_before_the_doorbell_of_its_function_rings_and_its_answer_is_the_task_s():
    task = Task()
    task.rpc.clear()

    def answer(message: int, number: int) -> None:
        assert (message, number) == (13, len(task.rings))
        assert task.heap[MESSAGE : MESSAGE + 64] == b"body".ljust(64, b"\0")
        task.heap[MESSAGE : MESSAGE + 4] = b"BODY"
        task.done(message, number)

    task.answer = answer
    for _ in range(2):
        assert task.rpc.send(13, b"body", "a message") == b"BODY".ljust(64, b"\0")
    assert task.rings == [(DOORBELL, FUNCTION * 32 + 17)] * 2 and task.clock.time == 0


def test_nothing_of_an_earlier_task_is_taken_for_an_answer():
    task = Task()
    struct.pack_into("<I", task.heap, 8, 0x4E654A6F)  # its marker
    struct.pack_into("<2I", task.heap, RESPONSE + 4, 1, 0)  # and its answer to a first message
    task.rpc.clear()
    assert bytes(task.heap[:0x3000]) == bytes(0x3000) and task.heap[0x3000:] == b"\x5a" * 0x1000
    with pytest.raises(CallTimeout):
        task.rpc.wait_bootloaded()
    task.answer = lambda message, number: None
    with pytest.raises(CallTimeout):
        task.rpc.send(13, b"", "a message")


def test_where_the_buffers_are_is_told_before_the_version_that_makes_it_valid():
    task = Task()
    task.rpc.clear()
    task.unseen.clear()
    task.rpc.announce()
    assert task.unseen == [16, 0]
    assert struct.unpack_from("<I12x4Q", task.heap) == (1, 0x1000, 0x2000, 0x3000, 0x203000)


@pytest.mark.parametrize(("wait", "limit"), [("boot", 10), ("message", 120)])
def test_a_task_is_waited_for_until_its_limit_and_no_longer(wait, limit):
    for late in (False, True):
        task = Task()
        task.rpc.clear()
        place, value = (8, 0x4E654A6F) if wait == "boot" else (RESPONSE + 4, 1)
        task.answer = lambda message, number: None
        when = limit + 1 if late else limit - 1

        def arrive(task: Task = task, place: int = place, value: int = value, when: int = when) -> None:
            if task.clock.time >= when:
                struct.pack_into("<I", task.heap, place, value)

        task.clock.on_sleep.append(arrive)
        call = task.rpc.wait_bootloaded if wait == "boot" else lambda task=task: task.rpc.send(13, b"", "a message")
        if late:
            with pytest.raises(CallTimeout, match=f"within {limit} s"):
                call()
            assert limit <= task.clock.time < limit + 0.1
        else:
            call()
            assert limit - 1 <= task.clock.time < limit - 0.9


def test_a_refusal_carries_its_number_and_a_dead_firmware_is_not_waited_for():
    task = Task()
    task.answer = lambda message, number: task.done(message, number, 0x57)
    with pytest.raises(CallRefused, match="function 3 refused a message") as caught:
        task.rpc.send(13, b"", "a message")
    assert caught.value.status == 0x57
    task.answer = lambda message, number: task.dead.append(FirmwareIsDead("the firmware is dead"))
    with pytest.raises(FirmwareIsDead):
        task.rpc.send(13, b"", "a message")
    assert task.clock.time == 0


@pytest.mark.parametrize("wait", ["boot", "message"])
@pytest.mark.parametrize("word", ["crashed", "ended"])
def test_a_task_whose_end_was_told_is_waited_for_no_longer_and_another_s_end_is_not_its_own(wait, word):
    task = Task()
    task.rpc.clear()
    task.gone[FUNCTION + 1] = word
    task.answer = lambda message, number: None
    task.clock.on_sleep.append(lambda: task.gone.update({FUNCTION: word}) if task.clock.time >= 2 else None)
    with pytest.raises(TaskGone, match=f"function 3 {word} during"):
        task.rpc.wait_bootloaded() if wait == "boot" else task.rpc.send(13, b"", "a message")
    assert 2 <= task.clock.time < 2.1


def test_what_a_task_answered_before_it_ended_counts():
    task = Task()
    task.gone[FUNCTION] = "crashed"
    assert task.rpc.send(13, b"body", "a message") == b"body".ljust(64, b"\0")


@pytest.mark.parametrize(("address", "number"), [("0000:00:00.0", 0), ("0000:41:00.4", 0x4104), ("00a2:c1:1f.7", 0xA2C1FF)])
def test_a_function_s_address_is_counted_as_the_firmware_does(address, number):
    assert routing_id(address) == number
