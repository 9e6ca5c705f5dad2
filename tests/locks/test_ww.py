"""Reservation locks: together only under a context, in any order, never in deadlock, the oldest first."""

from __future__ import annotations

import random
import threading

import pytest

from nvcore.api.clock import SYSTEM
from nvcore.api.errors import ContractError, WaitTimeout
from nvcore.api.marks import LOCKDEP
from nvcore.locks import AcquireContext, BackOff, WwLock
from nvcore.testing import VirtualClock, expect_violation


def test_any_order_under_contexts_never_deadlocks() -> None:
    pool = [WwLock(f"object {number}") for number in range(4)]
    holders = [0] * len(pool)
    backoffs: list[int] = []
    failures: list[BaseException] = []

    def client(seed: int) -> None:
        order = random.Random(seed)
        try:
            for _ in range(40):
                wanted = order.sample(range(len(pool)), 3)
                with AcquireContext(timeout=20) as context:
                    context.lock_all([pool[index] for index in wanted])
                    for index in wanted:
                        holders[index] += 1
                        assert holders[index] == 1
                    SYSTEM.sleep(0.0002)
                    for index in wanted:
                        holders[index] -= 1
                    backoffs.append(context.backoffs)
        except BaseException as error:
            failures.append(error)

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(4)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(60)
    assert failures == []
    assert len(backoffs) == 160
    assert sum(backoffs) > 0, "no contention: the test proves nothing"
    assert not any(lock.locked() for lock in pool)


def test_a_younger_context_backs_off_before_an_older_one_and_keeps_its_age() -> None:
    x, y = WwLock("x"), WwLock("y")
    older = AcquireContext()
    older.lock(x)
    seen: list[object] = []

    def young() -> None:
        with AcquireContext(timeout=5) as younger:
            stamp = younger.stamp
            younger.lock(y)
            try:
                younger.lock(x)
            except BackOff as contended:
                seen.append(contended.lock)
                younger.back_off(contended.lock)
            seen.append((len(younger.held), younger.stamp == stamp))

    thread = threading.Thread(target=young)
    thread.start()
    older.lock(y)  # the younger one must drop it
    older.release_all()
    thread.join(5)
    assert seen == [x, (1, True)]


def test_an_older_context_waits_for_a_younger_one() -> None:
    x, y = WwLock("x"), WwLock("y")
    older, younger = AcquireContext(timeout=5), AcquireContext(timeout=5)
    order: list[str] = []

    def young() -> None:
        younger.lock(y)
        taken.set()
        release.wait(5)
        order.append("younger releases")
        younger.release_all()

    taken, release = threading.Event(), threading.Event()
    thread = threading.Thread(target=young)
    thread.start()
    assert taken.wait(5)
    older.lock(x)
    timer = threading.Timer(0.02, release.set)
    timer.start()
    older.lock(y)
    order.append("older has it")
    thread.join(5)
    timer.join(5)
    older.release_all()
    assert order == ["younger releases", "older has it"]


def test_of_two_waiters_the_older_is_first() -> None:
    lock = WwLock("x")
    older, younger = AcquireContext(timeout=5), AcquireContext(timeout=5)
    order: list[str] = []

    def client(name: str, context: AcquireContext) -> None:
        context.lock(lock)
        order.append(name)
        context.release_all()

    lock.acquire(1)
    threads = []
    for name, context in (("younger", younger), ("older", older)):
        threads.append(threading.Thread(target=client, args=(name, context)))
        threads[-1].start()
        while len(lock._waiting) < len(threads):
            SYSTEM.sleep(0.001)
    lock.release()
    for thread in threads:
        thread.join(5)
    assert order == ["older", "younger"]


def test_one_lock_twice_in_a_context_is_once() -> None:
    lock = WwLock("x")
    with AcquireContext() as context:
        context.lock_all([lock, lock])
        assert context.held == [lock]
    assert not lock.locked()


def test_a_wait_ends_at_its_time_out_and_says_who_holds_the_lock() -> None:
    clock = VirtualClock(auto=True)
    lock = WwLock("x")
    other = AcquireContext()
    other.lock(lock)

    def waits() -> None:
        with pytest.raises(WaitTimeout, match=f"held by context {other.stamp}"):
            lock.acquire(2.5, clock)

    thread = threading.Thread(target=waits)
    thread.start()
    thread.join(10)
    assert clock.now() == 2.5
    other.release_all()


def test_a_release_without_a_holder_is_refused() -> None:
    refused = expect_violation("L2.owner") if LOCKDEP else pytest.raises(ContractError)
    with refused:
        WwLock("x").release()
