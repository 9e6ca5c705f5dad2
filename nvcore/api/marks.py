"""Marks: what a method may do, written in its signature and checked by the lock validator.

`may_sleep`: may block, allocate, call the firmware; never inside a signalling section and never on a receiver thread.
`signalling_safe`: may run inside a signalling section: allocates only from reserves, takes leaf locks only, cannot fail.
`interrupt_safe`: may run on a receiver thread: as signalling_safe, and takes no lock that a sender holds across a wait.

A mark is a plain attribute. With the validator switched on at import (environment `NVCORE_LOCKDEP=1`) `may_sleep` also wraps the function
with a check; otherwise calls cost nothing extra.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

__all__ = ["LOCKDEP", "interrupt_safe", "mark_of", "may_sleep", "signalling_safe"]

_F = TypeVar("_F", bound=Callable[..., Any])

LOCKDEP: Final = os.environ.get("NVCORE_LOCKDEP", "") not in ("", "0")
"""Whether the lock validator is on in this process (decided once, at import)."""


def may_sleep(function: _F) -> _F:
    """Mark a method that may block, allocate or call the firmware."""
    if LOCKDEP:
        from functools import wraps

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            from nvcore.locks import might_sleep

            might_sleep(function.__qualname__)
            return function(*args, **kwargs)

        checked.__nvcore_mark__ = "may_sleep"  # type: ignore[attr-defined]
        return cast(_F, checked)
    function.__nvcore_mark__ = "may_sleep"  # type: ignore[attr-defined]
    return function


def signalling_safe(function: _F) -> _F:
    """Mark a method that may run between a fence's publication and its signal."""
    function.__nvcore_mark__ = "signalling_safe"  # type: ignore[attr-defined]
    return function


def interrupt_safe(function: _F) -> _F:
    """Mark a method that may run on a receiver thread."""
    function.__nvcore_mark__ = "interrupt_safe"  # type: ignore[attr-defined]
    return function


def mark_of(function: object) -> str | None:
    """The mark of a function or method, or None."""
    mark = getattr(function, "__nvcore_mark__", None)
    return mark if isinstance(mark, str) else None
