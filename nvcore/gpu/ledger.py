"""The ledger: whose every unit of a GPU's divisible resources is.

Owns the books of one GPU (VRAM, channel ids, BAR1 window, virtual functions, heads) behind one lock. Every unit is free, owned, quarantined
(freed while hardware may still reach it; until the next reset) or retired (bad, or not usable at all), and the four sum to the total. A
request is served as a whole or not at all. Knows no grant, no device, no firmware; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from nvcore.api.errors import ContractError, OutOfResources, UsageError
from nvcore.api.grant import GrantRequest, LedgerRow
from nvcore.api.inventory import Range
from nvcore.gpu.runs import Runs
from nvcore.locks import Lock

__all__ = ["BAR1_ENTRY", "KINDS", "PAGE", "Holding", "Ledger", "Pool"]

PAGE = 0x1000
"""Granule of VRAM."""

BAR1_ENTRY = 0x200000
"""Granule of the BAR1 window: one directory entry (2 MiB)."""

KINDS = {"vram": "bytes", "channels": "ids per runlist", "bar1": "bytes", "functions": "VFs", "heads": "heads"}
"""Kinds of resources, with their units."""


class Pool:
    """The books of one kind. Not locked: the ledger does that."""

    __slots__ = ("free", "granule", "kind", "owned", "quarantined", "retired", "total")

    def __init__(self, kind: str, ranges: Iterable[Range], granule: int = 1) -> None:
        self.kind, self.granule = kind, granule
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
                f"no {size:#x} {KINDS.get(self.kind, self.kind)} of {self.kind} {'at ' + hex(at) if at is not None else 'in one piece'}",
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

    def drop(self, owner: str) -> None:
        """Forget an owner that has nothing."""
        runs = self.owned.get(owner)
        if runs is not None and not runs:
            del self.owned[owner]

    def row(self) -> LedgerRow:
        """The books as a record."""
        owners = {owner: runs.total for owner, runs in self.owned.items() if runs}
        return LedgerRow(
            self.kind,
            KINDS.get(self.kind, "units"),
            self.total,
            self.free.total,
            sum(owners.values()),
            self.quarantined.total,
            self.retired.total,
            owners,
        )

    def _owners_text(self) -> str:
        shares = sorted(((runs.total, owner) for owner, runs in self.owned.items() if runs), reverse=True)
        text = ", ".join(f"{owner} {total:#x}" for total, owner in shares[:6])
        return text + (f" and {len(shares) - 6} more" if len(shares) > 6 else "") if text else "nobody"


class Holding:
    """What one request was given: ranges by kind."""

    __slots__ = ("owner", "parent", "ranges")

    def __init__(self, owner: str, parent: str | None) -> None:
        self.owner, self.parent = owner, parent
        self.ranges: dict[str, list[Range]] = {}


class Ledger:
    """All pools of one GPU."""

    __slots__ = ("_lock", "_pools")

    def __init__(
        self, *, vram: Iterable[Range], channels: Range, bar1: int = 0, functions: int = 0, heads: int = 0, retired: Iterable[Range] = ()
    ) -> None:
        self._lock = Lock("ledger", leaf=True)
        self._pools = {
            "vram": Pool("vram", vram, PAGE),
            "channels": Pool("channels", [channels] if channels.size else []),
            "bar1": Pool("bar1", [Range(0, bar1 // BAR1_ENTRY * BAR1_ENTRY)] if bar1 >= BAR1_ENTRY else [], BAR1_ENTRY),
            "functions": Pool("functions", [Range(1, functions)] if functions else []),
            "heads": Pool("heads", [Range(0, heads)] if heads else []),
        }
        for item in retired:
            self.retire("vram", item)

    def take(self, owner: str, request: GrantRequest, parent: str | None = None) -> Holding:
        """Give `owner` all that `request` asks for, out of what is free, or out of what `parent` owns. Raises OutOfResources or UsageError
        with the books unchanged."""
        with self._lock:
            wanted = self._plan(request, parent)
            holding = Holding(owner, parent)
            for kind, item in wanted:
                pool = self._pools[kind]
                pool.move(pool.free if parent is None else pool.of(parent), pool.of(owner), item)
                holding.ranges.setdefault(kind, []).append(item)
            return holding

    def _plan(self, request: GrantRequest, parent: str | None) -> list[tuple[str, Range]]:
        def source(kind: str) -> Runs:
            pool = self._pools[kind]
            return pool.free if parent is None else pool.owned.get(parent, Runs())

        plan: list[tuple[str, Range]] = []

        def want(kind: str, size: int, align: int = 1, at: int | None = None, top_down: bool = False) -> None:
            plan.append((kind, self._pools[kind].find(source(kind), size, align=align, at=at, top_down=top_down)))

        if request.vram:
            if request.vram_align & (request.vram_align - 1):
                raise UsageError("an alignment must be a power of two", seen=hex(request.vram_align))
            want("vram", request.vram, request.vram_align, request.vram_at, request.top_down)
        if request.channels:
            align = 1
            if request.power_of_two_channels:
                if request.channels & (request.channels - 1):
                    raise UsageError("a run of channel ids aligned to its own size must be a power of two", seen=request.channels)
                align = request.channels
            want("channels", request.channels, align, request.channels_at, request.top_down)
        if request.bar1:
            want("bar1", request.bar1, BAR1_ENTRY)
        if len(set(request.functions)) != len(request.functions):
            raise UsageError("a virtual function is named twice", seen=request.functions)
        for number in request.functions:
            want("functions", 1, 1, number)
        if request.heads:
            want("heads", request.heads)
        return plan

    def give_back(self, holding: Holding, *, quarantine: Sequence[str] = ()) -> None:
        """Return what a holding still has: to its parent, or to the free ones; kinds in `quarantine` go there instead, whoever the parent
        is."""
        with self._lock:
            for kind, pool in self._pools.items():
                runs = pool.owned.get(holding.owner)
                for item in runs or ():
                    assert runs is not None
                    back = pool.free if holding.parent is None else pool.of(holding.parent)
                    target = pool.quarantined if kind in quarantine else back
                    pool.move(runs, target, item)
                pool.drop(holding.owner)
            holding.ranges.clear()

    def holds(self, owner: str, kind: str) -> tuple[Range, ...]:
        """What `owner` has of a kind now, sorted."""
        with self._lock:
            return tuple(self._pools[kind].owned.get(owner, ()))

    def owner_of(self, kind: str, unit: int) -> str | None:
        """Whose a unit is; None when it is nobody's."""
        with self._lock:
            for owner, runs in self._pools[kind].owned.items():
                if runs.contains(unit, unit + 1):
                    return owner
        return None

    def retire(self, kind: str, item: Range) -> None:
        """Take free or quarantined units out of use for good."""
        with self._lock:
            pool = self._pools[kind]
            for source in (pool.free, pool.quarantined):
                if source.contains(item.start, item.end):
                    pool.move(source, pool.retired, item)
                    return
        raise ContractError(f"only free {kind} can be retired", seen=f"[{item.start:#x}, {item.end:#x})")

    def quarantined(self, kind: str) -> tuple[Range, ...]:
        """What is in quarantine."""
        with self._lock:
            return tuple(self._pools[kind].quarantined)

    def lift_quarantine(self) -> int:
        """After a reset nothing reaches freed units any more: quarantined ones become free. How many VRAM bytes that were."""
        with self._lock:
            lifted = self._pools["vram"].quarantined.total
            for pool in self._pools.values():
                for item in pool.quarantined:
                    pool.move(pool.quarantined, pool.free, item)
            return lifted

    def rows(self) -> tuple[LedgerRow, ...]:
        """The books, one row a kind, kinds without units left out."""
        with self._lock:
            return tuple(pool.row() for pool in self._pools.values() if pool.total)

    def check(self, names: Mapping[str, object] | None = None) -> list[str]:
        """Proof of the books: what is wrong, empty when they balance. names: live owners; others must own nothing."""
        wrong: list[str] = []
        with self._lock:
            for kind, pool in self._pools.items():
                columns = [*pool.free, *pool.quarantined, *pool.retired]
                for owner, runs in pool.owned.items():
                    columns.extend(runs)
                    if runs and names is not None and owner not in names:
                        wrong.append(f"{kind}: {runs.total:#x} owned by {owner}, which does not exist")
                if sum(item.size for item in columns) != pool.total:
                    wrong.append(f"{kind}: columns sum to {sum(item.size for item in columns):#x} of {pool.total:#x}")
                columns.sort()
                for one, two in pairwise(columns):
                    if one.overlaps(two):
                        wrong.append(f"{kind}: [{two.start:#x}, {min(one.end, two.end):#x}) is in two columns")
        return wrong
