"""A call that may hang: run in a daemon thread of its own, waited for, and abandoned with its name.

Owns nothing else. Used for observers and services only. A call that holds the interpreter lock for ever is beyond this and said to be so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from nvcore.plugins.loader import raised

if TYPE_CHECKING:
    from nvcore.api.clock import Clock

__all__ = ["LIMIT", "run_watched"]

LIMIT = 5.0
"""Seconds after which a call is abandoned."""


def run_watched(function: Callable[[], object], what: str, clock: Clock, limit: float = LIMIT) -> tuple[str, str] | None:
    """Run `function`; None when it returned, else (code, reason): NVC-1109 for one that hangs, NVC-1112 for one that raised."""
    done = threading.Event()
    outcome: list[str] = []

    def body() -> None:
        try:
            function()
        except (Exception, SystemExit) as error:
            outcome.append(f"{what} {raised(error)}")
        finally:
            done.set()

    thread = threading.Thread(target=body, name=f"nvcore-watched {what}", daemon=True)
    thread.start()
    if not clock.wait(done, limit):
        return "NVC-1109", f"{what} did not return within {limit:g} s and was abandoned in thread {thread.name!r}"
    return ("NVC-1112", outcome[0]) if outcome else None
