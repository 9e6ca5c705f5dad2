"""The table of the validator's self-test (rule L10): each way to break a rule, beside the correct code that must stay silent.

Every row makes its own locks, classes and fences, so that one graph serves no two rows.
"""

from __future__ import annotations

import colorsys
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from nvcore import locks
from nvcore.api.marks import may_sleep

TABLE: list[tuple[str, str, Callable[[str], object], Callable[[str], object]]] = []
"""(name, rule, the violation, its correct twin)."""

Row = Callable[[str], object]


def row(rule: str, twin: Row) -> Callable[[Row], Row]:
    def add(violation: Row) -> Row:
        TABLE.append((violation.__name__, rule, violation, twin))
        return violation

    return add


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


def copy_before_reservation(tag: str) -> None:
    locks.user_copy()
    lock = locks.WwLock("x")
    lock.acquire(1)
    lock.release()


@row("L4.pseudo", copy_before_reservation)
def copy_under_reservation(tag: str) -> None:
    lock = locks.WwLock("x")
    lock.acquire(1)
    try:
        locks.user_copy()
    finally:
        lock.release()


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
    lock = locks.WwLock("x")
    lock.acquire(1)
    try:
        locks.mmap_lock()
    finally:
        lock.release()


# L5: the primed order


def wait_under_reservation(tag: str) -> None:
    lock = locks.WwLock("x")
    lock.acquire(1)
    locks.allocate("shared fence list")
    locks.might_wait()
    lock.release()


@row("L5.reservation-in-path", wait_under_reservation)
def reservation_in_path(tag: str) -> None:
    lock = locks.WwLock("x")
    with locks.signalling():
        lock.acquire(1)
        lock.release()


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


# L8: the allocation gate


def reserve_of_one(tag: str) -> None:
    reserve = locks.Reserve(1)
    with locks.signalling():
        locks.allocate("table", reserve)
    assert reserve.close(exact=True) == 0


@row("L8.allocation", reserve_of_one)
def allocation_in_path(tag: str) -> None:
    with locks.signalling():
        locks.allocate("table")


@row("L8.allocation", reserve_of_one)
def allocation_in_atomic(tag: str) -> None:
    with locks.atomic():
        locks.allocate("table")


@row("L8.over-use", reserve_of_one)
def more_than_reserved(tag: str) -> None:
    reserve = locks.Reserve(1)
    with locks.signalling():
        locks.allocate("table", reserve)
        locks.allocate("table", reserve)


@row("L8.under-use", reserve_of_one)
def less_than_reserved(tag: str) -> None:
    locks.Reserve(2).close(exact=True)


def descriptors_before_path(tag: str) -> None:
    made = [locks.eventfd(), locks.memfd(tag), locks.open_fd(os.devnull, os.O_RDONLY)]
    with locks.signalling():
        for fd in made:
            os.close(fd)


@row("L8.allocation", descriptors_before_path)
def eventfd_in_path(tag: str) -> None:
    with locks.signalling():
        os.close(locks.eventfd())


@row("L8.allocation", descriptors_before_path)
def memfd_in_path(tag: str) -> None:
    with locks.signalling():
        os.close(locks.memfd(tag))


@row("L8.allocation", descriptors_before_path)
def open_fd_in_path(tag: str) -> None:
    with locks.signalling():
        os.close(locks.open_fd(os.devnull, os.O_RDONLY))


def descriptor_from_reserve(tag: str) -> None:
    reserve = locks.Reserve(1)
    with reserve, locks.signalling():
        os.close(locks.open_fd(os.devnull, os.O_RDONLY))
    assert reserve.close(exact=True) == 0


@row("L8.count", descriptor_from_reserve)
def bare_descriptor_in_path(tag: str) -> None:
    with locks.counting():
        cookie = locks.begin_signalling()
        fd = os.eventfd(0)
        try:
            locks.end_signalling(cookie)
        finally:
            os.close(fd)


def thread_before_path(tag: str) -> None:
    thread = locks.start_thread(tag, int)
    with locks.signalling():
        thread.join(5)


@row("L8.allocation", thread_before_path)
def thread_in_path(tag: str) -> None:
    with locks.signalling():
        locks.start_thread(tag, int)


@row("L8.count", thread_before_path)
def bare_thread_in_path(tag: str) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, args=(5,))
    with locks.counting():
        cookie = locks.begin_signalling()
        thread.start()
        try:
            locks.end_signalling(cookie)
        finally:
            end.set()
            thread.join()


def import_before_path(tag: str) -> None:
    with locks.signalling():
        import colorsys as again

        assert again is colorsys


@row("L8.import", import_before_path)
def import_in_path(tag: str) -> None:
    sys.modules.pop("this_module_is_not_loaded", None)
    with locks.signalling():
        import this_module_is_not_loaded  # type: ignore[import-not-found]  # noqa: F401


@row("L8.import", import_before_path)
def import_in_path_despite_a_reserve(tag: str) -> None:
    with locks.Reserve(5), locks.signalling():
        import this_module_is_not_loaded  # noqa: F401


def file_before_path(tag: str) -> None:
    with open(os.devnull, "w", encoding="ascii") as file, locks.signalling():
        file.write("x")


@row("L8.open", file_before_path)
def file_in_path(tag: str) -> None:
    with locks.signalling(), open(os.devnull, encoding="ascii"):
        pass


@row("L8.open", file_before_path)
def socket_in_path(tag: str) -> None:
    with locks.signalling():
        socket.socket().close()


def log_before_path(tag: str) -> None:
    logger(tag).warning("here")
    with locks.signalling():
        pass


@row("L8.allocation", log_before_path)
def log_in_path(tag: str) -> None:
    with locks.signalling():
        logger(tag).warning("here")


def logger(tag: str) -> logging.Logger:
    log = logging.Logger(tag)
    log.addHandler(logging.NullHandler())
    log.addFilter(locks.log_gate)
    return log


# L9: the life of a fence


def signalled_once(tag: str) -> None:
    fence = locks.Fence(tag)
    with fence.may_fail("prepare"):
        pass
    fence.publish()
    with locks.signalling():
        fence.signal()


@row("L9.twice", signalled_once)
def double_signal(tag: str) -> None:
    fence = locks.Fence(tag)
    fence.publish()
    fence.signal()
    fence.signal()


@row("L9.twice", signalled_once)
def double_publish(tag: str) -> None:
    fence = locks.Fence(tag)
    fence.publish()
    try:
        fence.publish()
    finally:
        fence.signal()


@row("L9.can-fail", signalled_once)
def published_while_it_can_fail(tag: str) -> None:
    fence = locks.Fence(tag)
    with fence.may_fail("prepare"):
        fence.publish()


@row("L9.can-fail", signalled_once)
def job_that_can_fail_after_publication(tag: str) -> None:
    fence = locks.Fence(tag)
    fence.publish()
    try:
        with fence.may_fail("late look-up"):
            pass
    finally:
        fence.signal()


def never_signalled_but_never_published(tag: str) -> None:
    from nvcore.testing.lockdep.fence import check_all_signalled

    locks.Fence(tag)
    signalled_once(tag)
    check_all_signalled()


@row("L9.never-signalled", never_signalled_but_never_published)
def never_signalled(tag: str) -> None:
    from nvcore.testing.lockdep.fence import check_all_signalled

    locks.Fence(tag).publish()
    check_all_signalled()


def line_of_waits(tag: str) -> None:
    first, second, third = (locks.Fence(f"{tag}{number}") for number in range(3))
    second.after(first)
    third.after(first, second)


@row("L9.cycle", line_of_waits)
def cycle_of_waits(tag: str) -> None:
    first, second, third = (locks.Fence(f"{tag}{number}") for number in range(3))
    second.after(first)
    third.after(second)
    first.after(third)


def jobs_in_order(tag: str) -> None:
    first, other, second = (locks.Fence(f"{tag}{number}") for number in range(3))
    second.after(first)
    other.after(first)
    second.after(other)


@row("L9.cycle", jobs_in_order)
def waits_for_the_job_behind_it(tag: str) -> None:
    first, second = locks.Fence(f"{tag}1"), locks.Fence(f"{tag}2")
    second.after(first)
    first.after(second)
