"""The shape of a lock, for annotations. Owns nothing at run time."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

__all__ = ["LockLike"]


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
