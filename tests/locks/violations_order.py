"""Rows of rules L1 to L7: classes, owners, orders, pseudo locks, sections, sleeping."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nvcore import locks
from nvcore.api.marks import may_sleep

from .violations import row


def pair(tag: str) -> tuple[Any, Any]:
    return locks.Lock(f"{tag}.a"), locks.Lock(f"{tag}.b")


# L1: classes, nesting, leaf locks, reservation locks


def recursive_lock_again(tag: str) -> None:
    lock = locks.RLock(f"{tag}.r")
    with lock, lock:
        pass


@row("L1.self", recursive_lock_again)
def lock_taken_again(tag: str) -> None:
    lock = locks.Lock(f"{tag}.a")
    with lock, lock:
        pass


def nested_with_subclass(tag: str) -> None:
    with locks.Lock(f"{tag}.a"), locks.Lock(f"{tag}.a", 1):
        pass


@row("L1.nesting", nested_with_subclass)
def two_of_one_class(tag: str) -> None:
    with locks.Lock(f"{tag}.a"), locks.Lock(f"{tag}.a"):
        pass


def leaf_under_lock(tag: str) -> None:
    with locks.Lock(f"{tag}.a"), locks.Lock(f"{tag}.leaf", leaf=True):
        pass


@row("L1.leaf", leaf_under_lock)
def lock_under_leaf(tag: str) -> None:
    with locks.Lock(f"{tag}.leaf", leaf=True), locks.Lock(f"{tag}.a"):
        pass


def reservations_under_context(tag: str) -> None:
    with locks.AcquireContext() as context:
        context.lock_all([locks.WwLock("x"), locks.WwLock("y")])


@row("L1.ww-context", reservations_under_context)
def reservations_without_context(tag: str) -> None:
    first, second = locks.WwLock("x"), locks.WwLock("y")
    first.acquire(1)
    try:
        second.acquire(1)
    finally:
        first.release()


def contexts_one_after_another(tag: str) -> None:
    for _ in range(2):
        reservations_under_context(tag)


@row("L1.ww-two-contexts", contexts_one_after_another)
def context_in_context(tag: str) -> None:
    with locks.AcquireContext(), locks.AcquireContext():
        pass


# L2: owners


def released_by_holder(tag: str) -> None:
    lock = locks.Lock(f"{tag}.a")
    task = locks.task_stack("task")
    with task:
        lock.acquire()
    with task:
        lock.release()


@row("L2.owner", released_by_holder)
def task_releases_the_thread_s_lock(tag: str) -> None:
    lock = locks.Lock(f"{tag}.a")
    with lock, locks.task_stack("task"):
        lock.release()


# L3: orders


def one_order(tag: str) -> None:
    a, b = pair(tag)
    for _ in range(2):
        with a, b:
            pass


@row("L3.cycle", one_order)
def inversion(tag: str) -> None:
    a, b = pair(tag)
    with a, b:
        pass
    with b, a:
        pass


def chain_in_order(tag: str) -> None:
    a, b = pair(tag)
    c = locks.Lock(f"{tag}.c")
    with a, b:
        pass
    with b, c:
        pass
    with a, c:
        pass


@row("L3.cycle", chain_in_order)
def inversion_over_three(tag: str) -> None:
    a, b = pair(tag)
    c = locks.Lock(f"{tag}.c")
    with a, b:
        pass
    with b, c:
        pass
    with c, a:
        pass


def as_declared(tag: str) -> None:
    locks.declare_order(f"{tag}.a", f"{tag}.b")
    a, b = pair(tag)
    with a, b:
        pass


@row("L3.cycle", as_declared)
def against_declared_order(tag: str) -> None:
    locks.declare_order(f"{tag}.a", f"{tag}.b")
    a, b = pair(tag)
    with b, a:
        pass


def waited_for_without_lock(tag: str) -> None:
    a = locks.Lock(f"{tag}.a")
    locks.might_wait()
    with locks.signalling(), a:
        pass


@row("L3.cycle", waited_for_without_lock)
def lock_over_wait_and_in_path(tag: str) -> None:
    a = locks.Lock(f"{tag}.a")
    with a:
        locks.might_wait()
    with locks.signalling(), a:
        pass


def allocated_without_lock(tag: str) -> None:
    a = locks.Lock(f"{tag}.a")
    locks.allocate("table")
    with locks.signalling(), a:
        pass


@row("L3.cycle", allocated_without_lock)
def lock_over_allocation_and_in_path(tag: str) -> None:
    a = locks.Lock(f"{tag}.a")
    with a:
        locks.allocate("table")
    with locks.signalling(), a:
        pass


def held_at_entry_of_path(tag: str) -> None:
    a = locks.Lock(f"{tag}.a")
    with a, locks.signalling():
        pass
    with a:
        locks.might_wait()


@row("L3.cycle", held_at_entry_of_path)
def in_path_first_then_over_wait(tag: str) -> None:
    a = locks.Lock(f"{tag}.a")
    with locks.signalling(), a:
        pass
    with a:
        locks.might_wait()


# L4: pseudo locks


@contextmanager
def reservation() -> Iterator[None]:
    """A reservation lock, held."""
    lock = locks.WwLock("x")
    lock.acquire(1)
    try:
        yield
    finally:
        lock.release()


def copy_before_reservation(tag: str) -> None:
    locks.user_copy()
    with reservation():
        pass


@row("L4.pseudo", copy_before_reservation)
def copy_under_reservation(tag: str) -> None:
    with reservation():
        locks.user_copy()


def copy_outside_path(tag: str) -> None:
    locks.user_copy()
    with locks.signalling():
        pass


@row("L4.pseudo", copy_outside_path)
def copy_in_path(tag: str) -> None:
    with locks.signalling():
        locks.user_copy()


def mmap_before_reservation(tag: str) -> None:
    locks.mmap_lock()
    copy_before_reservation(tag)


@row("L4.pseudo", mmap_before_reservation)
def mmap_under_reservation(tag: str) -> None:
    with reservation():
        locks.mmap_lock()


# L5: the primed order


def wait_under_reservation(tag: str) -> None:
    with reservation():
        locks.allocate("shared fence list")
        locks.might_wait()


@row("L5.reservation-in-path", wait_under_reservation)
def reservation_in_path(tag: str) -> None:
    with locks.signalling(), reservation():
        pass


# L6: sections


def path_in_path(tag: str) -> None:
    with locks.signalling(), locks.signalling():
        pass
    cookie = locks.begin_signalling()
    inner = locks.begin_signalling()
    locks.end_signalling(inner)
    locks.end_signalling(cookie)
    locks.might_wait()


@row("L6.wait-in-path", path_in_path)
def wait_in_outer_path_after_inner_end(tag: str) -> None:
    with locks.signalling():
        with locks.signalling():
            pass
        locks.might_wait()


def waits_for_another_outside_path(tag: str) -> None:
    fence = locks.Fence(tag)
    fence.publish()
    fence.signal()
    assert fence.wait(1)


@row("L6.wait-in-path", waits_for_another_outside_path)
def callback_waits_for_a_fence(tag: str) -> None:
    fence, other = locks.Fence(tag), locks.Fence(tag)
    fence.add_callback(lambda _: other.wait(0))
    fence.signal()


@row("L6.unbalanced", path_in_path)
def inner_end_first(tag: str) -> None:
    outer = locks.begin_signalling()
    inner = locks.begin_signalling()
    try:
        locks.end_signalling(outer)
    finally:
        locks.end_signalling(inner)
        locks.end_signalling(outer)


@row("L6.unbalanced", lambda tag: leaf_in_atomic(tag))
def atomic_left_but_not_entered(tag: str) -> None:
    locks.atomic().__exit__(None, None, None)


# L7: assertions, sleeping


@may_sleep
def call_firmware() -> None:
    """A method of the API that may sleep."""


def sleeps_in_the_open(tag: str) -> None:
    call_firmware()
    with locks.Lock(f"{tag}.a"):
        call_firmware()


@row("L7.sleep", sleeps_in_the_open)
def might_sleep_in_atomic(tag: str) -> None:
    with locks.atomic():
        call_firmware()


@row("L7.sleep", sleeps_in_the_open)
def might_sleep_in_path(tag: str) -> None:
    with locks.signalling():
        call_firmware()


@row("L7.sleep", sleeps_in_the_open)
def leaf_lock_over_might_sleep(tag: str) -> None:
    with locks.Lock(f"{tag}.leaf", leaf=True):
        call_firmware()


@row("L7.sleep", allocated_without_lock)
def leaf_lock_over_allocation(tag: str) -> None:
    with locks.Lock(f"{tag}.leaf", leaf=True):
        locks.allocate("table")


@row("L7.sleep", waits_for_another_outside_path)
def leaf_lock_over_wait(tag: str) -> None:
    with locks.Lock(f"{tag}.leaf", leaf=True):
        locks.might_wait()


def leaf_in_atomic(tag: str) -> None:
    with locks.atomic(), locks.Lock(f"{tag}.leaf", leaf=True):
        pass
    lock = locks.Lock(f"{tag}.a")
    with locks.atomic():
        assert lock.acquire(blocking=False)
        lock.release()


@row("L7.sleep", leaf_in_atomic)
def sleeping_lock_in_atomic(tag: str) -> None:
    with locks.atomic(), locks.Lock(f"{tag}.a"):
        pass


@row("L7.sleep", waits_for_another_outside_path)
def wait_in_atomic(tag: str) -> None:
    with locks.atomic():
        locks.might_wait()


@row("L7.sleep", copy_before_reservation)
def copy_in_atomic(tag: str) -> None:
    with locks.atomic():
        locks.user_copy()


def asserted_while_held(tag: str) -> None:
    lock = locks.Lock(f"{tag}.a")
    with lock:
        locks.assert_held(lock)


@row("L7.not-held", asserted_while_held)
def asserted_but_another_instance_is_held(tag: str) -> None:
    lock, other = locks.Lock(f"{tag}.a"), locks.Lock(f"{tag}.a")
    with other:
        locks.assert_held(lock)


def nothing_held(tag: str) -> None:
    with locks.Lock(f"{tag}.a"):
        pass
    locks.assert_none_held()


@row("L7.held", nothing_held)
def held_before_waiting_for_the_user(tag: str) -> None:
    with locks.Lock(f"{tag}.a"):
        locks.assert_none_held()
