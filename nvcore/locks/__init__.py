"""Named locks, signalling sections, fences, and the switch that has a validator check their order in tests.

With the environment's `NVCORE_LOCKDEP=1` every lock and section is checked (rules L1 to L9 of `nvcore.testing.lockdep`) and a broken rule
raises; with `log` it is logged once; otherwise `Lock()` is a bare `threading.Lock()` and the assertions do nothing. One switch, decided at
import: what is defined here is the half without the validator, `nvcore.testing.lockdep.checked` replaces it. Locks that are many together
(`WwLock`), fences and reserves are imported on use. The library starts no thread of its own and knows no state of the core. Any thread may
use it.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from nvcore.api.marks import LOCKDEP

if TYPE_CHECKING:
    from nvcore.locks.condition import Condition
    from nvcore.locks.fence import Fence, Timeline
    from nvcore.locks.reserve import Reserve
    from nvcore.locks.types import LockLike
    from nvcore.locks.ww import AcquireContext, BackOff, WwLock
    from nvcore.testing.lockdep.rules import RULES, RuleBroken

__all__ = [
    "LOCKDEP", "RULES", "AcquireContext", "BackOff", "Condition", "Fence", "Lock", "LockLike", "RLock", "Reserve", "RuleBroken", "Timeline",
    "WwLock", "allocate", "assert_held", "assert_none_held", "atomic", "begin_signalling", "counting", "declare_order", "duplicate_fd",
    "end_signalling", "eventfd", "live_threads", "log_gate", "memfd", "might_sleep", "might_wait", "mmap_lock", "open_fd", "refuse_in_path",
    "signalling", "start_thread", "task_stack", "user_copy",
]  # fmt: skip


class _Nothing:
    """A context manager that does nothing."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        return None


NOTHING: Final = _Nothing()
"""A section that nobody checks."""


def Lock(class_name: str, subclass: int = 0, *, leaf: bool = False) -> LockLike:
    """A bare `threading.Lock`; the class matters to the validator only."""
    return threading.Lock()


def RLock(class_name: str, subclass: int = 0, *, leaf: bool = False) -> LockLike:
    """A bare `threading.RLock`."""
    return threading.RLock()


def signalling() -> _Nothing:
    """The code between a fence's publication and its signal."""
    return NOTHING


def atomic() -> _Nothing:
    """Code that must not sleep."""
    return NOTHING


def counting() -> _Nothing:
    """Descriptors and threads are counted by the validator only."""
    return NOTHING


def task_stack(name: str) -> _Nothing:
    """A task's own stack of held locks."""
    return NOTHING


def begin_signalling() -> bool:
    """As `signalling()`, by hand."""
    return False


def end_signalling(cookie: bool) -> None:
    """The end of `begin_signalling`."""


def allocate(what: str, reserve: Reserve | None = None) -> None:
    """Count a draw on an explicit reserve."""
    if reserve is not None:
        reserve.draw(what)


def refuse_in_path(what: str) -> None:
    """Checked by the validator only."""


def might_sleep(where: str) -> None:
    """Checked by the validator only."""


def might_wait(what: str = "a fence") -> None:
    """Checked by the validator only."""


def user_copy(what: str = "client memory") -> None:
    """Checked by the validator only."""


def mmap_lock(what: str = "a client's memory map") -> None:
    """Checked by the validator only."""


def assert_held(lock: object) -> None:
    """Checked by the validator only."""


def assert_none_held(where: str = "here") -> None:
    """Checked by the validator only."""


def declare_order(*names: str) -> None:
    """Checked by the validator only."""


if LOCKDEP and not TYPE_CHECKING:
    from nvcore.testing.lockdep.checked import *  # noqa: F403

from nvcore.locks.primitives import duplicate_fd, eventfd, live_threads, log_gate, memfd, open_fd, start_thread  # noqa: E402  # they ask the half in force

_ROOM = "nvcore.testing.lockdep" if LOCKDEP else "nvcore.locks"
_ON_USE = {
    "AcquireContext": f"{_ROOM}.ww",
    "BackOff": "nvcore.locks.ww",
    "Condition": "nvcore.locks.condition",
    "Fence": f"{_ROOM}.fence",
    "LockLike": "nvcore.locks.types",
    "RULES": "nvcore.testing.lockdep.rules",
    "Reserve": f"{_ROOM}.reserve",
    "RuleBroken": "nvcore.testing.lockdep.rules",
    "Timeline": f"{_ROOM}.fence",
    "WwLock": f"{_ROOM}.ww",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module 'nvcore.locks' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_ON_USE[name]), name)
    return value
