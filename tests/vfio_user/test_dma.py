"""The table of DMA maps: what an unmap takes, what it refuses, and in how many steps."""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Callable
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvcore.vfio_user.dma import DmaTable
from nvcore.vfio_user.wire import Refused

from .fake import FakeDevice

PAGE = 0x1000
ALL = (2, 0, 0)


def map_(table: DmaTable, address: int, size: int) -> None:
    table.map(memoryview(struct.pack("<IIQQQ", 32, 3, 0, address, size)), [])


def unmap(table: DmaTable, flags: int, address: int, size: int) -> None:
    table.unmap(memoryview(struct.pack("<IIQQ", 24, flags, address, size)))


def counting(name: str) -> Callable[[int, int], bool]:
    plain = getattr(int, name)

    def compare(self: int, other: int) -> bool:
        Counted.steps += 1
        return bool(plain(self, other))

    return compare


class Counted(int):
    """A start of a map that counts how often it is compared, by Python or inside a list's methods."""

    steps: ClassVar[int] = 0
    __hash__ = int.__hash__
    __lt__, __le__, __gt__, __ge__ = counting("__lt__"), counting("__le__"), counting("__gt__"), counting("__ge__")
    __eq__ = counting("__eq__")  # type: ignore[assignment]


def steps_to_unmap(maps: int, requests: list[tuple[int, int, int]]) -> int:
    """Comparisons of starts that the requests cost a table of so many maps of a page; nothing may be left."""
    table = DmaTable(FakeDevice())  # type: ignore[arg-type]
    for page in range(maps):
        map_(table, page * PAGE, PAGE)
    table._starts[:] = [Counted(start) for start in table._starts]
    Counted.steps = 0
    for request in requests:
        unmap(table, *request)
    assert not len(table)
    return Counted.steps


@pytest.mark.parametrize("maps", [500, 4000])
def test_one_unmap_of_many_maps_looks_at_each_once(maps: int) -> None:
    assert steps_to_unmap(maps, [ALL]) <= maps + 4 * maps.bit_length()
    assert steps_to_unmap(maps, [(0, 0, maps * PAGE)]) <= maps + 4 * maps.bit_length()


@pytest.mark.parametrize("maps", [500, 4000])
def test_unmaps_one_by_one_in_any_order_take_n_log_n_steps(maps: int) -> None:
    requests = [(0, page * PAGE, PAGE) for page in range(maps)]
    random.Random(7).shuffle(requests)
    assert steps_to_unmap(maps, requests) <= 4 * maps * maps.bit_length()


SPANS = st.tuples(st.integers(0, 40), st.integers(1, 8))


@given(maps=st.lists(SPANS, max_size=20), unmaps=st.lists(SPANS, max_size=20))
def test_the_table_is_what_a_list_of_pages_says(maps: list[tuple[int, int]], unmaps: list[tuple[int, int]]) -> None:
    table = DmaTable(FakeDevice())  # type: ignore[arg-type]
    kept: set[tuple[int, int]] = set()
    for start, size in maps:
        if any(start < other + length and other < start + size for other, length in kept):
            with pytest.raises(Refused) as refused:
                map_(table, start * PAGE, size * PAGE)
            assert refused.value.errno == errno.EEXIST
        else:
            map_(table, start * PAGE, size * PAGE)
            kept.add((start, size))
    for start, size in unmaps:
        inside = {span for span in kept if start <= span[0] and sum(span) <= start + size}
        touched = {span for span in kept if start < sum(span) and span[0] < start + size}
        if touched - inside:
            with pytest.raises(Refused) as refused:
                unmap(table, 0, start * PAGE, size * PAGE)
            assert refused.value.errno == errno.EINVAL
        else:
            unmap(table, 0, start * PAGE, size * PAGE)
            kept -= inside
        assert len(table) == len(kept)
