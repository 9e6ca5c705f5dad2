"""A pool: the units of one kind of resource and whose each of them is.

Owns four columns (free, owned, quarantined, retired) that sum to the total. Finds places and moves units; its owner's lock guards it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from itertools import pairwise

from nvcore.api.errors import OutOfResources, UsageError
from nvcore.api.grant import LedgerRow
from nvcore.api.inventory import Range
from nvcore.vmm.runs import Runs

__all__ = ["Pool"]


class Pool:
    """One kind. unit: its name in words; granule: sizes and places are multiples of it."""

    def __init__(self, kind: str, unit: str, ranges: Iterable[Range], granule: int = 1) -> None:
        self.kind, self.unit, self.granule = kind, unit, granule
        self.free = Runs(ranges)
        self.total = self.free.total
        self.quarantined, self.retired = Runs(), Runs()
        self.owned: dict[str, Runs] = {}

    def find(self, source: Runs, size: int, *, align: int, at: int | None, top_down: bool) -> Range:
        """A place for `size` units in `source` (the free ones, or those of a parent). Raises OutOfResources, UsageError; changes
        nothing."""
        step = max(align, self.granule)
        if size <= 0 or size % self.granule or step % self.granule or (at is not None and (at < 0 or at % step)):
            raise UsageError(
                f"a request for {self.kind} is not whole units",
                expected=f"size a multiple of {self.granule:#x}, start of {step:#x}",
                seen=f"size {size:#x}, align {align:#x}, at {'anywhere' if at is None else hex(at)}",
            )
        start = source.find(size, step, top_down=top_down) if at is None else (at if source.contains(at, at + size) else None)
        if start is None:
            raise OutOfResources(
                f"no {size:#x} {self.unit} of {self.kind} {'at ' + hex(at) if at is not None else 'in one piece'}",
                expected=f"size {size:#x} aligned to {step:#x}",
                seen=f"largest free piece {source.largest:#x} of {source.total:#x} free; owners: {self._owners_text()}",
                remedy="release one of the owners named, or ask for less",
            )
        return Range(start, size)

    def move(self, source: Runs, target: Runs, item: Range) -> None:
        """Move units between two columns of the books."""
        source.remove(item.start, item.end)
        target.add(item.start, item.end)

    def of(self, owner: str) -> Runs:
        """What an owner has; an empty set for a stranger."""
        return self.owned.setdefault(owner, Runs())

    def empty(self, owner: str, target: Runs) -> None:
        """Move all that an owner has to another column, and forget the owner."""
        for item in self.owned.pop(owner, ()):
            target.add(item.start, item.end)

    def row(self) -> LedgerRow:
        """The books as a record."""
        owners = {owner: runs.total for owner, runs in self.owned.items() if runs}
        quarantined, retired = self.quarantined.total, self.retired.total
        return LedgerRow(self.kind, self.unit, self.total, self.free.total, sum(owners.values()), quarantined, retired, owners)

    def check(self, owners: Container[str] | None = None) -> list[str]:
        """What is wrong with the books, empty when they balance. owners: those that exist; others must own nothing."""
        wrong: list[str] = []
        columns = [*self.free, *self.quarantined, *self.retired]
        for owner, runs in self.owned.items():
            columns.extend(runs)
            if runs and owners is not None and owner not in owners:
                wrong.append(f"{self.kind}: {runs.total:#x} owned by {owner}, which does not exist")
        if sum(item.size for item in columns) != self.total:
            wrong.append(f"{self.kind}: columns sum to {sum(item.size for item in columns):#x} of {self.total:#x}")
        columns.sort()
        for one, two in pairwise(columns):
            if one.overlaps(two):
                wrong.append(f"{self.kind}: [{two.start:#x}, {min(one.end, two.end):#x}) is in two columns")
        return wrong

    def _owners_text(self) -> str:
        shares = sorted(((runs.total, owner) for owner, runs in self.owned.items() if runs), reverse=True)
        text = ", ".join(f"{owner} {total:#x}" for total, owner in shares[:6])
        return text + (f" and {len(shares) - 6} more" if len(shares) > 6 else "") if text else "nobody"
