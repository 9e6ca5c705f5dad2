"""nvcore's own allocating primitives: descriptors, threads and logging, each through the allocation gate (rule L8).

Owns nothing: `threading` knows the threads that were started here. Whatever in nvcore makes a descriptor or a thread makes it with these,
so that the validator sees it; with the validator off they add one function call. Any thread may call them, outside of signalling sections.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from nvcore.locks import allocate, refuse_in_path

__all__ = ["eventfd", "live_threads", "log_gate", "memfd", "open_fd", "start_thread"]


def open_fd(path: str | os.PathLike[str], flags: int, mode: int = 0o600, *, dir_fd: int | None = None) -> int:
    """As `os.open`, always close-on-exec. The caller owns the descriptor. Raises OSError."""
    allocate(f"descriptor of {os.fspath(path)}")
    return os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=dir_fd)


def memfd(name: str, flags: int = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING) -> int:
    """As `os.memfd_create`; sealable unless told otherwise. The caller owns the descriptor. Raises OSError."""
    allocate(f"memfd {name}")
    return os.memfd_create(name, flags)


def eventfd(initial: int = 0, flags: int = os.EFD_CLOEXEC | os.EFD_NONBLOCK) -> int:
    """As `os.eventfd`, non-blocking unless told otherwise. The caller owns the descriptor. Raises OSError."""
    allocate("eventfd")
    return os.eventfd(initial, flags)


class _Thread(threading.Thread):
    """A thread that was started here."""


def start_thread(name: str, target: Callable[[], object], daemon: bool = True) -> threading.Thread:
    """Start a named thread. It stands in `live_threads()` until it has ended."""
    allocate(f"thread {name}")
    thread = _Thread(target=target, name=name, daemon=daemon)
    thread.start()
    return thread


def live_threads() -> list[threading.Thread]:
    """Threads of `start_thread` that still run, by name."""
    return sorted((thread for thread in threading.enumerate() if isinstance(thread, _Thread)), key=lambda thread: thread.name)


def log_gate(record: object) -> bool:
    """A filter for `logging` handlers and loggers: `handler.addFilter(log_gate)`. Logging in a signalling section breaks L8.allocation."""
    refuse_in_path("a log record")
    return True
