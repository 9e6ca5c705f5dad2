"""Channels on the model: GPFIFO, methods, semaphores, copies, faults. Tables and instance blocks are written here by hand (format 2)."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from nvcore.testing import VirtualClock
from nvcore_softgpu.ports import Aperture
from tests.softgpu.device_kit import make_card, names

VRAM = Aperture.VRAM
ROOT, INSTANCE, USERD = 0x100000, 0x200000, 0x201000
RING, PUSH, DATA = 0x10000, 0x20000, 0x100000  # virtual; VRAM at 16 MiB + the same


class Space:
    """One address space: 2 MiB pages, virtual = physical - 16 MiB, first 8 MiB."""

    def __init__(self, device) -> None:
        self.device = device
        self.memory = device.card.model.memory
        table = ROOT
        for level in range(3):
            self.put(ROOT + level * 0x1000, (table + 0x1000) >> 12 << 8 | 2)
            table += 0x1000
        for index in range(4):
            self.put(table + 16 * index, ((16 << 20) + (index << 21)) >> 12 << 8 | 1)
        self.memory.write(VRAM, INSTANCE + 0x200, struct.pack("<II", ROOT | 0xC00, 0))

    def put(self, address: int, value: int) -> None:
        self.memory.write(VRAM, address, value.to_bytes(8, "little"))

    def write(self, va: int, data: bytes) -> None:
        self.memory.write(VRAM, (16 << 20) + va, data)

    def read(self, va: int, size: int) -> bytes:
        return self.memory.read(VRAM, (16 << 20) + va, size)


class Kicker:
    """A channel of COPY0 and its pushbuffer."""

    def __init__(self, device, chid: int = 3, runlist: int = 1, offset: int = 0) -> None:
        self.device, self.space = device, Space(device)
        self.ring, self.push, self.userd = RING + offset, PUSH + offset, USERD + offset
        self.put = 0
        self.state = SimpleNamespace(
            chid=chid, runlist=runlist, engine_type=9, gpfifo=self.ring, entries=16, instance=INSTANCE, userd=self.userd,
            userd_aperture=VRAM, gfid=0, channel_class=0xC56F, objects={0x1234: 0xC6B5},
        )  # fmt: skip
        self.host = device.card.model.host
        self.host.add(self.state)
        self.host.set_enabled(runlist, chid, True)

    def submit(self, *words: int, length: int | None = None) -> None:
        place = self.push + self.put * 0x400
        self.space.write(place, struct.pack(f"<{len(words)}I", *words))
        entry = struct.pack("<II", place, (len(words) if length is None else length) << 10)
        self.space.write(self.ring + 8 * self.put, entry)
        self.put = (self.put + 1) % 16
        self.space.memory.write(VRAM, self.userd + 0x8C, struct.pack("<I", self.put))

    def ring_doorbell(self) -> None:
        self.device.bars[0].write32(0xBB0090, self.state.runlist << 16 | self.state.chid)

    @property
    def get(self) -> int:
        return struct.unpack("<I", self.space.memory.read(VRAM, self.userd + 0x88, 4))[0]

    @property
    def channel(self):
        return self.host.channels[(self.state.runlist, self.state.chid)]


def methods(subchannel: int, first: int, *values: int) -> list[int]:
    return [1 << 29 | len(values) << 16 | subchannel << 13 | first >> 2, *values]


def release(address: int, payload: int, flags: int = 0) -> list[int]:
    return methods(0, 0x5C, address, 0, payload, 0, 1 | flags)


def acquire(address: int, payload: int, kind: int = 0) -> list[int]:
    return methods(0, 0x5C, address, 0, payload, 0, kind)


def copy(
    source: int, target: int, length: int, *, lines: int = 1, pitch: int = 0, launch: int = 0x182, semaphore: int | None = None
) -> list[int]:
    words = methods(4, 0, 0xC6B5) + methods(4, 0x400, 0, source, 0, target, pitch, pitch, length, lines)
    if semaphore is not None:
        words += methods(4, 0x240, 0, semaphore, 0x600D)
        launch |= 1 << 3
    return words + methods(4, 0x300, launch | (1 << 9 if lines > 1 else 0))


@pytest.fixture
def gpu():
    clock = VirtualClock()
    device, gsp = make_card(clock=clock)
    device.set_bus_master(True)
    yield device, gsp, clock
    device.close()


def test_a_doorbell_runs_the_channel_and_moves_get(gpu):
    kicker = Kicker(gpu[0])
    gpu[2].advance(1.0)
    kicker.submit(*release(DATA, 0xCAFE))
    kicker.submit(*release(DATA + 16, 0xF00D, 1 << 25))
    assert kicker.get == 0
    kicker.ring_doorbell()
    assert kicker.get == 2
    assert kicker.space.read(DATA, 4) == (0xCAFE).to_bytes(4, "little")
    payload, stamp = struct.unpack("<QQ", kicker.space.read(DATA + 16, 16))
    assert payload == 0xF00D and stamp == 1_000_000_000
    assert names(gpu[0]) == []


def test_a_channel_may_keep_its_userd_in_host_memory(gpu):
    device, _, _ = gpu
    kicker = Kicker(device)
    buffer = device.allocate_dma(4096, label="userd")
    kicker.state.userd, kicker.state.userd_aperture = buffer.bus_address(0x200), Aperture.SYSTEM
    kicker.submit(*release(DATA, 0xCAFE))
    kicker.ring_doorbell()
    assert kicker.space.read(DATA, 4) == bytes(4), "what lies in VRAM is not its USERD"
    struct.pack_into("<I", buffer.view, 0x28C, 1)
    kicker.ring_doorbell()
    assert kicker.space.read(DATA, 4) == (0xCAFE).to_bytes(4, "little")
    assert struct.unpack_from("<II", buffer.view, 0x288) == (1, 1) and kicker.get == 0
    assert names(device) == []


def test_the_ring_wraps(gpu):
    kicker = Kicker(gpu[0])
    for number in range(40):
        kicker.submit(*release(DATA, number))
        kicker.ring_doorbell()
    assert kicker.get == 40 % 16
    assert kicker.space.read(DATA, 4) == (39).to_bytes(4, "little")


def test_a_linear_copy_larger_than_a_slice(gpu):
    kicker = Kicker(gpu[0])
    payload = bytes(range(256)) * 1200
    kicker.space.write(DATA, payload)
    kicker.submit(*copy(DATA, DATA + (1 << 20), len(payload), semaphore=DATA - 64))
    kicker.ring_doorbell()
    assert kicker.space.read(DATA + (1 << 20), len(payload)) == payload
    assert kicker.space.read(DATA - 64, 4) == (0x600D).to_bytes(4, "little")
    assert gpu[0].model.counters["slices"] >= len(payload) // 65536


def test_a_pitch_copy_of_lines(gpu):
    kicker = Kicker(gpu[0])
    kicker.space.write(DATA, b"".join(bytes([line]) * 256 for line in range(10)))
    kicker.submit(*copy(DATA, DATA + 0x10000, 100, lines=10, pitch=256))
    kicker.ring_doorbell()
    assert kicker.space.read(DATA + 0x10000 + 256 * 9, 101) == bytes([9]) * 100 + b"\0"


def test_a_constant_fill(gpu):
    kicker = Kicker(gpu[0])
    words = methods(4, 0, 0xC6B5) + methods(4, 0x700, 0xAABBCCDD) + methods(4, 0x708, 4 | 3 << 16)
    words += methods(4, 0x408, 0, DATA) + methods(4, 0x418, 50, 1) + methods(4, 0x300, 0x182 | 1 << 10)
    kicker.submit(*words)
    kicker.ring_doorbell()
    assert kicker.space.read(DATA, 204) == struct.pack("<I", 0xAABBCCDD) * 50 + bytes(4)


def test_a_remap_swaps_components(gpu):
    kicker = Kicker(gpu[0])
    kicker.space.write(DATA, b"rgba" * 4)
    words = methods(4, 0, 0xC6B5) + methods(4, 0x708, 2 | 1 << 4 | 0 << 8 | 3 << 12 | 3 << 20 | 3 << 24)
    words += methods(4, 0x400, 0, DATA, 0, DATA + 256) + methods(4, 0x418, 4, 1) + methods(4, 0x300, 0x182 | 1 << 10)
    kicker.submit(*words)
    kicker.ring_doorbell()
    assert kicker.space.read(DATA + 256, 16) == b"bgra" * 4


def test_a_physical_copy_goes_past_the_tables(gpu):
    device, _, _ = gpu
    kicker = Kicker(device)
    host = device.allocate_dma(4096, label="target")
    kicker.space.write(DATA, b"over the bus")
    words = methods(4, 0, 0xC6B5) + methods(4, 0x264, 1)
    words += methods(4, 0x400, 0, DATA, host.bus_address() >> 32, host.bus_address() & 0xFFFFFFFF) + methods(4, 0x418, 12, 1)
    kicker.submit(*words, *methods(4, 0x300, 0x182 | 1 << 13))
    kicker.ring_doorbell()
    assert bytes(host.view[:12]) == b"over the bus"


def test_an_acquire_waits_for_another_channel(gpu):
    first, second = Kicker(gpu[0], chid=3), Kicker(gpu[0], chid=4, runlist=2, offset=0x8000)
    first.submit(*acquire(DATA, 7), *release(DATA + 16, 1))
    first.ring_doorbell()
    assert first.get == 0 and gpu[0].card.model.host.waiting() == 1
    second.submit(*release(DATA, 7))
    second.ring_doorbell()
    assert first.get == 1
    assert first.space.read(DATA + 16, 4) == (1).to_bytes(4, "little")


def test_an_acquire_sees_what_the_host_writes_within_a_millisecond_of_the_clock(gpu):
    device, _, clock = gpu
    kicker = Kicker(device)
    kicker.submit(*acquire(DATA, 5, 3), *release(DATA + 16, 1))
    kicker.ring_doorbell()
    kicker.space.write(DATA, (6).to_bytes(4, "little"))
    assert kicker.get == 0
    clock.advance(0.002)
    assert kicker.get == 1


@pytest.mark.parametrize(
    ("kind", "value", "payload", "passes"),
    [(0, 5, 5, True), (0, 6, 5, False), (2, 6, 5, True), (2, 4, 5, False), (3, 2, 0xFFFFFFFE, True), (3, 0xFFFFFFFE, 2, False),
     (4, 6, 2, True), (4, 4, 2, False), (5, 0, 0, True), (5, 0xFFFFFFFF, 0, False)],
)  # fmt: skip
def test_acquire_conditions(gpu, kind, value, payload, passes):
    kicker = Kicker(gpu[0])
    kicker.space.write(DATA, value.to_bytes(4, "little"))
    kicker.submit(*acquire(DATA, payload, kind))
    kicker.ring_doorbell()
    assert (kicker.get == 1) is passes


def test_non_stall_interrupt_raises_the_engines_vector(gpu):
    device, _, _ = gpu
    kicker = Kicker(device)
    kicker.submit(*methods(0, 0x20, 0))
    kicker.ring_doorbell()
    assert device.bars[0].read32(0xB81000) == 1


def test_an_unmapped_address_stops_the_channel_and_tells_the_firmware(gpu):
    device, gsp, _ = gpu
    kicker = Kicker(device)
    kicker.submit(*release(0x7000_0000, 1))
    kicker.ring_doorbell()
    assert gsp.calls[-1] == ("fault", 1, 3, "mmu-fault", 0x7000_0000)
    kicker.submit(*release(DATA, 1))
    kicker.ring_doorbell()
    assert kicker.space.read(DATA, 4) == bytes(4)


@pytest.mark.parametrize(
    "words",
    [
        [2 << 29 | 1 << 16],
        [1 << 29 | 40 << 16 | 0x5C >> 2, 0],
        methods(4, 0, 0x9999),
        methods(2, 0x400, 1),
        methods(0, 0x5C, 0, 0, 0, 0, 7),
    ],
)
def test_a_bad_pushbuffer_stops_the_channel(gpu, words):
    device, gsp, _ = gpu
    kicker = Kicker(device)
    kicker.submit(*words)
    kicker.ring_doorbell()
    assert gsp.calls[-1][3] == "pbdma"
    assert names(device) == ["pushbuffer"]


def test_the_injected_fault_hits_the_next_channel(gpu):
    device, gsp, _ = gpu
    kicker = Kicker(device)
    device.model.arm("mmu-fault")
    kicker.submit(*release(DATA, 1))
    kicker.ring_doorbell()
    assert gsp.calls[-1][3] == "mmu-fault"


def test_a_disabled_channel_executes_nothing_and_goes_on_when_enabled(gpu):
    kicker = Kicker(gpu[0])
    kicker.host.set_enabled(1, 3, False)
    kicker.submit(*release(DATA, 9))
    kicker.ring_doorbell()
    assert kicker.get == 0
    kicker.host.set_enabled(1, 3, True)
    kicker.host.drain()
    assert kicker.get == 1


def test_slices_alternate_between_channels_when_the_transport_asks_for_them(gpu):
    first, second = Kicker(gpu[0], chid=3), Kicker(gpu[0], chid=4, runlist=2, offset=0x8000)
    first.host.eager = False
    first.submit(*copy(DATA, DATA + (2 << 20), 1 << 20))
    second.submit(*release(DATA - 16, 3))
    first.ring_doorbell()
    second.ring_doorbell()
    first.host.step()
    first.host.step()
    assert second.get == 1 and first.get == 0
    first.host.drain()
    assert first.get == 1


def test_a_slice_wakes_who_waited_for_it(gpu):
    waiting, working = Kicker(gpu[0], chid=3), Kicker(gpu[0], chid=4, runlist=2, offset=0x8000)
    waiting.host.eager = False
    waiting.submit(*acquire(DATA, 7))
    waiting.ring_doorbell()
    waiting.host.step()
    assert waiting.host.waiting() == 1
    working.submit(*release(DATA, 7), *copy(DATA, DATA + (2 << 20), 1 << 20))
    working.ring_doorbell()
    waiting.host.step()
    assert waiting.host.waiting() == 0
    waiting.host.step()
    waiting.host.step()
    assert waiting.get == 1 and working.get == 0


def test_a_write_to_a_read_only_page_stops_the_channel(gpu):
    device, gsp, _ = gpu
    kicker = Kicker(device)
    place = ROOT + 0x3000 + 16
    kicker.space.put(place, int.from_bytes(kicker.space.memory.read(VRAM, place, 8), "little") | 1 << 6)
    kicker.submit(*release((2 << 20) + 64, 1))
    kicker.ring_doorbell()
    assert gsp.calls[-1] == ("fault", 1, 3, "mmu-fault", (2 << 20) + 64)


def test_an_unset_page_directory_stops_translation(gpu):
    device, gsp, _ = gpu
    kicker = Kicker(device)
    owner = SimpleNamespace(instances=lambda: (INSTANCE,))
    kicker.host.set_page_directory(owner, ROOT)
    kicker.submit(*release(DATA, 1))
    kicker.ring_doorbell()
    assert kicker.get == 1 and names(device) == []
    kicker.host.set_page_directory(owner, None)
    kicker.submit(*release(DATA, 2))
    kicker.ring_doorbell()
    assert gsp.calls[-1][3] == "mmu-fault"


def test_a_page_directory_that_differs_from_the_instance_block_is_a_violation(gpu):
    device, _, _ = gpu
    kicker = Kicker(device)
    kicker.host.set_page_directory(SimpleNamespace(instances=lambda: (INSTANCE,)), ROOT + 0x4000)
    kicker.submit(*release(DATA, 1))
    kicker.ring_doorbell()
    assert names(device) == ["page-directory-mismatch"]


def test_a_doorbell_for_nobody_is_a_violation(gpu):
    device, _, _ = gpu
    device.bars[0].write32(0xBB0090, 5 << 16 | 77)
    assert names(device) == ["doorbell-without-channel"]


def test_in_real_time_a_thread_looks_again():
    import time

    device, _ = make_card()
    device.set_bus_master(True)
    kicker = Kicker(device)
    kicker.submit(*acquire(DATA, 5), *release(DATA + 16, 1))
    kicker.ring_doorbell()
    kicker.space.write(DATA, (5).to_bytes(4, "little"))
    limit = time.monotonic() + 5
    while kicker.get == 0 and time.monotonic() < limit:
        time.sleep(0.001)
    assert kicker.get == 1
    device.close()
