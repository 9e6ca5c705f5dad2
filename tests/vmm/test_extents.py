"""An extent gives out what lies inside it: its descriptor may reach further, or end there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nvcore.api.errors import ContractError
from nvcore.api.inventory import Range
from nvcore.testing.fakes import FakeGpu
from nvcore.vmm.mapping import PAGE, Extent

MIB = 1 << 20
OUTSIDE = [(2 * MIB - PAGE, PAGE), (3 * MIB, PAGE), (2 * MIB, MIB + PAGE), (0, 8 * MIB), (64 * MIB, PAGE)]


@pytest.fixture
def gpu() -> Iterator[FakeGpu]:
    fake = FakeGpu("fake:extent", vram=8 * MIB)
    yield fake
    fake.scrap()


@pytest.fixture
def extent(gpu: FakeGpu) -> Iterator[Extent]:
    shared = gpu.share(2 * MIB, MIB)
    made = Extent(gpu, Range(2 * MIB, MIB), shared.fd, shared.offset)  # type: ignore[arg-type]
    yield made
    made.close()


@pytest.mark.parametrize(("start", "size"), OUTSIDE)
def test_nothing_outside_of_an_extent_is_mapped_or_zeroed(gpu: FakeGpu, extent: Extent, start: int, size: int) -> None:
    gpu.poke(0, b"\1" * 8 * MIB)
    for call in (extent.map, extent.zero):
        with pytest.raises(ContractError, match="outside of an extent"):
            call(Range(start, size))
    assert gpu.vram(0, 8 * MIB) == b"\1" * 8 * MIB


@pytest.mark.parametrize(("start", "size"), [(0, MIB), (PAGE, PAGE), (8, 16), (PAGE - 8, 16), (MIB - 24, 24)])
def test_a_part_is_mapped_and_zeroed_exactly(gpu: FakeGpu, extent: Extent, start: int, size: int) -> None:
    gpu.poke(2 * MIB, b"\1" * MIB)
    part = Range(2 * MIB + start, size)
    mapped = extent.map(part)
    assert len(mapped.view) == size
    mapped.write(0, b"\2" * size)
    assert gpu.vram(2 * MIB, MIB) == b"\1" * start + b"\2" * size + b"\1" * (MIB - start - size)
    mapped.revoke()
    extent.zero(part)
    assert gpu.vram(2 * MIB, MIB) == b"\1" * start + bytes(size) + b"\1" * (MIB - start - size)


def test_a_mapping_is_taken_back_once_and_touches_nothing_later(gpu: FakeGpu, extent: Extent) -> None:
    part = Range(2 * MIB, PAGE)
    first = extent.map(part)
    first.revoke()
    second = extent.map(part)  # where the first was: the kernel gives freed addresses out again
    first.revoke()
    second.write(0, b"here")
    assert gpu.vram(2 * MIB, 4) == b"here"
