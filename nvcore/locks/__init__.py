"""Named locks, signalling sections, fences, and the switch that has a validator check their order in tests.

With the environment's `NVCORE_LOCKDEP=1` every lock and section is checked (rules L1 to L9 of `nvcore.testing.lockdep`) and a broken rule
raises; with `log` it is logged once; otherwise `Lock()` is a bare `threading.Lock()` and the assertions do nothing. One switch, decided at
import. Locks that are many together (`WwLock`), fences and reserves are imported on use. The library starts no thread of its own and knows
no state of the core. Any thread may use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvcore.api.marks import LOCKDEP

if LOCKDEP and not TYPE_CHECKING:
    from nvcore.testing.lockdep.checked import *  # noqa: F403
else:
    from nvcore.locks.plain import (
        Lock,
        RLock,
        allocate,
        assert_held,
        assert_none_held,
        atomic,
        begin_signalling,
        counting,
        declare_order,
        end_signalling,
        might_sleep,
        might_wait,
        mmap_lock,
        refuse_in_path,
        signalling,
        task_stack,
        user_copy,
    )

from nvcore.locks.primitives import duplicate_fd, eventfd, live_threads, log_gate, memfd, open_fd, start_thread

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
