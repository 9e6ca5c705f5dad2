"""Marks: what a method may do, written in its signature and checked by the lock validator.

`may_sleep`: may block, allocate, call the firmware; never inside a signalling section and never on a receiver thread.
`signalling_safe`: may run inside a signalling section: allocates only from reserves, takes leaf locks only, cannot fail.
`interrupt_safe`: may run on a receiver thread: as signalling_safe, and takes no lock that a sender holds across a wait.

A mark is a plain attribute; on a class it is that of every public method that has none of its own. With the validator switched on at
import (environment `NVCORE_LOCKDEP=1`) a mark also wraps the function, so that it is held to its word: `may_sleep` checks where it is
called, `signalling_safe` runs it in a signalling section, `interrupt_safe` in an atomic one. `follows` gives an implementation the marks
of its contract. Otherwise calls cost nothing extra.

Every method of a contract is marked, but for hooks (wiring, on the main thread), `Clock` (a bounded wait is legal in a signalling section,
which no mark says) and `CommandIO` and `Command` (they run without a host). A property is read at once, under leaf locks at most, and bears
no mark, but for one whose getter is marked. tests/api holds the list.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

__all__ = ["LOCKDEP", "follows", "interrupt_safe", "mark_of", "may_sleep", "signalling_safe"]

_F = TypeVar("_F", bound=Callable[..., Any])

# Whether the lock validator is on in this process (decided once, at import).
LOCKDEP: Final = os.environ.get("NVCORE_LOCKDEP", "") not in ("", "0")


def may_sleep(function: _F) -> _F:
    """Mark a method that may block, allocate or call the firmware."""
    return _marked(function, "may_sleep")


def signalling_safe(function: _F) -> _F:
    """Mark a method that may run between a fence's publication and its signal."""
    return _marked(function, "signalling_safe")


def interrupt_safe(function: _F) -> _F:
    """Mark a method that may run on a receiver thread."""
    return _marked(function, "interrupt_safe")


def _marked(function: _F, mark: str) -> _F:
    if isinstance(function, type):
        for name, method in list(vars(function).items()):
            if callable(method) and not name.startswith("_") and mark_of(method) is None:
                setattr(function, name, _marked(method, mark))
        return function
    if LOCKDEP:
        from nvcore.testing.lockdep.marks import held_to_its_word

        function = cast(_F, held_to_its_word(function, mark))
    function.__nvcore_mark__ = mark  # type: ignore[attr-defined]
    return function


def mark_of(function: object) -> str | None:
    """The mark of a function or method, or None."""
    mark = getattr(function, "__nvcore_mark__", None)
    return mark if isinstance(mark, str) else None


def follows(*contracts: type) -> Callable[[_F], _F]:
    """Class decorator: methods defined in the class get the marks that their contracts give them, unless they carry one of their own."""
    def apply(cls: _F) -> _F:
        for contract in contracts:
            for name, promised in vars(contract).items():
                mark, method = mark_of(promised), vars(cls).get(name)
                if mark is not None and callable(method) and mark_of(method) is None:
                    setattr(cls, name, _marked(method, mark))
        return cls

    return apply
