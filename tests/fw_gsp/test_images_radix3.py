"""The radix3 table describes every page, whether the buffers are contiguous on the bus or scattered."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvcore.api.errors import UsageError
from nvcore_fw_gsp.images.radix3 import PAGE, Radix3Size, write_radix3


class Buffer:
    fd = -1

    def __init__(self, size: int, base: int, contiguous: bool) -> None:
        self.size, self.base, self.contiguous = size, base, contiguous
        self.view = memoryview(bytearray(size))

    def bus_address(self, offset: int = 0) -> int:
        page, rest = divmod(offset, PAGE)
        return self.base + (page if self.contiguous else page * 7919 % 65536) * PAGE + rest

    def close(self) -> None: ...


@given(st.integers(1, 1200 * PAGE), st.booleans(), st.booleans())
def test_a_walk_from_the_root_meets_every_page_in_order(size, tables_contiguous, data_contiguous):
    need = Radix3Size(size)
    tables, data = Buffer(need.tables, 1 << 40, tables_contiguous), Buffer(need.data * PAGE, 1 << 41, data_contiguous)
    root = write_radix3(tables, data, size)
    pages = {tables.bus_address(at): bytes(tables.view[at : at + PAGE]) for at in range(0, need.tables, PAGE)}
    level = [root]
    for count in (need.level1, need.level2, need.data):
        entries = [e for page in level for e in struct.unpack("<512Q", pages[page])]
        assert not any(entries[count:])
        level = entries[:count]
    assert level == [data.bus_address(i * PAGE) for i in range(need.data)]


@pytest.mark.parametrize(
    ("size", "counts"), [(63541248, (15513, 31, 1)), (38043648, (9288, 19, 1)), (28528288, (6965, 14, 1)), (23737168, (5796, 12, 1))]
)
def test_page_counts_are_those_of_the_published_images(size, counts):
    need = Radix3Size(size)
    assert (need.data, need.level2, need.level1) == counts


def test_the_largest_image_fills_the_root():
    need = Radix3Size(512 * 512 * 512 * PAGE)
    assert (need.level1, need.level2, need.data) == (512, 512 * 512, 512 * 512 * 512)


def test_sizes_without_a_table_are_refused():
    for size in (0, -1, 512 * 512 * 512 * PAGE + 1):
        with pytest.raises(UsageError):
            Radix3Size(size)
    with pytest.raises(UsageError):
        write_radix3(Buffer(PAGE, 0, True), Buffer(PAGE, 0, True), PAGE)
