"""Channels of a served GPU run between the messages: no copy holds up an access, no access a copy, no channel and no function another."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvcore_softgpu.device import SoftDevice
from nvcore_softgpu.host import SLICE
from tests.softgpu.device_kit import make_card, names
from tests.softgpu.test_engine_channels import DATA, VRAM, Kicker, acquire, copy, methods, release
from tests.softgpu.wire_kit import ACCESS, MULTI, NO_REPLY, RESET, Wire, WireKicker, served_gpu

BOOT0, TOKEN = 0x0, 0xBB0090
GUEST = 1 << 33
LIMIT = 5.0

Served = tuple[SoftDevice, Wire]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with served_gpu(tmp_path / "gpu") as pair:
        yield pair


def until(seen: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + LIMIT
    while not seen():
        assert time.monotonic() < limit, what
        time.sleep(0.0005)


def slices(device: SoftDevice) -> int:
    return device.model.counters["slices"]


def test_registers_are_read_while_a_copy_without_end_runs(served: Served) -> None:
    device, wire = served
    kicker = WireKicker(device, wire)
    kicker.copy_without_end()
    counts = []
    for _ in range(100):
        assert wire.read32(BOOT0) == 0x170000A1
        counts.append(slices(device))
    assert kicker.get == 0 and counts[-1] > counts[0], "the copy went on while the registers were read"
    before = slices(device)
    until(lambda: slices(device) > before + 50, "the copy goes on when nothing is asked")
    assert names(device) == []


def test_a_reset_ends_a_copy_without_end(served: Served) -> None:
    device, wire = served
    WireKicker(device, wire).copy_without_end()
    assert wire.ask(RESET)[0] == 0
    before = slices(device)
    time.sleep(0.02)
    assert slices(device) == before and device.model.view()["channels"] == []


def test_a_client_that_leaves_in_the_middle_of_a_copy_leaves_a_server_that_serves(served: Served, tmp_path: Path) -> None:
    device, wire = served
    WireKicker(device, wire).copy_without_end()
    wire.close()
    again = Wire(str(tmp_path / "gpu"))
    again.hello()
    assert again.read32(BOOT0) == 0x170000A1
    again.close()


def test_work_sees_every_write_posted_before_its_doorbell(served: Served) -> None:
    device, wire = served
    noise, kicker = WireKicker(device, wire), WireKicker(device, wire, chid=4, runlist=2, offset=0x8000)
    noise.copy_without_end()
    for number in range(200):
        kicker.space.write(DATA - 64, struct.pack("<I", number))
        kicker.submit(*copy(DATA - 64, DATA - 32, 4), *release(DATA - 16, number))
        kicker.ring_doorbell()
        until(lambda number=number: kicker.space.read(DATA - 16, 4) == struct.pack("<I", number), f"submission {number} ends")
        assert kicker.space.read(DATA - 32, 4) == struct.pack("<I", number)
    assert names(device) == []


def test_one_batch_may_hold_the_work_and_its_doorbell(served: Served) -> None:
    device, wire = served
    kicker = WireKicker(device, wire)
    words = release(DATA, 0xBEEF)
    writes = [((16 << 20) + kicker.push + 4 * at, 1, word) for at, word in enumerate(words)]
    writes += [((16 << 20) + kicker.ring, 1, kicker.push), ((16 << 20) + kicker.ring + 4, 1, len(words) << 10)]
    writes += [(kicker.userd + 0x8C, 1, 1), (TOKEN, 0, 1 << 16 | 3)]
    body = b"".join(ACCESS.pack(place, region, 4) + struct.pack("<Q", value) for place, region, value in writes)
    wire.raw(wire.pack(MULTI, struct.pack("<Q", len(writes)) + body, NO_REPLY))
    until(lambda: kicker.space.read(DATA, 4) == struct.pack("<I", 0xBEEF), "the batch ran")
    assert kicker.get == 1


def in_guest_memory(kicker: Kicker, at: int, address: int) -> None:
    """Map the 2 MiB page that holds virtual `at` to the guest's memory at `address`."""
    place = 0x100000 + 0x3000 + 16 * (at >> 21)
    kicker.space.put(place, address >> 12 << 8 | 2 << 1 | 1)


def test_a_client_waits_in_memory_for_a_semaphore_and_sends_nothing(served: Served) -> None:
    device, wire = served
    guest = wire.memory(GUEST, 2 << 20)
    kicker = WireKicker(device, wire)
    in_guest_memory(kicker, 4 << 20, GUEST)
    kicker.submit(*copy(DATA, DATA + (1 << 20), 1 << 20, semaphore=(4 << 20) + 64))
    kicker.ring_doorbell()
    until(lambda: guest[64:68] == struct.pack("<I", 0x600D), "the semaphore is released")
    assert kicker.get == 1 and names(device) == []
    guest.close()


def test_a_channel_sees_what_the_client_writes_to_memory_though_no_message_comes(served: Served) -> None:
    device, wire = served
    guest = wire.memory(GUEST, 2 << 20)
    kicker = WireKicker(device, wire)
    in_guest_memory(kicker, 4 << 20, GUEST)
    kicker.submit(*acquire(4 << 20, 7), *release((4 << 20) + 64, 8))
    kicker.ring_doorbell()
    assert wire.read32(BOOT0) and kicker.get == 0
    time.sleep(0.01)
    guest[0:4] = struct.pack("<I", 7)
    until(lambda: guest[64:68] == struct.pack("<I", 8), "the acquire is satisfied")
    guest.close()


def test_channels_take_turns(served: Served) -> None:
    device, wire = served
    endless, short = WireKicker(device, wire), WireKicker(device, wire, chid=4, runlist=2, offset=0x8000)
    endless.copy_without_end()
    for _ in range(3):
        short.submit(*release(DATA - 16, 1))
    short.ring_doorbell()
    until(lambda: short.get == 3, "the short channel gets its turns")
    assert endless.get == 0


def test_a_function_with_many_channels_gets_no_more_than_one_with_one() -> None:
    device, _ = make_card()
    many = [Kicker(device, chid=chid, offset=0x400 * chid) for chid in range(8)]
    one = Kicker(device, chid=20, runlist=2, offset=0x4000)
    one.state.gfid = 1
    turn = device.card.turns()
    for kicker in (*many, one):
        kicker.submit(*copy(DATA, DATA + (2 << 20), 1 << 20))
        kicker.ring_doorbell()
    for _ in range(2 * (1 << 20) // SLICE + 2):
        assert turn() == 0.0
    assert one.get == 1 and all(kicker.get == 0 for kicker in many)
    while turn() is not None:
        pass
    assert all(kicker.get == 1 for kicker in many)
    device.close()


HOSTILE = {
    "short lines": copy(DATA, DATA + 64, 1, lines=0xFFFFFFFF),
    "methods": methods(4, 0, 0xC6B5) + methods(4, 0x400, *([0] * 200)),
    "no-ops": [0] * 0x100,
    "copies of a byte": copy(DATA, DATA + 64, 1) * 10,
}


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_what_costs_time_without_copying_much_is_sliced_too(words: list[int]) -> None:
    """Counted in bytes copied alone, a slice of these took 12 ms."""
    device, _ = make_card()
    kicker = Kicker(device)
    place, body = 4 << 20, struct.pack(f"<{len(words)}I", *words) * (0x40000 // len(words))
    kicker.space.write(place, body)
    kicker.space.write(kicker.ring, struct.pack("<II", place, len(body) // 4 << 10))
    kicker.space.memory.write(VRAM, kicker.userd + 0x8C, struct.pack("<I", 1))
    turn = device.card.turns()
    kicker.ring_doorbell()
    before = kicker.channel.executed
    assert turn() == 0.0
    assert 0 < kicker.channel.executed - before <= 200 or words[0] == 0, "a few hundred methods a slice"
    for _ in range(20):
        assert turn() == 0.0
    assert kicker.get == 0
    device.close()


def test_empty_entries_of_a_long_ring_are_sliced_too() -> None:
    device, _ = make_card()
    kicker = Kicker(device)
    kicker.state.entries = 0x1000
    kicker.space.memory.write(VRAM, kicker.userd + 0x8C, struct.pack("<I", 0xFFF))
    turn = device.card.turns()
    kicker.ring_doorbell()
    assert turn() == 0.0 and 0 < kicker.get <= 32
    device.close()
