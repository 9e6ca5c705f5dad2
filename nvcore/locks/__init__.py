"""Named locks, signalling sections, fences, and the switch that has a validator check their order in tests.

With the environment's `NVCORE_LOCKDEP=1` every lock and section is checked (rules L1 to L9 of `nvcore.testing.lockdep`) and a broken rule
raises; with `log` it is logged once; otherwise `Lock()` is a bare `threading.Lock()` and the assertions do nothing. One switch, decided at
import: what is defined here is the half without the validator, `nvcore.testing.lockdep.checked` replaces it. Locks that are many together
(`WwLock`), fences and reserves are imported on use. The library starts no thread of its own and knows no state of the core. Any thread may
use it.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

from nvcore.api.marks import LOCKDEP

if TYPE_CHECKING:
    from nvcore.locks.fence import Fence
    from nvcore.locks.reserve import Reserve
    from nvcore.locks.ww import AcquireContext, BackOff, WwLock

__all__ = [
    "LOCKDEP", "NOTHING", "AcquireContext", "BackOff", "Fence", "Lock", "LockLike", "RLock", "Reserve", "WwLock", "allocate", "assert_held",
    "assert_none_held", "atomic", "begin_signalling", "counting", "declare_order", "end_signalling", "eventfd", "live_threads", "log_gate",
    "memfd", "might_sleep", "might_wait", "mmap_lock", "open_fd", "refuse_in_path", "signalling", "start_thread", "task_stack", "user_copy",
]  # fmt: skip

# A section that nobody checks.
NOTHING: Final = nullcontext()


class LockLike(Protocol):
    """What `Lock` and `RLock` return: a plain `threading` lock with the validator off, a checked one with it on."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; False when `blocking` is false or `timeout` seconds passed."""

    def release(self) -> None:
        """Give it back."""

    def __enter__(self) -> bool:
        """Take it."""

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /) -> None:
        """Give it back."""


if TYPE_CHECKING or LOCKDEP:
    from nvcore.testing.lockdep.checked import *  # noqa: F403
else:

    def Lock(class_name: str, subclass: int = 0, *, leaf: bool = False) -> LockLike:
        """A bare `threading.Lock`; the class matters to the validator only."""
        return threading.Lock()

    def RLock(class_name: str, subclass: int = 0, *, leaf: bool = False) -> LockLike:
        """A bare `threading.RLock`."""
        return threading.RLock()

    def allocate(what: str, reserve: Reserve | None = None) -> None:
        """Count a draw on an explicit reserve."""
        if reserve is not None:
            reserve.draw(what)

    def _unchecked(*about: object, **more: object) -> nullcontext[None]:
        """A word for the validator, which is off, or a section that nobody checks."""
        return NOTHING

    signalling = atomic = counting = task_stack = begin_signalling = end_signalling = _unchecked
    might_sleep = might_wait = user_copy = mmap_lock = refuse_in_path = assert_held = assert_none_held = declare_order = _unchecked

from nvcore.locks.primitives import eventfd, live_threads, log_gate, memfd, open_fd, start_thread  # noqa: E402  # they ask the half in force

_ROOM = "nvcore.testing.lockdep" if LOCKDEP else "nvcore.locks"
_ON_USE: Final = {
    **dict.fromkeys(("AcquireContext", "BackOff", "WwLock"), f"{_ROOM}.ww"),
    "Fence": f"{_ROOM}.fence", "Reserve": f"{_ROOM}.reserve",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module 'nvcore.locks' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_ON_USE[name]), name)
    return value
