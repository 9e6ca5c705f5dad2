"""Fences: one promise each, kept once, heard by every waiter."""

from __future__ import annotations

import threading

import pytest

from nvcore.api.marks import LOCKDEP
from nvcore.locks import Fence, Reserve, allocate, signalling
from nvcore.testing import VirtualClock, expect_violation
from nvcore.testing.lockdep.fence import publish_observers, published_fences
from nvcore.testing.lockdep.reserve import starved


def test_states_in_order() -> None:
    fence = Fence("f")
    seen = [fence.state]
    fence.publish()
    seen.append(fence.state)
    fence.signal()
    seen.append(fence.state)
    assert seen == ["unpublished", "published", "signalled"]
    assert fence.signalled
    assert fence.error is None


def test_an_error_is_carried_to_those_who_look() -> None:
    fence, error = Fence("f"), OSError("gone")
    fence.publish()
    fence.signal(error)
    assert fence.wait(0.1)
    assert fence.error is error


def test_an_unpublished_fence_may_end_with_its_error() -> None:
    fence = Fence("f")
    fence.signal(ValueError("prepare failed"))
    assert fence.signalled


def test_every_waiter_hears_the_signal(virtual_clock: VirtualClock) -> None:
    fence = Fence("f")
    fence.publish()
    heard: list[tuple[bool, float]] = []
    waiters = [threading.Thread(target=lambda: heard.append((fence.wait(10, virtual_clock), virtual_clock.now()))) for _ in range(3)]
    for thread in waiters:
        thread.start()
    virtual_clock.wait_blocked(3)
    virtual_clock.call_at(4, fence.signal)
    virtual_clock.advance(20)
    for thread in waiters:
        thread.join(5)
    assert heard == [(True, 4)] * 3


def test_a_wait_gives_up_at_its_time_out() -> None:
    clock = VirtualClock(auto=True)
    fence = Fence("f")
    fence.publish()
    assert not fence.wait(3, clock)
    assert clock.now() == 3
    fence.signal()


def test_callbacks_run_once_in_order_and_late_ones_at_once() -> None:
    fence = Fence("f")
    seen: list[str] = []
    fence.add_callback(lambda _: seen.append("first"))
    fence.add_callback(lambda _: seen.append("second"))
    fence.signal()
    fence.add_callback(lambda _: seen.append("late"))
    assert seen == ["first", "second", "late"]


def test_a_callback_that_raises_robs_no_other() -> None:
    fence = Fence("f")
    seen: list[str] = []

    def bad(_: Fence) -> None:
        raise ValueError("bad")

    fence.add_callback(bad)
    fence.add_callback(lambda _: seen.append("other"))
    with pytest.raises(ValueError, match="bad"):
        fence.signal()
    assert seen == ["other"]


@pytest.mark.skipif(not LOCKDEP, reason="by design: the validator is off")
def test_callbacks_are_in_the_signalling_path() -> None:
    fence = Fence("f")
    fence.add_callback(lambda _: allocate("table"))
    with expect_violation("L8.allocation"):
        fence.signal()


@pytest.mark.skipif(not LOCKDEP, reason="by design: the validator is off")
def test_a_forgotten_published_fence_is_known_by_name() -> None:
    Fence("forgotten").publish()
    (left,) = published_fences()
    assert left.name == "forgotten"
    left.signal()
    assert published_fences() == []


@pytest.mark.skipif(not LOCKDEP, reason="by design: the validator is off")
def test_a_starved_process_allocates_from_reserves_only() -> None:
    starved.append("this test")
    try:
        with pytest.raises(MemoryError):
            allocate("table")
        allocate("table", Reserve(1))
    finally:
        starved.clear()
    allocate("table")


def test_publications_can_be_watched() -> None:
    seen: list[str] = []
    watch = lambda fence: seen.append(f"{fence.name} {fence.state}")  # noqa: E731
    publish_observers.append(watch)
    try:
        fence = Fence("watched")
        fence.publish()
    finally:
        publish_observers.remove(watch)
    fence.signal()
    assert seen == (["watched published"] if LOCKDEP else [])


def test_a_reserve_counts_use_and_under_use() -> None:
    reserve = Reserve(3, "tables")
    with signalling():
        allocate("table", reserve)
        reserve.draw()
    assert (reserve.used, reserve.unused, reserve.over) == (2, 1, 0)
    assert reserve.close() == 1
    assert reserve.report() == "tables: 3 reserved, 2 used, 1 unused, 0 over"
