"""VRAM extents and the system aperture."""

from __future__ import annotations

import fcntl
import mmap
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore.api.errors import UsageError
from nvcore_softgpu.journal import Journal
from nvcore_softgpu.memory import PhysicalMemory, sealed_memfd
from nvcore_softgpu.ports import Aperture

VRAM, SYSTEM = Aperture.VRAM, Aperture.SYSTEM
MIB = 1 << 20


@pytest.fixture
def memory():
    made = PhysicalMemory(1 << 30, Journal())
    made.bus_master = True
    yield made
    made.close()


@pytest.fixture
def file():
    fd = sealed_memfd("test", 0x10000)
    os.pwrite(fd, bytes(range(256)) * 256, 0)
    yield fd
    os.close(fd)


def test_forty_gib_cost_what_is_touched():
    made = PhysicalMemory(40 << 30, Journal())
    made.write(VRAM, (40 << 30) - 8, b"12345678")
    assert os.fstat(made._base).st_blocks * 512 <= 1 << 16
    made.close()


def test_an_extent_keeps_its_contents_and_is_sealed(memory):
    memory.write(VRAM, 128 * MIB + 5, b"kept")
    fd = memory.share(128 * MIB, 128 * MIB)
    assert os.pread(fd, 4, 5) == b"kept"
    assert os.fstat(fd).st_size == 128 * MIB
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    with mmap.mmap(fd, 128 * MIB) as other:
        other[9:13] = b"both"
        assert memory.read(VRAM, 128 * MIB + 9, 4) == b"both"
    os.close(fd)


def test_the_gpu_sees_one_linear_view_over_two_extents(memory):
    first, second = memory.share(0, 2 * MIB), memory.share(2 * MIB, 2 * MIB)
    memory.write(VRAM, 2 * MIB - 2, b"abcd")
    assert os.pread(first, 2, 2 * MIB - 2) == b"ab"
    assert os.pread(second, 2, 0) == b"cd"
    os.close(first)
    os.close(second)


def test_taking_an_extent_back_scrubs_it_and_the_holder_sees_nothing_new(memory):
    fd = memory.share(0, 2 * MIB)
    memory.write(VRAM, 0, b"secret")
    assert memory.unshare(0) == 2 * MIB
    assert memory.read(VRAM, 0, 6) == bytes(6)
    memory.write(VRAM, 0, b"next owner")
    assert os.pread(fd, 10, 0) == bytes(10)
    os.close(fd)


def test_extents_do_not_overlap(memory):
    os.close(memory.share(0, 2 * MIB))
    os.close(memory.share(0, 2 * MIB))
    for offset, size in ((0, MIB), (MIB, 2 * MIB), (5, MIB), (1 << 30, MIB), (0, 0)):
        with pytest.raises(UsageError):
            memory.share(offset, size)


def test_an_access_may_span_two_maps_and_stops_at_a_hole(memory, file):
    memory.map_file(0x10000, 0x1000, file, 0)
    memory.map_file(0x11000, 0x1000, file, 0x8000)
    memory.write(SYSTEM, 0x10FFE, b"wxyz")
    assert os.pread(file, 2, 0xFFE) == b"wx"
    assert os.pread(file, 2, 0x8000) == b"yz"
    assert memory.read(SYSTEM, 0x11FFE, 4)[2:] == b"\xff\xff"
    assert memory.violations.violations[0].name == "dma-outside-maps"


def test_a_read_only_map_loses_writes(memory, file):
    memory.map_file(0x10000, 0x1000, file, 0, writable=False)
    memory.write(SYSTEM, 0x10000, b"no")
    assert os.pread(file, 2, 0) == b"\x00\x01"
    assert memory.violations.violations[0].name == "dma-not-allowed"


def test_without_bus_mastering_nothing_reaches_the_host(memory, file):
    memory.map_file(0x10000, 0x1000, file, 0)
    memory.bus_master = False
    assert memory.read(SYSTEM, 0x10000, 4) == b"\xff" * 4
    assert memory.violations.violations[0].name == "dma-without-bus-master"


@pytest.mark.parametrize(
    ("address", "size", "offset"),
    [(0x10000, 0x2000, 0), (0x1000, 0x1000 + 0xF000, 0), (5, 0x1000, 0), (0x40000, 0x1001, 0), (0x40000, 0, 0), (0x40000, 0x1000, 8),
     (2**64 - 0x1000, 0x2000, 0), (0x40000, 0x11000, 0), (0x40000, 0x1000, 0x10000)],
)  # fmt: skip
def test_a_bad_map_changes_nothing(memory, file, address, size, offset):
    memory.map_file(0x10000, 0x1000, file, 0)
    with pytest.raises(UsageError):
        memory.map_file(address, size, file, offset)
    assert memory.maps() == [(0x10000, 0x1000)]


def test_unmapping_takes_whole_maps_only(memory, file):
    memory.map_file(0x10000, 0x2000, file, 0)
    memory.map_file(0x20000, 0x1000, file, 0)
    assert memory.unmap(0x11000, 0x1000) == 0
    assert memory.unmap(0x10000, 0x11000) == 0x3000
    assert memory.maps() == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4)), max_size=12), st.integers(0, 44 * 4096), st.integers(1, 9000))
def test_reads_through_any_maps_equal_a_plain_picture(pieces, start, size):
    made = PhysicalMemory(1 << 20, Journal())
    made.bus_master = True
    fd = sealed_memfd("picture", 4 * 4096)
    os.pwrite(fd, os.urandom(4 * 4096), 0)
    picture = bytearray(b"\xff" * (64 * 4096))
    for page, pages in pieces:
        try:
            made.map_file(page * 4096, pages * 4096, fd, 0)
        except UsageError:
            continue
        picture[page * 4096 : (page + pages) * 4096] = os.pread(fd, pages * 4096, 0)
    assert made.read(SYSTEM, start, size) == picture[start : start + size]
    made.close()
    os.close(fd)
