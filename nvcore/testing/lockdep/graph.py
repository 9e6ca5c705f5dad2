"""Lock classes and the order in which they were seen: the graph whose cycles are deadlocks that need not happen to be found.

Owns the classes (rule L1: one node for all locks of a class and subclass), the edges with the first pair of stacks that made each (L3), and
the pseudo locks with their primed order (L4, L5). Holds one private lock, only while an edge is added. Runs in any thread.
Source: kernel/locking/lockdep.c, drivers/dma-buf/dma-resv.c (`dma_resv_lockdep`), Linux 7.3.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import CodeType, FrameType
from typing import Final

import nvcore
from nvcore.testing.lockdep.rules import broken

__all__ = [
    "FENCE",
    "HELD_DEPTH",
    "MMAP",
    "RECLAIM",
    "RESERVATION",
    "USER_COPY",
    "LockClass",
    "Trace",
    "add_edge",
    "declare_order",
    "isolated_graph",
    "lock_class",
    "show",
    "trace",
]

Trace = tuple[tuple[CodeType, int], ...]
"""A captured stack, innermost first: code objects and instruction offsets. Lines are looked up only when it is shown."""

_DEPTH = 8
HELD_DEPTH = 5
"""Frames kept of every acquisition; an edge keeps more."""
_HERE = (__file__.rpartition("/")[0] + "/", f"{nvcore.__path__[0]}/locks/")


class LockClass:
    """All locks of one name and subclass. `after` maps each class taken while this one was held to the stacks of the first time."""

    __slots__ = ("after", "label", "leaf", "name", "subclass", "ww")

    def __init__(self, name: str, subclass: int, *, leaf: bool, ww: bool) -> None:
        self.name = name
        self.subclass = subclass
        self.leaf = leaf
        self.ww = ww
        self.label = f"{name}/{subclass}" if subclass else name
        self.after: dict[LockClass, tuple[Trace, Trace]] = {}

    def __repr__(self) -> str:
        return f"<lock class {self.label}>"


_classes: dict[tuple[str, int], LockClass] = {}
_guard = threading.RLock()  # re-entrant: a search allocates, a collection may then run a finaliser that takes a lock


def lock_class(name: str, subclass: int = 0, *, leaf: bool = False, ww: bool = False) -> LockClass:
    """The class of that name and nesting level, made on first use. Every lock of a class must agree on `leaf`."""
    with _guard:
        known = _classes.get((name, subclass))
        if known is None:
            known = _classes[name, subclass] = LockClass(name, subclass, leaf=leaf, ww=ww)
    if known.leaf != leaf or known.ww != ww:
        broken("L1.nesting", f"class {known.label} is declared in two ways", now=show(trace(2)))
    return known


def trace(skip: int = 1, depth: int = _DEPTH) -> Trace:
    """The calling stack without its `skip` innermost frames."""
    frame: FrameType | None = sys._getframe(skip)
    found: list[tuple[CodeType, int]] = []
    while frame is not None and depth:
        found.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
        depth -= 1
    return tuple(found)


def show(stack: Trace) -> str:
    """A stack as text, innermost first, without the validator's own frames."""
    frames = [(code, offset) for code, offset in stack if not code.co_filename.startswith(_HERE)]
    if not frames:
        return "primed at import"
    return " < ".join(f"{code.co_filename}:{_line(code, offset)} {code.co_name}" for code, offset in frames)


def _line(code: CodeType, offset: int) -> int:
    """The source line of the instruction at `offset` bytes."""
    for start, end, line in code.co_lines():
        if start <= offset < end and line is not None:
            return line
    return code.co_firstlineno


def _path(start: LockClass, goal: LockClass) -> list[LockClass] | None:
    """A shortest chain of edges from `start` to `goal`."""
    chains = [[start]]
    seen = {start}
    for chain in chains:
        if chain[-1] is goal:
            return chain
        for following in tuple(chain[-1].after):
            if following not in seen:
                seen.add(following)
                chains.append([*chain, following])
    return None


def _cycle_rule(held: LockClass, wanted: LockClass) -> str:
    """Which rule a cycle breaks that this pair would close."""
    if wanted is USER_COPY or wanted is MMAP:
        return "L4.pseudo"
    if held is FENCE and wanted.ww:
        return "L5.reservation-in-path"
    return "L3.cycle"


def add_edge(held: LockClass, held_at: Trace, wanted: LockClass) -> None:
    """Note that `wanted` is taken while `held` is held; a cycle is reported and the edge is not kept."""
    now = trace(2)
    with _guard:
        chain = _path(wanted, held)
        if chain is None:
            held.after.setdefault(wanted, (held_at, now))
            return
        first = chain[0].after[chain[1]]
    order = " -> ".join(c.label for c in chain)
    broken(
        _cycle_rule(held, wanted),
        f"{wanted.label} is taken while {held.label} is held, but the order {order} stands",
        now=f"{held.label} at [{show(held_at)}] then {wanted.label} at [{show(now)}]",
        before=f"{chain[0].label} at [{show(first[0])}] then {chain[1].label} at [{show(first[1])}]",
    )


def declare_order(*names: str) -> None:
    """Declare that locks of these classes are taken in this order, so that one test of either side finds a contradiction.

    Classes are made as plain ones where they do not exist yet. Raises RuleBroken when a contrary order has been seen.
    """
    classes = [_classes.get((name, 0)) or lock_class(name) for name in names]
    for held, wanted in pairwise(classes):
        if wanted not in held.after:
            add_edge(held, trace(2), wanted)


@contextmanager
def isolated_graph() -> Iterator[None]:
    """Run a self-test of the validator: edges seen inside are forgotten at the end."""
    with _guard:
        saved = {known: dict(known.after) for known in _classes.values()}
    try:
        yield
    finally:
        with _guard:
            for known in _classes.values():
                known.after = saved.get(known, {})


USER_COPY: Final = lock_class("user_copy")
"""Held, as it were, while client memory is copied, which may fault (L4)."""
MMAP: Final = lock_class("mmap")
"""The lock of a client's memory map (L4)."""
RESERVATION: Final = lock_class("reservation", ww=True)
"""All reservation locks."""
RECLAIM: Final = lock_class("reclaim")
"""Held, as it were, by whatever allocates (L5)."""
FENCE: Final = lock_class("fence")
"""Held, as it were, in the signalling path, and taken by whoever waits for a fence (L6)."""

# L5: primed once, so that one device and one test suffice to find any contradiction
for _held, _wanted in ((USER_COPY, RESERVATION), (MMAP, RESERVATION), (RESERVATION, RECLAIM), (RECLAIM, FENCE)):
    _held.after[_wanted] = ((), ())
