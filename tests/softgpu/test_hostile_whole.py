"""A whole GPU, firmware running, against drivers that write anything anywhere: nothing is raised, nothing hangs, and it boots again."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore_softgpu.gsp.controls import CONTROLS
from tests.softgpu.device_kit import MIB
from tests.softgpu.whole_rig import CASES, REGIONS, Whole

HANDLES = (0xC1D00000, 0xDE1D0000, 0x5D1D0000, 0x90F10000, 0xF1F00001, 0xC2000001, 0xABCD0080, 0xABCD2080)
WORDS = st.one_of(
    st.integers(0, 0xFFFFFFFF), st.sampled_from([0, 1, 2, 4, 8, 0xFF, 0x1000, 0x80000001, 0x80000000, 0xFFFFFFFF, 0x01000000, *HANDLES])
)
FUNCTIONS = st.sampled_from([0x04, 0x0A, 0x2F, 0x36, 0x41, 0x46, 0x47, 0x48, 0x49, 0x4C, 0x4F, 0x67, 0x99])
OPERATION = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 5000), WORDS),
    st.tuples(st.just("read"), st.integers(0, 5000)),
    st.tuples(st.just("record"), FUNCTIONS, st.lists(WORDS, max_size=60), st.integers(0, 0xFF80)),
    st.tuples(st.just("control"), st.sampled_from(sorted(CONTROLS)), st.sampled_from(HANDLES), st.lists(WORDS, max_size=40)),
    st.tuples(st.just("poke"), st.sampled_from([0, 0x1000, 0x1010, 0x1020, 0x2000, 0x41000, 0x41010, 0x41020, 0x42000]), WORDS),
    st.tuples(st.just("memory"), st.sampled_from(REGIONS[:2]), st.integers(0, MIB - 8), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("bar"), st.sampled_from([1, 3]), st.integers(0, (32 << 20) - 8), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("config"), st.integers(0, 4088), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("time"), st.sampled_from([0.0001, 0.01, 2.0])),
    st.tuples(st.just("ring")),
    st.tuples(st.just("take")),
)


def places(whole: Whole) -> list[int]:
    """A register of every row, and a few where there is none."""
    return [row.offset + row.stride * (row.number // 2) for row in whole.model.registers.rows] + [0x700ABC, 0x300010, 0x123454]


def put(whole: Whole, function: int, payload: bytes) -> None:
    """A record that is right as a record, if there is room for it."""
    if (0x50 + len(payload) + 4095) // 4096 <= whole.free_slots():
        whole.record(function, payload)
        whole.doorbell()


def act(whole: Whole, name: str, *words) -> None:
    bars = whole.device.bars
    if name == "write":
        known = places(whole)
        bars[0].write32(known[words[0] % len(known)], words[1])
    elif name == "read":
        known = places(whole)
        assert 0 <= bars[0].read32(known[words[0] % len(known)]) <= 0xFFFFFFFF
    elif name == "record":
        function, values, size = words
        put(whole, function, struct.pack(f"<{len(values)}I", *values).ljust(size, b"\0")[: 0xFFB0])
    elif name == "control":
        command, handle, values = words
        size = 4 * len(values)
        put(whole, 0x4C, struct.pack(f"<6I{len(values)}I", HANDLES[0], handle, command, 0, size, 0, *values))
    elif name == "poke":
        whole.put_word(*words)
    elif name == "memory":
        (start, _), offset, data = words
        whole.env.memory.write(None, start + offset, data)
    elif name == "bar":
        index, offset, data = words
        bars[index].write(offset, data)
        assert len(bars[index].read(offset, len(data))) == len(data)
    elif name == "config":
        whole.device.config_write(*words)
    elif name == "time":
        whole.advance(words[0])
    elif name == "ring":
        whole.doorbell()
    elif whole.word(0x41010) < 63:
        whole.receive()


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_an_orderly_driver_is_said_nothing_about(chip, version):
    whole = Whole(chip, version)
    whole.start()
    whole.space(HANDLES[0])
    whole.channel(HANDLES[0], 1, 9, 0x700000)
    assert whole.device.model.violations == []
    whole.close()


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_whatever_a_driver_does_the_gpu_goes_on_and_boots_again(chip, version):
    @settings(max_examples=60, deadline=None)
    @given(st.booleans(), st.lists(OPERATION, max_size=40))
    def run(up, operations):
        whole = Whole(chip, version)
        try:
            if up:
                whole.start()
                whole.space(HANDLES[0])
                whole.channel(HANDLES[0], 1, 9, 0x700000)
            for operation in operations:
                act(whole, *operation)
            json.dumps(whole.model.view())
            whole.model.function_reset()
            boot_again(whole)
        finally:
            whole.close()

    run()


def boot_again(whole: Whole) -> None:
    """After a reset the GPU is as new: an orderly driver finds nothing left of the one before."""
    device = whole.device
    device.set_bus_master(True)
    for place, done in whole.model.chip.gfw:
        assert device.bars[0].read32(place) == done
    whole.booter.set_flush_page()
    whole.sequence = whole.number = whole.write = whole.read = 0
    for start, size in REGIONS[:2]:
        whole.env.memory.write(None, start, bytes(size))
    whole._lay_out()
    before = whole.model.journal.total
    whole.start()
    assert whole.model.journal.total == before, whole.device.model.violations
