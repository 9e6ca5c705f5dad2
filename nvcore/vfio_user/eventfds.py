"""Eventfds that somebody else made and still holds: what they are, and counting in them without ever waiting.

Owns nothing. Any thread. Source: eventfd(2); Linux fs/eventfd.c; proc_pid_fd(5).
"""

from __future__ import annotations

import contextlib
import os
import select

__all__ = ["add_one", "is_eventfd"]


def is_eventfd(fd: int) -> bool:
    """Whether `fd` is an eventfd. Raises OSError where /proc cannot tell."""
    return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]"  # what has a path begins with a slash, so no file can pose as one


def add_one(fd: int) -> None:
    """Add 1. A full eventfd is left as it is: its reader has not seen the ones before, and will not miss this one.

    O_NONBLOCK belongs to the open file, which the other side holds too and may have cleared, or never set: so room is looked for first
    (a client that fills a blocking one between these two calls waits for an answer of its own making). Setting it here would break a reader
    that waits in read(2).
    """
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if any(events & select.POLLOUT for _, events in poll.poll(0)):
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(fd, 1)
