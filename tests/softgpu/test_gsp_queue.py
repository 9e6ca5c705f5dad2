"""The rings: what a polite driver does works in every position; what it must not do is named and harms nothing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore_softgpu.gsp.queue import fold
from nvcore_softgpu.ports import Aperture
from tests.softgpu.gsp_rig import Driver, Env, xor32


@pytest.fixture
def driver() -> Driver:
    driver = Driver(Env())
    driver.boot()
    driver.events.clear()
    return driver


@given(st.binary(max_size=5000))
def test_the_folded_sum_is_the_xor_of_all_words(data: bytes) -> None:
    assert fold(data) == xor32(data)


def test_replies_wrap_and_keep_their_checksum_number_and_sequence(driver: Driver) -> None:
    numbers = []
    for turn in range(150):
        sent = driver.send(0x41, bytes(driver.static_size))
        reply = driver.wait(0x41)
        assert reply is not None and reply.sequence == sent and reply.checksum == 0 and len(reply.payload) == driver.static_size, turn
        numbers.append(reply.number)
    assert numbers == list(range(numbers[0], numbers[0] + 150)), "one number per record, in every position of the ring"
    assert driver.env.violations.texts == []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 0xFFB0 - 0x18), min_size=1, max_size=12))
def test_records_of_every_length_come_back_whole(lengths: list[int]) -> None:
    driver = Driver(Env(), scatter=True)
    driver.boot()
    for length in lengths:
        params = bytes(index & 0xFF for index in range(length))
        reply = driver.call(0x4C, struct.pack("<6I", 0xC2000001, 0xABCD2080, 0x20809999, 0, length, 0) + params)
        assert reply.checksum == 0
        assert struct.unpack_from("<I", reply.payload, 12)[0] == 0x56 and reply.payload[24:] == params
    assert driver.env.violations.texts == [] and driver.env.violations.controls == [0x20809999] * len(lengths)


def test_a_message_longer_than_the_ring_is_consumed_while_it_is_written(driver: Driver) -> None:
    params = struct.pack("<II", 1, 0).ljust(334344, b"\0")
    driver.send(0x4C, struct.pack("<6I", 0xC2000001, 0xABCD2080, 0x20804003, 0, len(params), 0) + params)
    total = 0
    first = driver.wait(0x4C)
    assert first is not None
    total += len(first.payload)
    while total < 24 + 334344:
        more = driver.wait(0x47)
        assert more is not None and more.checksum == 0
        total += len(more.payload)
    assert total == 24 + 334344 and struct.unpack_from("<I", first.payload, 12)[0] == 0
    assert driver.env.violations.texts == []


def test_a_full_status_ring_holds_replies_back_until_the_driver_reads(driver: Driver) -> None:
    params = bytes(334344)
    driver.send(0x4C, struct.pack("<6I", 0xC2000001, 0xABCD2080, 0x20804003, 0, len(params), 0) + params)
    assert driver.gsp.view()["waiting"] == 3, "three records of sixteen slots fill the ring of 62"
    messages = driver.env.messages
    driver.env.ticker.advance(1.0)
    assert driver.gsp.view()["waiting"] == 3 and driver.env.messages == messages
    assert driver.receive() is not None
    driver.env.ticker.advance(0.02)
    assert driver.gsp.view()["waiting"] == 2 and driver.env.messages == messages + 1


def test_events_go_out_while_one_reply_is_late(driver: Driver) -> None:
    driver.space(0xC1D00000)
    driver.channel(0xC1D00000, 1, 9, 0x700000)
    driver.env.faults.arm("rpc-delay:3")
    driver.send(0x41, bytes(driver.static_size))
    driver.gsp.channel_fault(1, 1, "MMU fault", 0x7000)
    assert driver.wait(0x1004, 0.01) is not None, "the fault is reported at once"
    assert driver.wait(0x41, 2.9) is None
    assert driver.wait(0x41, 0.2) is not None
    assert driver.call(0x41, bytes(driver.static_size)).result == 0


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ({"spoil": 0x10}, "queue-checksum"),
        ({"number": 1}, "queue-sequence"),
        ({"slots": 9}, "queue-framing"),
    ],
)
def test_a_spoiled_record_is_named_not_answered_and_the_next_one_is(driver: Driver, what: dict[str, int], name: str) -> None:
    driver.record(0x41, bytes(driver.static_size), **what)
    driver.number -= 1
    driver.gsp.doorbell()
    assert driver.env.violations.names == [name]
    assert driver.wait(0x41, 0.1) is None
    assert driver.call(0x41, bytes(driver.static_size)).result == 0


def test_a_gap_in_the_numbers_is_named_and_the_record_is_answered(driver: Driver) -> None:
    driver.record(0x41, bytes(driver.static_size), number=driver.number + 3)
    driver.gsp.doorbell()
    assert driver.env.violations.names == ["queue-sequence"]
    assert driver.wait(0x41, 0.1) is not None


@pytest.mark.parametrize("offset", [0, 0x1F, 0x2C])
def test_header_bytes_that_must_be_zero_are_named_and_the_record_is_answered(driver: Driver, offset: int) -> None:
    driver.record(0x41, bytes(driver.static_size))
    slot = 0x2000 + (driver.write - 1) % 63 * 0x1000
    # the same bit in two places of one half word keeps the sum: the second place lies in the payload, which nobody reads
    for where in (slot + offset, slot + 0x90 + offset % 8):
        driver._put(where, b"\1")
    driver.gsp.doorbell()
    assert driver.env.violations.names == ["queue-header"] and driver.wait(0x41, 0.1) is not None


def test_a_status_queue_outside_the_block_stops_the_start() -> None:
    driver = Driver(Env())
    driver.env.memory.write(Aperture.SYSTEM, driver.arguments + 0x18, struct.pack("<Q", 0x42000))
    reason = driver.gsp.start(driver.meta, driver.libos)
    assert reason is not None and "status queue" in reason and driver.env.memory.stray == []


@pytest.mark.parametrize("pointer", [63, 64, 0xFFFFFFFF])
def test_a_pointer_outside_the_ring_means_nothing(driver: Driver, pointer: int) -> None:
    driver.put_word(0x1010, pointer)
    driver.gsp.doorbell()
    assert driver.env.violations.names == ["queue-pointer"] and driver.receive() is None
    driver.put_word(0x1010, driver.write)
    driver.put_word(0x1020, pointer)
    driver.send(0x41, bytes(driver.static_size))
    assert "queue-pointer" in driver.env.violations.names and driver.gsp.view()["waiting"] == 1


def test_continuations_out_of_place_are_named(driver: Driver) -> None:
    driver.record(0x47, bytes(100))
    driver.gsp.doorbell()
    assert driver.env.violations.names == ["stray-continuation"]
    params = bytes(334344)
    head = struct.pack("<6I", 0xC2000001, 0xABCD2080, 0x20804003, 0, len(params), 0)
    driver.record(0x4C, (head + params)[:0xFFB0])
    driver.gsp.doorbell()
    assert driver.call(0x41, bytes(driver.static_size)).result == 0
    assert driver.env.violations.names == ["stray-continuation", "interleaved-message"]


def test_a_message_that_announces_more_than_it_brings_is_refused(driver: Driver) -> None:
    reply = driver.call(0x4C, struct.pack("<6I", 0xC2000001, 0xABCD2080, 0x20800137, 0, 4000, 0) + bytes(4))
    assert reply.result == 0xFF100002 and "short-message" in driver.env.violations.names


def test_a_message_of_absurd_length_is_dropped(driver: Driver) -> None:
    driver.record(4, bytes(0x28) + struct.pack("<I", 0xFFFFFFFF) + bytes(0xFFB0 - 0x2C))
    driver.gsp.doorbell()
    assert driver.env.violations.names == ["message-too-long"]
    assert driver.call(0x41, bytes(driver.static_size)).result == 0


def test_an_unknown_function_is_answered_as_such(driver: Driver) -> None:
    assert driver.call(0xC7, bytes(16)).result == 0xFF100001
    assert driver.env.violations.names == ["unknown-function"]


@settings(max_examples=120, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0x2000, 0x2020, 0x2030, 0x1000, 0x1010, 0x1020]), st.integers(0, 60), st.binary(min_size=1, max_size=8))
    )
)
def test_no_garbage_in_the_rings_raises_or_leaves_the_block(garbage: list[tuple[int, int, bytes]]) -> None:
    driver = Driver(Env())
    driver.boot()
    driver.record(0x41, bytes(driver.static_size))
    for base, offset, data in garbage:
        driver._put(base + offset, data)
    driver.gsp.doorbell()
    driver.gsp.doorbell()
    driver.env.ticker.advance(0.1)
    assert driver.env.memory.stray == []


@pytest.mark.parametrize(
    ("offset", "value", "text"),
    [(0x1000, 1, "version"), (0x1004, 0x90000, "size"), (0x1008, 0x2000, "slot size"), (0x100C, 62, "slots"), (0x1014, 0, "swap flag"),
     (0x1018, 0x2000, "receive header"), (0x101C, 0x40000, "entries")],
)  # fmt: skip
def test_a_header_that_does_not_fit_stops_the_start_with_a_reason(offset: int, value: int, text: str) -> None:
    driver = Driver(Env())
    driver.put_word(offset, value)
    reason = driver.gsp.start(driver.meta, driver.libos)
    assert reason is not None and text in reason and driver.env.violations.names == ["shared-memory"]
    assert not driver.gsp.running


@pytest.mark.parametrize("spoil", ["self", "twice", "zero"])
def test_a_page_table_that_lies_stops_the_start(spoil: str) -> None:
    driver = Driver(Env())
    index, value = {"self": (0, driver.pages[1]), "twice": (5, driver.pages[4]), "zero": (9, 0)}[spoil]
    driver._put(8 * index, struct.pack("<Q", value))
    assert driver.gsp.start(driver.meta, driver.libos) is not None


def test_doorbells_before_the_start_are_kept_in_the_ring() -> None:
    driver = Driver(Env())
    for _ in range(3):
        driver.gsp.doorbell()
    driver.boot()
    assert driver.env.violations.texts == []


def test_the_ring_is_filled_to_its_last_usable_slot(driver: Driver) -> None:
    posted = driver.gsp.view()["posted"]
    for _ in range(21):
        driver.gsp.channel_fault(1, 1, "many", 0x1000)  # three records of one slot each
    assert driver.gsp.view()["posted"] == posted + 62 and driver.gsp.view()["waiting"] == 1
    assert driver.receive() is not None
    driver.env.ticker.advance(0.1)
    assert driver.gsp.view()["waiting"] == 0
    seen = []
    while (message := driver.receive()) is not None:
        seen.append(message.function)
    assert seen == ([0x1005, 0x1006, 0x1004] * 21)[1:], "nothing is lost and nothing changes places"


def test_a_driver_that_never_reads_does_not_make_the_model_grow(driver: Driver) -> None:
    for _ in range(1500):
        driver.gsp.channel_fault(1, 1, "flood", 0x1000)
    assert driver.gsp.view()["waiting"] == 4096
    assert set(driver.env.violations.names) == {"status-overflow"}
