"""Calls: answers, split answers both ways (F08), numbers without a name (F09), events in between, late answers and death (F10)."""

from __future__ import annotations

import threading
import time

import pytest

from nvcore.api.clock import SYSTEM
from nvcore.api.errors import DeviceGone
from nvcore_fw_gsp.queue.errors import CallRefused, CallTimeout, FirmwareIsDead, QueueFull
from nvcore_fw_gsp.queue.memory import SharedBlock, block_size
from nvcore_fw_gsp.queue.port import Call, RpcPort

from .peer import Buffer, Peer
from .test_queue_rings import Clock, data


class Desk:
    """A port and a peer that answers at once unless told otherwise."""

    def __init__(self, *, echo: bool = True, clock: object = None, healthy=lambda: None, seq: bool = True) -> None:  # type: ignore[no-untyped-def]
        buffer = Buffer(block_size())
        block = SharedBlock(buffer)
        self.peer = Peer(buffer)
        self.clock = clock or Clock()
        self.events: list[tuple[int, int, bytes]] = []
        self.notes: list[tuple[str, str]] = []
        self.deaths: list[str] = []
        self.seq = seq
        self.muted = False
        self.port = RpcPort(
            block,
            self.peer.doorbell,
            self.clock,  # type: ignore[arg-type]
            on_event=lambda *e: self.events.append(e),
            on_note=lambda *n: self.notes.append(n),
            on_death=self.deaths.append,
            healthy=healthy,
            echo=echo,
        )
        self.peer.answer = self.answer
        self.peer.start()

    def answer(self, function: int, sequence: int, payload: bytes) -> None:
        if not self.muted:
            self.peer.put_message(function, payload[::-1], 0, sequence if self.seq else 0)

    def call(self, payload: bytes = b"ping", function: int = 0x4C, timeout: float = 5.0, head: int = 0) -> bytes:
        self.peer.expect = len(payload)
        return self.port.call(function, payload, "a test call", timeout, head)


def test_a_call_returns_its_answer():
    desk = Desk()
    assert desk.call(b"ping") == b"gnip"
    assert desk.port.waiting == 0


def test_a_refused_call_carries_the_number_even_without_a_name():
    desk = Desk()
    desk.peer.answer = lambda f, s, p: desk.peer.put(f, p, 0x12345678, s)
    with pytest.raises(CallRefused) as caught:
        desk.call()
    assert caught.value.status == 0x12345678 and "0x12345678" in str(caught.value)


def test_events_between_question_and_answer_are_delivered_in_order():
    desk = Desk()

    def answer(function: int, sequence: int, payload: bytes) -> None:
        desk.peer.put(0x1006, b"one")
        desk.peer.put(0x1FFF, b"a number without a name")
        desk.peer.put(function, payload, 0, sequence)
        desk.peer.put(0x1004, b"two")

    desk.peer.answer = answer
    assert desk.call(b"ping") == b"ping"
    assert [e[2] for e in desk.events] == [b"one", b"a number without a name", b"two"]


@pytest.mark.parametrize("size", [0xFFB0, 0xFFB1, 0xFFB0 * 2, 200_000])
def test_split_messages_are_merged_both_ways_with_events_between_the_parts(size):
    desk = Desk()

    def answer(function: int, sequence: int, payload: bytes) -> None:
        desk.peer.put(function, payload[:0xFFB0], 0, sequence)
        for start in range(0xFFB0, len(payload), 0xFFB0):
            desk.peer.put(0x1006, b"between")
            desk.port.drain()
            desk.peer.put(0x47, payload[start : start + 0xFFB0], 0, sequence)
            desk.port.drain()

    desk.peer.answer = answer
    assert desk.call(data(size)) == data(size)
    assert len(desk.events) == (size - 1) // 0xFFB0


def test_a_request_longer_than_the_ring_gets_its_answer():
    desk = Desk()
    total = data(334_344)
    parts: list[bytes] = []

    def pump() -> None:  # both sides work while the sender and then the caller waits
        if desk.peer.read != desk.peer.u32(desk.peer.command + 0x10):
            desk.peer.take_command()
        if parts and desk.peer.room() >= 16:
            part = parts.pop(0)
            desk.peer.put(0x4C if len(parts) == 5 else 0x47, part, 0, 1)

    desk.peer.doorbell = lambda: None  # type: ignore[method-assign]
    desk.port.sender._doorbell = lambda: None
    desk.clock.on_sleep.append(pump)
    desk.peer.answer = lambda f, s, p: parts.extend(p[i : i + 0xFFB0] for i in range(0, len(p), 0xFFB0))
    assert desk.call(total) == total


@pytest.mark.parametrize("echo", [True, False])
def test_a_late_answer_is_drained_and_said_and_never_given_to_the_next_call(echo):
    desk = Desk(echo=echo, seq=echo)
    desk.muted = True
    with pytest.raises(CallTimeout, match="no answer to a test call"):
        desk.call(b"first")
    desk.muted = False
    _, sequence, payload = desk.peer.got[-1]
    real = desk.peer.answer

    def answer(function: int, seq: int, late: bytes) -> None:
        desk.peer.put(function, payload, 0, sequence if echo else 0)
        real(function, seq, late)  # type: ignore[misc]

    desk.peer.answer = answer
    assert desk.call(b"second") == b"dnoces"
    assert [name for name, _ in desk.notes] == ["late-answer"]
    assert desk.port.late == 1


def test_an_answer_lost_for_good_does_not_cost_the_next_call_where_numbers_are_echoed():
    desk = Desk()
    desk.muted = True
    with pytest.raises(CallTimeout):
        desk.call()
    desk.muted = False
    assert desk.call() == b"gnip" and desk.call() == b"gnip"


def lose_one(desk: Desk, payload: bytes = b"ping", function: int = 0x4C, head: int = 0) -> None:
    desk.muted = True
    with pytest.raises(CallTimeout):
        desk.call(payload, function, head=head)
    desk.muted = False


def test_an_answer_lost_for_good_costs_one_call_more_where_only_the_function_tells_and_never_the_firmware():
    desk = Desk(echo=False, seq=False)
    lose_one(desk)
    with pytest.raises(CallTimeout):  # its answer could be the late one
        desk.call()
    assert [desk.call(bytes([n])) for n in range(6)] == [bytes([n]) for n in range(6)]
    assert desk.port.late == 1 and desk.deaths == []


def test_what_an_answer_says_itself_tells_it_from_a_lost_one_of_the_same_function():
    desk = Desk(echo=False, seq=False)
    desk.peer.answer = lambda f, s, p: None if desk.muted else desk.peer.put(f, p)
    lose_one(desk, b"object 1, in", head=8)
    assert desk.call(b"object 2, in", head=8) == b"object 2, in"
    assert desk.port.late == desk.port.unknown == 0


def test_a_late_answer_to_another_question_of_the_same_function_is_drained_and_costs_nothing():
    desk = Desk(echo=False, seq=False)
    desk.peer.answer = lambda f, s, p: None if desk.muted else desk.peer.put(f, p)
    lose_one(desk, b"object 1, in", head=8)
    desk.peer.put(0x4C, b"object 1, out")
    assert desk.call(b"object 2, in", head=8) == b"object 2, in"
    assert desk.port.late == 1
    desk.peer.put(0x4C, b"object 1, out")  # nobody's any more
    assert desk.call(b"object 3, in", head=8) == b"object 3, in"
    assert desk.port.unknown == 1


def test_an_answer_to_a_later_call_shows_that_an_older_one_never_comes():
    desk = Desk(echo=False, seq=False)
    lose_one(desk, function=0x67)
    assert desk.call(function=0x0A) == b"gnip"
    assert [desk.call(function=0x67) for _ in range(4)] == [b"gnip"] * 4
    assert desk.port.late == 0 and desk.deaths == []


def test_an_answer_that_the_receiver_has_in_hand_when_the_limit_passes_is_the_call_s():
    desk = Desk(echo=False, seq=False, clock=SYSTEM)
    held = threading.Event()

    def busy(*_: object) -> None:
        held.set()
        time.sleep(0.3)

    desk.port._on_event = busy
    desk.port.receive()
    real = desk.peer.answer

    def answer(function: int, sequence: int, payload: bytes) -> None:
        desk.peer.put(0x1006, b"")
        real(function, sequence, payload)  # type: ignore[misc]
        threading.Thread(target=desk.port.receive).start()
        assert held.wait(5)

    desk.peer.answer = answer
    assert desk.call(timeout=0.05) == b"gnip"
    assert desk.port.late == desk.port.unknown == 0 and desk.notes == []


def test_an_answer_that_nobody_asked_for_is_drained_and_said():
    desk = Desk()
    desk.peer.put(0x33, b"?")
    desk.peer.put(0x47, b"and more")
    assert desk.call() == b"gnip"
    assert [name for name, _ in desk.notes] == ["unknown-answer", "late-answer"]


def test_a_dead_firmware_is_asked_nothing_more():
    desk = Desk()
    desk.port.declare_dead("the first cause")
    desk.port.declare_dead("a later cause")
    sent = desk.port.sender.sent
    for _ in range(2):
        with pytest.raises(FirmwareIsDead, match="the first cause"):
            desk.call()
    with pytest.raises(FirmwareIsDead):
        desk.port.post(0x49, b"")
    assert desk.port.sender.sent == sent and desk.clock.time == 0 and desk.deaths == ["the first cause"]


def test_a_bad_record_kills_the_session_and_the_waiting_call_with_it():
    desk = Desk()
    desk.peer.answer = lambda f, s, p: desk.peer.put(f, p, 0, s, bad=True)
    with pytest.raises(FirmwareIsDead, match="checksum"):
        desk.call()
    assert desk.port.drain() == 0 and len(desk.deaths) == 1


def test_a_halt_seen_in_the_hardware_ends_the_wait_early():
    state: list[str | None] = [None]
    desk = Desk(healthy=lambda: state[0])
    desk.muted = True
    desk.clock.on_sleep.append(lambda: state.__setitem__(0, "the core halted") if desk.clock.time > 0.5 else None)
    with pytest.raises(FirmwareIsDead, match="the core halted"):
        desk.call(timeout=30)
    assert desk.clock.time < 1


def test_three_silent_calls_in_a_row_are_a_death():
    desk = Desk()
    desk.muted = True
    for _ in range(3):
        with pytest.raises(CallTimeout):
            desk.call(timeout=1)
    with pytest.raises(FirmwareIsDead, match="3 calls in a row"):
        desk.call()


def test_half_a_message_in_the_queue_is_a_death():
    desk = Desk()
    desk.port.sender._doorbell = lambda: None  # nothing is taken out any more
    with pytest.raises(QueueFull):
        desk.call(data(300_000))
    assert desk.port.dead is not None


def test_with_a_receiver_thread_callers_only_wait():
    desk = Desk(clock=SYSTEM)
    stop = threading.Event()
    woken = threading.Event()
    desk.port._wake = woken.set

    def receiver() -> None:
        while not stop.is_set():
            woken.wait(0.01)
            woken.clear()
            desk.port.receive()

    desk.port.receive()
    thread = threading.Thread(target=receiver)
    thread.start()
    names: set[str] = set()
    desk.port._on_event = lambda *_: names.add(threading.current_thread().name)
    real = desk.peer.answer

    def answer(function: int, sequence: int, payload: bytes) -> None:
        desk.peer.put(0x1006, b"")
        real(function, sequence, payload)  # type: ignore[misc]

    desk.peer.answer = answer
    try:
        for _ in range(20):
            assert desk.call() == b"gnip"
    finally:
        stop.set()
        thread.join()
    assert names == {thread.name}


def test_a_death_declared_on_the_receiver_thread_fails_the_waiting_call_at_once():
    desk = Desk(clock=SYSTEM)
    desk.muted = True
    desk.port.receive()
    threading.Timer(0.05, desk.port.declare_dead, ("gone",)).start()
    with pytest.raises(FirmwareIsDead, match="gone"):
        desk.call(timeout=20)


def test_a_receiver_thread_that_is_left_is_not_waited_for_even_if_it_comes_once_more():
    desk = Desk()
    desk.port.receive()
    assert desk.port.attended
    desk.port.leave_receiver()
    assert desk.call() == b"gnip" and desk.clock.time == 0
    desk.port.receive()
    assert desk.call() == b"gnip" and desk.clock.time == 0


def test_an_answer_of_the_same_function_between_the_parts_of_another_is_nobody_s():
    desk = Desk()

    def answer(function: int, sequence: int, payload: bytes) -> None:
        desk.peer.put(function, payload[:0xFFB0], 0, sequence)
        desk.peer.put(function, b"?", 0, sequence)
        desk.peer.put(0x47, payload[0xFFB0:], 0, sequence)

    desk.peer.answer = answer
    assert desk.call(data(70_000)) == data(70_000)
    assert [name for name, _ in desk.notes] == ["unknown-answer"]


def test_a_death_declared_in_the_moment_before_a_call_is_known_is_that_call_s_too(monkeypatch):
    desk = Desk()

    def dying(*words: object) -> Call:
        desk.port.declare_dead("in between")
        return Call(*words)  # type: ignore[arg-type]

    monkeypatch.setattr("nvcore_fw_gsp.queue.port.Call", dying)
    with pytest.raises(FirmwareIsDead, match="in between"):
        desk.call()
    assert desk.port.sender.sent == 0 and desk.clock.time == 0


def test_once_forgotten_the_queues_memory_can_be_freed_and_the_last_pointers_are_still_told():
    desk = Desk()
    desk.call()
    port, memory = desk.port, desk.peer.buffer.memory
    pointers = (port.sender.pointers, port.receiver.pointers)
    assert pointers == ((1, 1), (1, 1))
    with pytest.raises(BufferError):
        desk.peer.buffer.view.release()
        memory.clear()
    port.forget()
    memory.clear()  # possible only when nobody looks into it any more
    assert (port.sender.pointers, port.receiver.pointers) == pointers
    assert port.drain() == 0 and port.dead == "the firmware was unloaded" and desk.deaths == []


def test_an_answer_between_silent_calls_shows_that_the_firmware_lives():
    desk = Desk()
    for _ in range(3):
        for _ in range(2):
            lose_one(desk)
        assert desk.call() == b"gnip"
    assert desk.port.dead is None


def test_an_answer_that_the_receiver_has_taken_and_not_yet_handed_on_is_the_call_s():
    desk = Desk(clock=SYSTEM)
    held, go, receiver = threading.Event(), threading.Event(), desk.port.receiver

    class Slow:
        """The receiver, between taking a record and handing it on."""

        stale = 0

        def __getattr__(self, name: str) -> object:
            return getattr(receiver, name)

        def take(self) -> object:
            record = receiver.take()
            if record is not None:
                held.set()
                assert go.wait(5)
            return record

    desk.port.receive()
    desk.port.receiver = Slow()  # type: ignore[assignment]
    real = desk.peer.answer

    def answer(function: int, sequence: int, payload: bytes) -> None:
        real(function, sequence, payload)  # type: ignore[misc]
        threading.Thread(target=desk.port.receive).start()
        assert held.wait(5)
        threading.Timer(0.3, go.set).start()

    desk.peer.answer = answer
    assert desk.call(timeout=0.05) == b"gnip"
    assert desk.port.late == desk.port.unknown == 0


def test_a_device_that_leaves_at_the_doorbell_is_a_dead_firmware():
    desk = Desk()

    def gone() -> None:
        raise DeviceGone("the device left")

    desk.port.sender._doorbell = gone
    with pytest.raises(DeviceGone):
        desk.call()
    with pytest.raises(FirmwareIsDead, match="the device left"):
        desk.call()
    assert len(desk.deaths) == 1


def test_a_caller_that_leaves_receiving_to_the_thread_still_looks_whether_the_core_runs():
    state: list[str | None] = [None]
    desk = Desk(healthy=lambda: state[0])
    desk.port.receive()
    desk.muted = True
    desk.clock.on_sleep.append(lambda: state.__setitem__(0, "the core halted") if desk.clock.time > 1 else None)
    with pytest.raises(FirmwareIsDead, match="the core halted"):
        desk.call(timeout=30)
    assert 1 < desk.clock.time < 1.6
