"""The same names with the validator off (rule L11): bare `threading` locks, and assertions that do nothing.

Imports `threading` and nothing else. `nvcore.testing.lockdep.checked` holds the other half.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nvcore.locks.reserve import Reserve
    from nvcore.locks.types import LockLike

__all__ = ["NOTHING"]


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
