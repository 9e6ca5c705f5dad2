"""The rings: every start slot, every size class, wrap, back-pressure, and what must not be believed (field case F08)."""

from __future__ import annotations

import random
import struct
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore_fw_gsp.queue.command import CommandSender
from nvcore_fw_gsp.queue.errors import QueueCorrupt, QueueFull
from nvcore_fw_gsp.queue.layout import fold32
from nvcore_fw_gsp.queue.memory import SharedBlock, block_size
from nvcore_fw_gsp.queue.status import StatusReceiver

from .peer import Buffer, Peer, xor_words

MAX = 0xFFB0
EDGES = (0, 1, 7, 8, 100, 0xFA7, 0xFA8, 0xFAF, 0xFB0, 0xFB1, 0xFF0, 0x1000, 0x1FB0, 0x1FB1, 20_000, MAX - 1, MAX)


class Clock:
    """Moves by what is slept."""

    def __init__(self) -> None:
        self.time = 0.0
        self.on_sleep: list[object] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        for call in self.on_sleep:
            call()  # type: ignore[operator]

    def wait(self, event, timeout):  # type: ignore[no-untyped-def]
        self.sleep(timeout)
        return event.is_set()


def pair(command: int = 0x40000, status: int = 0x40000):  # type: ignore[no-untyped-def]
    buffer = Buffer(block_size(command, status))
    block = SharedBlock(buffer, command, status)
    peer = Peer(buffer, block.command, block.status, command, status)
    clock = Clock()
    sender = CommandSender(block, lambda: None, clock, alive=lambda: None, timeout=1.0)
    receiver = StatusReceiver(block)
    peer.start()
    rx = receiver.link()
    assert rx == 0x20
    sender.link(block, rx)
    return peer, sender, receiver, clock


@cache
def data(size: int, seed: int = 1) -> bytes:
    return random.Random(size * 31 + seed).randbytes(size)


def test_the_block_has_the_published_layout():
    buffer = Buffer(block_size())
    block = SharedBlock(buffer)
    assert (block.entries, block.command, block.status, buffer.size) == (129, 0x1000, 0x41000, 0x81000)
    assert block.address == buffer.bus_address(0)


def test_a_page_list_that_needs_a_second_page_lists_it_too():
    size = block_size(0x180000, 0x80000)
    assert size == 0x200000 + 2 * 0x1000
    assert SharedBlock(Buffer(size), 0x180000, 0x80000).entries == 514


def begin(peer: Peer, sender: CommandSender, receiver: StatusReceiver, slot: int) -> None:
    """Both queues are empty, and the next record of each begins in `slot`."""
    peer.read = peer.write = sender._write = receiver._read = slot
    for at in (0x10, 0x20):
        for queue in (peer.command, peer.status):
            struct.pack_into("<I", peer.memory, queue + at, slot)


@pytest.mark.parametrize("slots", range(1, 17))
def test_every_size_of_record_crosses_every_start_in_both_directions(slots):
    """Each number of slots: the smallest and the largest payload that takes it, and with one slot every odd size of the list."""
    peer, sender, receiver, _ = pair()
    largest = slots * 0x1000 - 0x50
    sizes = {largest - 0xFFF, largest} if slots > 1 else {size for size in EDGES if size <= largest}
    for start in range(63):
        for size in sizes:
            blob = data(size)
            assert -(-(0x50 + size) // 0x1000) == slots
            begin(peer, sender, receiver, start)
            peer.expect = size
            sender.send(0x4C, 7, blob)
            peer.doorbell()
            peer.flush()
            assert peer.got.pop() == (0x4C, 7, blob) and peer.got == []
            peer.put(0x4C, blob, 0, 9)
            assert receiver.take() == (0x4C, 0, 9, blob)
            # a length just below a page boundary must not leave the reader one slot behind
            end = (start + slots) % 63
            assert receiver.pointers == (end, end) and sender.pointers == (end, end) and peer.read == end
            assert receiver.take() is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, MAX), st.integers(0, 3)), max_size=40))
def test_interleaved_traffic_keeps_order_and_bytes(messages):
    peer, _, receiver, _ = pair()
    sent, got = [], []
    for size, lag in messages:
        needed = -(-(0x50 + size) // 0x1000)
        while peer.room() < needed:
            got.append(receiver.take())
        peer.put(0x1006, data(size), 0, size & 0xFF)
        sent.append((0x1006, 0, size & 0xFF, data(size)))
        if not lag:
            got.append(receiver.take())
    while (record := receiver.take()) is not None:
        got.append(record)
    assert [g for g in got if g is not None] == sent


@given(st.binary(max_size=5000))
def test_the_fold_is_the_published_checksum(blob):
    assert fold32(blob) == xor_words(blob)


def test_a_full_queue_is_waited_for_and_never_overwritten():
    peer, sender, _, clock = pair()
    for _ in range(62):
        sender.send(0x4C, 1, b"x" * 16)
    assert peer.read == 0
    clock.on_sleep.append(peer.take_command)  # one record is taken per poll
    sender.send(0x4C, 2, b"y" * 16)
    clock.on_sleep.clear()
    peer.doorbell()
    peer.flush()
    assert [m[2] for m in peer.got] == [b"x" * 16] * 62 + [b"y" * 16]


def test_a_reader_that_stands_still_ends_the_wait_with_what_was_seen():
    _, sender, _, clock = pair()
    for _ in range(62):
        sender.send(0x4C, 1, b"")
    with pytest.raises(QueueFull) as caught:
        sender.send(0x4C, 1, b"")
    assert "within 1 s" in str(caught.value) and "read pointer 0" in str(caught.value)
    assert 1.0 <= clock.time < 1.1
    assert sender.sent == 62


def test_a_reader_that_is_slow_is_waited_for_as_long_as_it_goes_on():
    peer, sender, _, clock = pair()
    for _ in range(62):
        sender.send(0x4C, 1, b"")

    def slow() -> None:
        if clock.time >= 0.9 * (peer.records + 1):
            peer.take_command()

    clock.on_sleep.append(slow)
    sender.send(0x4C, 1, data(0x3000))  # four slots
    assert 3.6 <= clock.time < 3.7 and peer.records == 4


def test_a_message_longer_than_the_ring_is_drained_while_it_is_written():
    peer, sender, _, clock = pair()
    blob = data(334_344)
    peer.expect = len(blob)
    clock.on_sleep.append(peer.take_command)
    sender.send(0x4C, 3, blob)
    peer.doorbell()
    peer.flush()
    assert peer.got == [(0x4C, 3, blob)]
    assert sender.sent == 6


def test_a_small_ring_limits_the_record():
    peer, sender, _, clock = pair(command=0x8000, status=0x8000)
    assert sender.max_payload == 6 * 0x1000 - 0x50
    clock.on_sleep.append(peer.take_command)
    sender.send(0x49, 0, data(0x5000))
    peer.doorbell()
    peer.flush()
    assert peer.got[0][2] == data(0x5000)


@pytest.mark.parametrize("value", [63, 64, 0xFFFFFFFF])
def test_a_read_pointer_out_of_range_is_not_a_pointer(value):
    peer, sender, _, _ = pair()
    struct.pack_into("<I", peer.memory, peer.status + 0x20, value)
    with pytest.raises(QueueCorrupt, match="read pointer"):
        sender.send(0x4C, 1, b"")


def test_a_corrupted_record_is_refused():
    peer, _, receiver, _ = pair()
    peer.put(0x4C, data(300), bad=True)
    with pytest.raises(QueueCorrupt, match="checksum"):
        receiver.take()


@pytest.mark.parametrize("reads", [1, 2, 3])
def test_a_record_whose_last_bytes_are_still_on_their_way_is_read_again_but_not_for_ever(reads, monkeypatch):
    peer, _, receiver, _ = pair()
    peer.put(0x4C, data(300))
    last = peer.status + 0x1000 + 0x50 + 299
    peer.memory[last] ^= 0xFF
    done = 0

    def fold(view: memoryview) -> int:
        nonlocal done
        found, done = fold32(view), done + 1
        if done == reads:
            peer.memory[last] ^= 0xFF
        return found

    monkeypatch.setattr("nvcore_fw_gsp.queue.status.fold32", fold)
    if reads < 3:
        assert receiver.take() == (0x4C, 0, 0, data(300))
    else:
        with pytest.raises(QueueCorrupt, match="checksum"):
            receiver.take()


def test_an_old_record_is_skipped_and_counted_and_a_new_one_is_an_error():
    peer, _, receiver, _ = pair()
    peer.put(0x4C, b"a")
    peer.put(0x4C, b"old", number=0)
    peer.sent = 1
    peer.put(0x4C, b"b")
    assert receiver.take() == (0x4C, 0, 0, b"a")
    assert receiver.take() == (0x4C, 0, 0, b"b")
    assert receiver.stale == 1
    peer.put(0x4C, b"c", number=9)
    with pytest.raises(QueueCorrupt, match="skips"):
        receiver.take()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 0x4F), st.binary(min_size=1, max_size=4))
def test_a_header_with_any_bytes_overwritten_is_refused_or_harmless(at, junk):
    peer, _, receiver, _ = pair()
    peer.put(0x4C, data(5000))
    slot = peer.status + 0x1000
    before = bytes(peer.memory)
    peer.memory[slot + at : slot + at + len(junk)] = junk  # the last of them may be the payload's first
    changed = bytes(peer.memory) != before
    try:
        record = receiver.take()
    except QueueCorrupt:
        assert changed
    else:
        assert record is None or not changed or record[3] == data(5000)  # two changes that cancel in the sum


@pytest.mark.parametrize(
    ("word", "value"), [(0, 1), (1, 0x41000), (2, 0x2000), (3, 64), (3, 0), (6, 0x10), (6, 0x1000), (7, 0x22), (7, 0x80000)]
)
def test_a_status_header_that_does_not_fit_is_refused(word, value):
    buffer = Buffer(block_size())
    block = SharedBlock(buffer)
    peer = Peer(buffer)
    peer.start()
    struct.pack_into("<I", peer.memory, peer.status + word * 4, value)
    with pytest.raises(QueueCorrupt, match="header"):
        StatusReceiver(block).link()
    del block


def test_the_firmware_says_where_its_read_pointer_is():
    block = SharedBlock(Buffer(block_size()))
    peer, clock, receiver = Peer(block.buffer), Clock(), StatusReceiver(block)  # type: ignore[arg-type]
    sender = CommandSender(block, lambda: None, clock, alive=lambda: None, timeout=1.0)
    struct.pack_into("<8I", peer.memory, peer.status, 0, 0x40000, 0x1000, 63, 0, 1, 0x40, 0x1000)
    rx = receiver.link()
    assert rx == 0x40
    sender.link(block, rx)
    for _ in range(62):
        sender.send(0x4C, 1, b"")
    struct.pack_into("<I", peer.memory, peer.status + 0x40, 5)
    sender.send(0x4C, 1, b"")
    assert sender.pointers == (0, 5) and clock.time == 0


def test_nothing_is_linked_before_the_firmware_wrote_its_header():
    block = SharedBlock(Buffer(block_size()))
    receiver = StatusReceiver(block)
    assert receiver.link() is None and not receiver.linked and receiver.take() is None
