"""Pools give out whole units where they were asked to, their books notice what does not balance, and runs stay merged."""

from __future__ import annotations

import pytest

from nvcore.api.errors import ContractError, OutOfResources, UsageError
from nvcore.api.grant import GrantRequest
from nvcore.api.inventory import Range
from nvcore.vmm.pool import Pool
from nvcore.vmm.request import plan_request
from nvcore.vmm.runs import Runs, cut

MIB = 1 << 20


@pytest.fixture
def pool() -> Pool:
    return Pool("vram", "bytes", [Range(3 * MIB, 61 * MIB)], granule=2 * MIB)


@pytest.mark.parametrize(
    ("align", "top_down", "start"), [(1, False, 4), (4096, False, 4), (8 * MIB, False, 8), (1, True, 62), (8 * MIB, True, 56)]
)
def test_a_place_is_a_multiple_of_granule_and_alignment(pool: Pool, align: int, top_down: bool, start: int) -> None:
    assert pool.find(pool.free, 2 * MIB, align=align, at=None, top_down=top_down) == Range(start * MIB, 2 * MIB)


@pytest.mark.parametrize(
    ("size", "align", "at", "error"),
    [
        (0, 1, None, UsageError),
        (-2 * MIB, 1, None, UsageError),
        (MIB, 1, None, UsageError),
        (2 * MIB, 3 * MIB, None, UsageError),
        (2 * MIB, 1, 3 * MIB, UsageError),
        (2 * MIB, 1, -2 * MIB, UsageError),
        (2 * MIB, 1, 2 * MIB, OutOfResources),
        (2 * MIB, 1, 64 * MIB, OutOfResources),
        (64 * MIB, 1, None, OutOfResources),
    ],
)
def test_what_is_not_whole_or_not_there_is_refused(pool: Pool, size: int, align: int, at: int | None, error: type) -> None:
    with pytest.raises(error):
        pool.find(pool.free, size, align=align, at=at, top_down=False)
    assert pool.check() == [] and list(pool.free) == [Range(3 * MIB, 61 * MIB)]


def test_the_books_notice_what_does_not_balance(pool: Pool) -> None:
    pool.move(pool.free, pool.of("a"), Range(4 * MIB, 2 * MIB))
    assert pool.check(["a"]) == [] == pool.check()
    assert pool.check(["b"]) == ["vram: 0x200000 owned by a, which does not exist"]
    pool.of("b").add(4 * MIB, 6 * MIB)  # a second owner of the same
    assert pool.check(["a", "b"]) == ["vram: columns sum to 0x3f00000 of 0x3d00000", "vram: [0x400000, 0x600000) is in two columns"]
    pool.free.remove(8 * MIB, 10 * MIB)  # as many lost as counted twice
    assert pool.check(["a", "b"]) == ["vram: [0x400000, 0x600000) is in two columns"]


def test_a_request_finds_each_kind_as_it_asks_for_it() -> None:
    pools = {
        "vram": Pool("vram", "bytes", [Range(0, 64 * MIB)], granule=2 * MIB),
        "channels": Pool("channels", "ids", [Range(1, 511)]),
        "bar1": Pool("bar1", "bytes", [Range(0, 16 * MIB)]),
        "functions": Pool("functions", "VFs", [Range(0, 4)]),
        "heads": Pool("heads", "heads", [Range(0, 4)]),
    }
    request = GrantRequest(
        "all", vram=4 * MIB, vram_align=4 * MIB, channels=64, power_of_two_channels=True, bar1=MIB, functions=(2, 0), heads=3, top_down=True
    )
    plan = [(pool.kind, found.start, found.size) for pool, found in plan_request(pools, request, None)]
    assert plan[:3] == [("vram", 60 * MIB, 4 * MIB), ("channels", 448, 64), ("bar1", 0, MIB)]
    assert plan[3:] == [("functions", 2, 1), ("functions", 0, 1), ("heads", 0, 3)]
    low = plan_request(pools, GrantRequest("low", channels=64, power_of_two_channels=True), None)
    assert [found.start for _, found in low] == [64], "aligned to its own size, behind the id that is not there"


def test_runs_that_touch_are_one_whatever_the_order() -> None:
    for order in ([(0, 2), (2, 4), (4, 6)], [(4, 6), (2, 4), (0, 2)], [(0, 2), (4, 6), (2, 4)]):
        runs = Runs()
        for start, end in order:
            runs.add(start, end)
        assert list(runs) == [Range(0, 6)] and (runs.total, runs.largest) == (6, 6)
        for start, end in ((0, 1), (3, 4), (5, 7), (-1, 1)):
            with pytest.raises(ContractError, match="twice"):
                runs.add(start, end)
        runs.remove(2, 4)
        assert list(runs) == [Range(0, 2), Range(4, 2)] and runs.total == 4
        with pytest.raises(ContractError, match="not there"):
            runs.remove(1, 3)


def test_a_range_is_cut_where_others_begin_and_end_in_any_order() -> None:
    one, two = Range(10, 10), Range(30, 10)
    pieces = [(None, Range(5, 5)), (one, one), (None, Range(20, 10)), (two, Range(30, 5))]
    assert cut(Range(5, 30), [one, two]) == pieces == cut(Range(5, 30), [two, Range(90, 5), one])
