"""Sets of disjoint runs of integers: the arithmetic below pools and ledgers.

Owns nothing but its own list; no lock, no thread. Sorted, merged, half-open runs; searching is linear in the number of runs, which is the
number of owners, not of pages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from nvcore.api.errors import ContractError
from nvcore.api.inventory import Range

__all__ = ["Runs", "cut"]


class Runs:
    """A set of integers, as sorted disjoint runs. `total` is their number."""

    __slots__ = ("_runs", "total")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._runs: list[tuple[int, int]] = []
        self.total = 0
        for item in ranges:
            self.add(item.start, item.end)

    def __iter__(self) -> Iterator[Range]:
        return iter([Range(start, end - start) for start, end in self._runs])

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def largest(self) -> int:
        """Length of the longest run."""
        return max((end - start for start, end in self._runs), default=0)

    def contains(self, start: int, end: int) -> bool:
        """Whether all of [start, end) is in the set."""
        index = bisect_right(self._runs, start, key=lambda run: run[0]) - 1
        return index >= 0 and self._runs[index][1] >= end

    def overlaps(self, start: int, end: int) -> bool:
        """Whether any of [start, end) is in the set."""
        return any(low < end and start < high for low, high in self._runs)

    def add(self, start: int, end: int) -> None:
        """Put [start, end) in; what is already in is a ContractError (a unit counted twice)."""
        if start >= end:
            return
        index = bisect_right(self._runs, start, key=lambda run: run[0])
        before = self._runs[index - 1] if index else None
        after = self._runs[index] if index < len(self._runs) else None
        if (before and before[1] > start) or (after and after[0] < end):
            raise ContractError("a unit would be counted twice", seen=f"[{start:#x}, {end:#x})")
        low, high, first, last = start, end, index, index
        if before and before[1] == start:
            low, first = before[0], index - 1
        if after and after[0] == end:
            high, last = after[1], index + 1
        self._runs[first:last] = [(low, high)]
        self.total += end - start

    def remove(self, start: int, end: int) -> None:
        """Take [start, end) out; what is not in is a ContractError."""
        if start >= end:
            return
        index = bisect_right(self._runs, start, key=lambda run: run[0]) - 1
        if index < 0 or self._runs[index][1] < end:
            raise ContractError("a unit would be taken that is not there", seen=f"[{start:#x}, {end:#x})")
        low, high = self._runs[index]
        rest = [run for run in ((low, start), (end, high)) if run[0] < run[1]]
        self._runs[index : index + 1] = rest
        self.total -= end - start

    def find(self, size: int, align: int = 1, *, top_down: bool = False) -> int | None:
        """Start of a free place for `size` units, aligned; the lowest one, or the highest with `top_down`; None when there is none."""
        for low, high in reversed(self._runs) if top_down else self._runs:
            start = (high - size) // align * align if top_down else -(-low // align) * align
            if start >= low and start + size <= high:
                return start
        return None


def cut(whole: Range, at: Sequence[Range]) -> list[tuple[Range | None, Range]]:
    """`whole` in pieces, in order: each with the one of the disjoint ranges `at` that it lies in, or None."""
    pieces: list[tuple[Range | None, Range]] = []
    start = whole.start
    for known in sorted(at):
        low, high = max(known.start, start), min(known.end, whole.end)
        if low >= high:
            continue
        if start < low:
            pieces.append((None, Range(start, low - start)))
        pieces.append((known, Range(low, high - low)))
        start = high
    if start < whole.end:
        pieces.append((None, Range(start, whole.end - start)))
    return pieces
