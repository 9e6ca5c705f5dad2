"""The clock a test owns: it moves on request, in order, and never hangs a test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from nvcore.api.clock import Clock, wait_until
from nvcore.api.errors import ContractError, WaitTimeout
from nvcore.locks import signalling
from nvcore.testing import VirtualClock


@contextmanager
def threads(*bodies: Callable[[], object]) -> Iterator[list[threading.Thread]]:
    running = [threading.Thread(target=body, name=f"t{number}") for number, body in enumerate(bodies)]
    for thread in running:
        thread.start()
    try:
        yield running
    finally:
        for thread in running:
            thread.join(5)
            assert not thread.is_alive(), thread.name


def test_it_is_a_clock_that_stands_still(virtual_clock: VirtualClock) -> None:
    clock: Clock = virtual_clock
    assert clock.now() == 0.0
    time.sleep(0.002)
    assert clock.now() == 0.0
    virtual_clock.advance(1.5)
    assert clock.now() == 1.5


def test_sleepers_wake_in_the_order_of_their_deadlines_and_see_their_own_time(virtual_clock: VirtualClock) -> None:
    seen: list[tuple[str, float]] = []

    def sleeper(name: str, seconds: float) -> Callable[[], None]:
        def body() -> None:
            virtual_clock.sleep(seconds)
            seen.append((name, virtual_clock.now()))

        return body

    with threads(sleeper("late", 3), sleeper("early", 1), sleeper("middle", 2)):
        virtual_clock.wait_blocked(3)
        virtual_clock.advance(0.5)
        assert seen == []
        virtual_clock.advance(10)
    assert seen == [("early", 1), ("middle", 2), ("late", 3)]


def test_a_woken_thread_that_sleeps_again_is_served_within_the_same_advance(virtual_clock: VirtualClock) -> None:
    ticks: list[float] = []

    def body() -> None:
        for _ in range(4):
            virtual_clock.sleep(1)
            ticks.append(virtual_clock.now())

    with threads(body):
        virtual_clock.wait_blocked(1)
        virtual_clock.advance(4)
        assert ticks == [1, 2, 3, 4]


def test_a_set_event_ends_a_wait_before_time_moves(virtual_clock: VirtualClock) -> None:
    event = threading.Event()
    answer: list[tuple[bool, float]] = []
    with threads(lambda: answer.append((virtual_clock.wait(event, 5), virtual_clock.now()))):
        virtual_clock.wait_blocked(1)
        event.set()
        virtual_clock.advance(100)
    assert answer == [(True, 0.0)]


def test_a_wait_times_out_at_its_deadline_and_not_before(virtual_clock: VirtualClock) -> None:
    event = threading.Event()
    answer: list[tuple[bool, float]] = []
    with threads(lambda: answer.append((virtual_clock.wait(event, 5), virtual_clock.now()))):
        virtual_clock.wait_blocked(1)
        virtual_clock.advance(4.5)
        assert answer == []
        virtual_clock.advance(0.5)
    assert answer == [(False, 5)]


def test_no_wait_for_nothing(virtual_clock: VirtualClock) -> None:
    event = threading.Event()
    assert not virtual_clock.wait(event, 0)
    event.set()
    assert virtual_clock.wait(event, None)
    virtual_clock.sleep(0)


def test_timers_run_at_their_time_among_the_sleepers(virtual_clock: VirtualClock) -> None:
    seen: list[tuple[str, float]] = []

    def body() -> None:
        virtual_clock.sleep(2)
        seen.append(("sleeper", virtual_clock.now()))

    virtual_clock.call_at(3, lambda: seen.append(("after", virtual_clock.now())))
    virtual_clock.call_at(1, lambda: seen.append(("before", virtual_clock.now())))
    with threads(body):
        virtual_clock.wait_blocked(1)
        virtual_clock.advance(5)
    assert seen == [("before", 1), ("sleeper", 2), ("after", 3)]


def test_a_timer_in_the_past_runs_at_the_next_move_and_time_does_not_run_back(virtual_clock: VirtualClock) -> None:
    seen: list[float] = []
    virtual_clock.advance(5)
    virtual_clock.call_at(1, lambda: seen.append(virtual_clock.now()))
    virtual_clock.advance(0)
    assert seen == [5]


def test_a_timer_may_set_another_but_not_move_the_clock(virtual_clock: VirtualClock) -> None:
    seen: list[float] = []
    virtual_clock.call_at(1, lambda: virtual_clock.call_at(2, lambda: seen.append(virtual_clock.now())))
    virtual_clock.advance(2)
    assert seen == [2]
    virtual_clock.call_at(3, lambda: virtual_clock.advance(1))
    with pytest.raises(ContractError):
        virtual_clock.advance(5)
    virtual_clock.advance(1)


def test_a_thread_that_never_rests_is_named() -> None:
    clock = VirtualClock(limit=0.2)
    stop = threading.Event()

    def busy() -> None:
        clock.sleep(1)
        while not stop.is_set():
            pass

    with threads(busy):
        clock.wait_blocked(1)
        try:
            with pytest.raises(WaitTimeout, match="t0"):
                clock.advance(1)
        finally:
            stop.set()


def test_a_wait_that_nobody_ends_is_given_up_with_the_name_of_the_thread() -> None:
    clock = VirtualClock(limit=0.05)
    with pytest.raises(WaitTimeout, match="MainThread"):
        clock.sleep(1)
    assert clock.blocked() == []


def test_a_thread_that_rests_elsewhere_does_not_hold_up_time(virtual_clock: VirtualClock) -> None:
    elsewhere = threading.Event()

    def body() -> None:
        virtual_clock.sleep(1)
        elsewhere.wait(5)

    with threads(body):
        virtual_clock.wait_blocked(1)
        virtual_clock.advance(2)
        assert virtual_clock.now() == 2
        elsewhere.set()


def test_auto_serves_a_poll_of_one_thread_without_real_time() -> None:
    clock = VirtualClock(auto=True)
    start = time.monotonic()
    with pytest.raises(WaitTimeout, match="last value 0x0"):
        wait_until(lambda: 0, bool, timeout=2.0, what="never", clock=clock)
    assert 2.0 <= clock.now() < 2.01
    assert time.monotonic() - start < 5
    assert wait_until(lambda: int(clock.now() > 3), bool, timeout=2.0, what="time", clock=clock) == 1


def test_auto_lets_a_working_thread_set_its_event_before_the_wait_times_out() -> None:
    clock = VirtualClock(auto=True)
    event = threading.Event()

    def work() -> None:
        clock.sleep(1)
        for _ in range(20_000):
            pass
        event.set()

    with threads(work):
        assert clock.wait(event, 60)
    assert clock.now() == 1


def test_auto_gives_a_thread_that_knows_no_clock_a_moment_to_set_the_event() -> None:
    clock = VirtualClock(auto=True)
    event = threading.Event()

    def stranger() -> None:
        end = time.monotonic() + 0.01
        while time.monotonic() < end:
            pass
        event.set()

    with threads(stranger):
        assert clock.wait(event, 60)
    assert clock.now() == 0


def test_auto_serves_a_bounded_poll_inside_the_signalling_path() -> None:
    clock = VirtualClock(auto=True)
    end = threading.Event()

    def other() -> None:
        clock.sleep(0.001)
        end.wait(5)

    with threads(other):
        with signalling():
            assert wait_until(lambda: int(clock.now() > 0.002), bool, timeout=1, what="time", clock=clock)
            assert not clock.wait(threading.Event(), 1)
        end.set()


def test_auto_interleaves_two_sleepers_in_order() -> None:
    clock = VirtualClock(auto=True)
    ready = threading.Barrier(2)
    seen: list[tuple[float, str]] = []

    def body(name: str, step: float) -> Callable[[], None]:
        def run() -> None:
            clock.sleep(0.001)
            ready.wait(5)
            for _ in range(3):
                clock.sleep(step)
                seen.append((round(clock.now(), 3), name))

        return run

    with threads(body("a", 2), body("b", 3)):
        pass
    times = [when for when, _ in seen]
    assert sorted(times) == times
    assert [name for _, name in seen].count("a") == 3
