"""Conditions: woken in order, timed by the clock they are given."""

from __future__ import annotations

import threading

import pytest

from nvcore.api.errors import LockRuleError
from nvcore.api.marks import LOCKDEP
from nvcore.locks import Condition, Lock, assert_held
from nvcore.testing import VirtualClock, expect_violation


def test_notify_wakes_the_one_that_waited_longest(virtual_clock: VirtualClock) -> None:
    condition = Condition("test.condition")
    woken: list[str] = []

    def waiter() -> None:
        with condition:
            if condition.wait(100, virtual_clock):
                woken.append(threading.current_thread().name)

    threads = []
    for number in range(2):
        thread = threading.Thread(target=waiter, name=f"w{number}")
        thread.start()
        virtual_clock.wait_blocked(number + 1)
        threads.append(thread)
    with condition:
        condition.notify()
    threads[0].join(5)
    assert woken == ["w0"]
    with condition:
        condition.notify_all()
    threads[1].join(5)
    assert woken == ["w0", "w1"]


def test_a_wait_times_out_and_holds_the_lock_again() -> None:
    clock = VirtualClock(auto=True)
    condition = Condition("test.condition")
    with condition:
        assert not condition.wait(2, clock)
        assert_held(condition.lock)
        assert clock.now() == 2


def test_wait_for_looks_again_after_each_notify(virtual_clock: VirtualClock) -> None:
    lock = Lock("test.shared")
    condition = Condition("unused", lock=lock)
    items: list[int] = []
    got: list[bool] = []

    def consumer() -> None:
        with condition:
            got.append(condition.wait_for(lambda: len(items) >= 2, 10, virtual_clock))
            got.append(condition.wait_for(lambda: len(items) >= 9, 10, virtual_clock))

    def produce() -> None:
        with condition:
            items.append(1)
            condition.notify()

    thread = threading.Thread(target=consumer)
    thread.start()
    virtual_clock.wait_blocked(1)
    virtual_clock.call_at(1, produce)
    virtual_clock.call_at(2, produce)
    virtual_clock.advance(5)
    assert got == [True]
    virtual_clock.advance(10)
    thread.join(5)
    assert got == [True, False]


@pytest.mark.skipif(not LOCKDEP, reason="by design: the validator is off")
def test_waiting_without_the_lock_is_refused() -> None:
    with expect_violation("L2.owner"), pytest.raises(LockRuleError):
        Condition("test.condition").wait(0.01)
