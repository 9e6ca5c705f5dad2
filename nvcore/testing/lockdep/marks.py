"""Marks with the validator on: a marked function is held to its word at every call.

Owns nothing; `nvcore.api.marks` asks for it where a mark is made. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

__all__ = ["held_to_its_word"]


def held_to_its_word(function: Callable[..., Any], mark: str) -> Callable[..., Any]:
    """The function, which then may be called only where its mark allows, and runs in the section that its mark promises to bear."""

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        from nvcore import locks  # whose classes bear marks themselves

        if mark == "may_sleep":
            locks.might_sleep(function.__qualname__)
            return function(*args, **kwargs)
        with locks.signalling() if mark == "signalling_safe" else locks.atomic():
            return function(*args, **kwargs)

    return checked
