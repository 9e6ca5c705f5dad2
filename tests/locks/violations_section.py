"""Rows of rules L8 and L9: what may be had in a signalling section, and the life of a fence."""

from __future__ import annotations

import colorsys
import logging
import os
import socket
import sys
import threading

from nvcore import locks

from .violations import row

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
