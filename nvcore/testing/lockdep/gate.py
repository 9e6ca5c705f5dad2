"""The allocation gate (rule L8): what nvcore's allocating primitives ask first, and the audit hook for what asks nobody.

Imports, opened files and sockets raise audit events; threads, other descriptors and logging go through `allocate`. Installs one audit hook
in the process, for ever (Python cannot remove one): its cost outside of sections is one set lookup per event.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from nvcore.locks.reserve import Reserve
from nvcore.testing.lockdep.graph import RECLAIM, show, trace
from nvcore.testing.lockdep.reserve import starved
from nvcore.testing.lockdep.rules import broken
from nvcore.testing.lockdep.stack import current, existing, own_work, touch

__all__ = ["allocate", "refuse_in_path"]

_WATCHED: Final = {"import": "L8.import", "open": "L8.open", "socket.__new__": "L8.open"}


def allocate(what: str, reserve: Reserve | None = None) -> None:
    """Say that memory, a descriptor or a thread is made here.

    In a signalling or atomic section one is drawn from `reserve`, or from the reserve that is entered; without either the rule is broken.
    Elsewhere it counts as an allocation that may enter reclaim: the locks held now must never be taken in the signalling path.
    """
    stack = current()
    if reserve is None:
        reserve = stack.reserve
    if reserve is not None:
        reserve.draw(what)
    elif starved:
        raise MemoryError(f"{what}: every allocator fails (freeze test)")
    elif stack.signalling or stack.atomic:
        broken("L8.allocation", f"{what} in {stack.name}", now=show(trace(2)))
    else:
        touch(RECLAIM)


def refuse_in_path(what: str) -> None:
    """As `allocate` for what no reserve can hold: logging."""
    stack = current()
    if stack.signalling or stack.atomic:
        if not stack.reporting:
            broken("L8.allocation", f"{what} in {stack.name}", now=show(trace(2)))
    else:
        touch(RECLAIM)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    rule = _WATCHED.get(event)
    if rule is None:
        return
    stack = existing()
    if stack is None or stack.reporting or not (stack.signalling or stack.atomic):
        return
    if stack.reserve is None or event == "import":  # nvcore's primitives have drawn on the reserve; nothing reserves an import
        with own_work():  # a report may itself format, and in production log
            broken(rule, f"{event} {args[0]!r} in {stack.name}" if args else event, now=show(trace(2)))


sys.addaudithook(_audit)
