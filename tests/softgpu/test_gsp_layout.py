"""What the firmware keeps of video memory and what it hands out: together everything, never both."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from nvcore_softgpu.gsp.layout import MIB, Layout

SIZE = 1 << 32
PLACES = st.integers(0, SIZE // 0x1000 - 1).map(lambda page: page * 0x1000)


@given(st.integers(2, 2000), PLACES, PLACES)
def test_reserved_and_usable_cover_vram_once(reserved_mib: int, first: int, second: int) -> None:
    top = SIZE - reserved_mib * MIB
    layout = Layout({"gspFwRsvdStart": top, "nonWprHeapOffset": top, "gspFwWprStart": top + MIB}, SIZE, (first, second))
    pieces = sorted(layout.reserved + layout.usable)
    assert pieces[0][0] == 0 and pieces[-1][1] == SIZE
    assert all(left[1] == right[0] for left, right in itertools.pairwise(pieces))
    for begin, end in layout.usable:
        assert begin >= MIB and end <= top
        assert not any(begin < directory + 0x1000 and directory < end for directory in (first, second))


def test_ranges_may_touch_what_is_reserved_and_not_enter_it() -> None:
    layout = Layout({"gspFwRsvdStart": SIZE - 64 * MIB}, SIZE, (1024 * MIB, SIZE - 0x10000))
    assert layout.clear(1024 * MIB - 0x1000, 0x1000) and not layout.clear(1024 * MIB - 0x1000, 0x1001)
    assert layout.clear(1024 * MIB + 0x10000, 0x1000) and not layout.clear(1024 * MIB + 0xF000, 0x1000)
    assert layout.clear(SIZE - 65 * MIB, MIB) and not layout.clear(SIZE - 65 * MIB, MIB + 1)
    assert layout.clear(0, MIB), "the first MiB is not handed out, and whoever uses it is not stopped"
    assert layout.inside(0, 0) and layout.inside(SIZE - 1, 1) and not layout.inside(SIZE, 1)
    assert not layout.inside(-1, 1) and not layout.inside(1, -1)


@given(st.integers(-0x1000, SIZE + 0x1000), st.integers(-1, 16 * MIB))
def test_a_clear_range_lies_outside_everything_reserved_above_the_first_mib(address: int, size: int) -> None:
    layout = Layout({"gspFwRsvdStart": SIZE - 64 * MIB}, SIZE, (1024 * MIB, SIZE - 0x10000))
    wanted = size > 0 and address >= 0 and address + size <= SIZE - 64 * MIB
    wanted = wanted and (address + size <= 1024 * MIB or address >= 1024 * MIB + 0x10000)
    assert layout.clear(address, size) == wanted
