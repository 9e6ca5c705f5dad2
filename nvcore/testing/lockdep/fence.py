"""Fences with the checks of their life (rule L9), and the list of those that others wait for.

Owns that list and the observers of publications. Any thread; holds no lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nvcore.api.marks import may_sleep, signalling_safe
from nvcore.locks import fence as plain
from nvcore.testing.lockdep.graph import show, trace
from nvcore.testing.lockdep.rules import broken

__all__ = ["Fence", "check_all_signalled", "publish_observers", "published_fences"]

_published: dict[int, Fence] = {}
"""Fences that others wait for, kept alive so that a forgotten one is still found."""

publish_observers: list[Callable[[Fence], object]] = []
"""Called at each publication, in the publishing thread: the freeze test's way in."""


class Fence(plain.Fence):
    """One promise, held to its word."""

    __slots__ = ("_after", "_fallible")

    @may_sleep
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._after: list[Fence] = []
        self._fallible = 0

    @contextmanager
    def may_fail(self, what: str) -> Iterator[None]:
        """The part of the job that can still fail: ending it after `publish`, or beginning it then, breaks L9.can-fail."""
        if self.state == "published":
            _broken("L9.can-fail", f"{what} of published fence {self.name}")
        self._fallible += 1
        try:
            yield
        finally:
            self._fallible -= 1

    def after(self, *others: plain.Fence) -> None:
        """Declare that this fence's job waits for `others` first. A cycle would wait for ever: L9.cycle."""
        for other in others:
            if not isinstance(other, Fence):
                continue
            if _reaches(other, self):
                _broken("L9.cycle", f"{self.name} waits for {other.name}, which waits for {self.name}")
            elif not other.signalled:
                self._after.append(other)

    def publish(self) -> None:
        """Let others wait for it; tells the observers."""
        if self._fallible:
            _broken("L9.can-fail", f"{self.name} is published inside may_fail")
        first = self.state == "unpublished"
        super().publish()
        if first:
            _published[id(self)] = self
            for observer in publish_observers:
                observer(self)

    @signalling_safe
    def signal(self, error: BaseException | None = None) -> None:
        """End the promise; nobody waits for it from here on."""
        self._after.clear()
        _published.pop(id(self), None)
        super().signal(error)

    def _refuse(self, detail: str) -> None:
        _broken("L9.twice", detail)


def _reaches(start: Fence, goal: Fence) -> bool:
    """Whether `start` is `goal` or waits for it."""
    seen = {id(start)}
    found = [start]
    for fence in found:
        if fence is goal:
            return True
        for other in fence._after:
            if id(other) not in seen:
                seen.add(id(other))
                found.append(other)
    return False


def published_fences() -> list[Fence]:
    """Fences that are published and not signalled, by name."""
    return sorted(_published.values(), key=lambda fence: fence.name)


def check_all_signalled() -> None:
    """L9 at the end of a test: no published fence may be left. Those found are dropped from the list, so that they are reported once."""
    left = published_fences()
    if left:
        _published.clear()
        _broken("L9.never-signalled", ", ".join(fence.name for fence in left))


def _broken(rule: str, detail: str) -> None:
    broken(rule, detail, now=show(trace(3)))
