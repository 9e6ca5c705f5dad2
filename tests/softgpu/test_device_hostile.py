"""Whatever a guest writes, the model raises nothing of its own."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore.testing import VirtualClock
from nvcore_softgpu.booter import SUSPEND_MAGIC
from nvcore_softgpu.channel import Channel
from nvcore_softgpu.host import BURST, RETRY
from nvcore_softgpu.ports import Aperture
from nvcore_softgpu.wpr import REFUSALS
from tests.softgpu.device_kit import WPR_MAGIC, Driver, make_card
from tests.softgpu.test_engine_channels import DATA, Kicker, copy

WORDS = st.one_of(st.integers(0, 0xFFFFFFFF), st.sampled_from([0, 1, 2, 0x80000001, 0xFFFFFFFF, 0x01000000, 0xFF]))


@pytest.fixture(params=["GA100", "GH100"])
def gpu(request):
    device, gsp = make_card(request.param)
    yield device, gsp
    device.close()


def test_any_order_of_register_accesses(gpu):
    device, _ = gpu
    places = [row.offset + row.stride * (row.number // 2) for row in device.card.model.registers.rows] + [0x700ABC, 0x300010, 0x123454]
    bar0 = device.bars[0]
    access = st.tuples(st.sampled_from(places), st.booleans(), WORDS)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(access, max_size=60))
    def run(accesses):
        for place, write, value in accesses:
            if write:
                bar0.write32(place, value)
            else:
                assert 0 <= bar0.read32(place) <= 0xFFFFFFFF

    run()


def test_any_configuration_write(gpu):
    device, _ = gpu

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 4095), st.binary(min_size=1, max_size=16))
    def run(offset, data):
        device.config_write(offset, data[: 4096 - offset])
        assert len(device.config_read(0, 4096)) == 4096
        assert device.config_read(0, 2) == b"\xde\x10"

    run()


@settings(max_examples=80, deadline=None)
@given(raw=st.binary(min_size=248, max_size=248), magic=st.sampled_from([WPR_MAGIC, SUSPEND_MAGIC, 5]))
def test_any_meta_is_refused_or_booted(raw, magic):
    device, _ = make_card()
    driver = Driver(device)
    meta = driver.buffer(struct.pack("<Q", magic) + raw, "meta").bus_address()
    driver.reset(0x110000)
    assert driver.run_sec2(meta) in (0, *REFUSALS)
    device.close()


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(2, 25), st.integers(0, 1 << 41)), min_size=1, max_size=4))
def test_a_mutated_meta_is_refused_or_booted(changes):
    device, _ = make_card()
    driver = Driver(device)
    meta = driver.meta()
    view = driver.buffers[-1].view
    for index, value in changes:
        struct.pack_into("<Q", view, 8 * index, value)
    driver.reset(0x110000)
    assert driver.run_sec2(meta) in (0, *REFUSALS)
    device.close()


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.sampled_from([*range(0x40, 0xC0), 0x100, 0x104, 0x2FF]), st.integers(0, 255)), max_size=12),
    descriptor=st.lists(st.tuples(st.integers(0x20, 0x4C), st.integers(0, 255)), max_size=3),
)
def test_any_data_for_fwsec_is_refused_or_done(changes, descriptor):
    device, _ = make_card()
    driver = Driver(device)
    original = driver.buffer

    def buffer(data, label="x"):
        made = original(data, label)
        for place, value in changes if label == "data" else ():
            made.view[place] = value
        return made

    driver.buffer = buffer
    model = device.card.model
    start = model.gsp_falcon._on_start

    def changed():
        for place, value in descriptor:
            model.gsp_falcon.dmem[place] = value
        start()

    model.gsp_falcon._on_start = changed
    assert driver.fwsec(0x19) in (0, *REFUSALS)
    device.close()


@settings(max_examples=60, deadline=None)
@given(packet=st.binary(max_size=868), tail=st.integers(0, 2000), kind=st.sampled_from([0x1410DE7E, 0x1310DE7E, 0]))
def test_any_packet_to_the_security_processor(packet, tail, kind):
    device, _ = make_card("GH100")
    device.set_bus_master(True)
    bar0 = device.bars[0]
    bar0.write32(0x8F2AC0, 1 << 24)
    data = struct.pack("<II", 0xC0000000, kind) + packet
    bar0.write_port(0x8F2AC4, data + bytes(-len(data) % 4))
    bar0.write32(0x8F2C04, tail if tail % 3 else 864)
    bar0.write32(0x8F2C00, 0)
    assert bar0.read32(0x8F2C00) == bar0.read32(0x8F2C04)
    device.close()


@settings(max_examples=100, deadline=None)
@given(
    words=st.lists(st.one_of(WORDS, st.integers(0, 0xFFF).map(lambda m: 1 << 29 | 1 << 16 | m)), min_size=1, max_size=200),
    length=st.integers(1, 0x1FFFFF),
)
def test_any_pushbuffer_ends(words, length):
    device, _gsp = make_card()
    device.set_bus_master(True)
    kicker = Kicker(device)
    kicker.host.eager = False
    kicker.submit(*words, length=min(length, 4000))
    kicker.ring_doorbell()
    for _ in range(200):
        if not kicker.host.step():
            break
    assert isinstance(kicker.channel, Channel)
    device.close()


def test_a_copy_of_endless_empty_lines_ends():
    device, _ = make_card()
    kicker = Kicker(device)
    words = [1 << 29 | 1 << 16 | 4 << 13, 0xC6B5]
    words += [1 << 29 | 2 << 16 | 4 << 13 | 0x418 >> 2, 0, 0xFFFFFFFF, 1 << 29 | 1 << 16 | 4 << 13 | 0x300 >> 2, 0x382]
    kicker.submit(*words)
    kicker.ring_doorbell()
    assert kicker.get == 1
    device.close()


def test_a_copy_of_endless_short_lines_leaves_room_for_others():
    device, _ = make_card()
    kicker = Kicker(device)
    kicker.host.eager = False
    words = [1 << 29 | 1 << 16 | 4 << 13, 0xC6B5]
    words += [
        1 << 29 | 8 << 16 | 4 << 13 | 0x400 >> 2,
        0,
        DATA,
        0,
        DATA,
        0,
        0,
        1,
        0xFFFFFFFF,
        1 << 29 | 1 << 16 | 4 << 13 | 0x300 >> 2,
        0x382,
    ]
    kicker.submit(*words)
    kicker.ring_doorbell()
    walks = device.model.counters["slices"]
    assert kicker.host.step()
    assert device.model.counters["slices"] == walks + 1
    kicker.host.set_enabled(1, 3, False)
    assert not kicker.host.step()
    device.close()


def test_a_copy_without_end_in_the_process_of_its_driver_leaves_others_their_turn():
    clock = VirtualClock()
    device, _ = make_card(clock=clock)
    kicker = Kicker(device)
    kicker.submit(*copy(DATA, DATA + (2 << 20), 1 << 16, lines=0xFFFFFFFF))
    kicker.ring_doorbell()
    assert device.model.counters["slices"] == BURST and device.bars[0].read32(0) == 0x170000A1
    clock.advance(2 * RETRY)
    assert device.model.counters["slices"] >= 2 * BURST
    kicker.host.set_enabled(1, 3, False)
    done = device.model.counters["slices"]
    clock.advance(1.0)
    assert device.model.counters["slices"] == done
    device.close()


def test_a_channel_whose_instance_block_lies_outside_vram_faults():
    device, gsp = make_card()
    kicker = Kicker(device)
    for instance in (1 << 40, (1 << 30) - 4, 3):
        kicker.state.instance = instance
        kicker.channel.dead = False
        kicker.submit(0)
        kicker.ring_doorbell()
        assert gsp.calls[-1][3] == "mmu-fault"
    device.close()


def test_bars_take_any_bytes_anywhere(gpu):
    device, _ = gpu

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from([1, 3]), st.integers(0, (32 << 20) - 64), st.binary(min_size=1, max_size=64))
    def run(index, offset, data):
        bar = device.bars[index]
        bar.write(offset, data)
        assert bar.read(offset, len(data)) == data

    run()
    assert device.card.model.memory.read(Aperture.VRAM, 1 << 30, 4) == b"\xff" * 4
