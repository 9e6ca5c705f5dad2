"""The ledger: whose every unit of a GPU's divisible resources is.

Owns the books of one GPU (VRAM, channel ids, BAR1 window, virtual functions, heads) behind one lock. Every unit is free, owned, quarantined
(freed while hardware may still reach it; until the next reset) or retired (bad, or not usable at all), and the four sum to the total. A
request is served as a whole or not at all. Knows no grant, no device, no firmware; any thread. The arithmetic is `nvcore.vmm`'s.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from nvcore.api.errors import ContractError
from nvcore.api.grant import GrantRequest, LedgerRow
from nvcore.api.inventory import Range
from nvcore.locks import Lock
from nvcore.vmm.pool import Pool
from nvcore.vmm.request import plan_request

# Granule of VRAM.
PAGE = 0x1000

# Granule of the BAR1 window: one directory entry (2 MiB).
BAR1_ENTRY = 0x200000


class Ledger:
    """All pools of one GPU. functions: virtual functions that exist."""

    def __init__(self, *, vram: Iterable[Range], channels: Range, bar1: int = 0, functions: int = 0, heads: int = 0) -> None:
        self._lock = Lock("ledger", leaf=True)
        pools = (
            Pool("vram", "bytes", vram, PAGE),
            Pool("channels", "ids per runlist", [channels]),
            Pool("bar1", "bytes", [Range(0, bar1 // BAR1_ENTRY * BAR1_ENTRY)], BAR1_ENTRY),
            Pool("functions", "VFs", [Range(1, functions)]),
            Pool("heads", "heads", [Range(0, heads)]),
        )
        self._pools = {pool.kind: pool for pool in pools}
        self._parents: dict[str, str | None] = {}

    def take(self, owner: str, request: GrantRequest, parent: str | None = None) -> None:
        """Give `owner` all that `request` asks for, out of what is free, or out of what `parent` owns. Raises OutOfResources or UsageError
        with the books unchanged."""
        with self._lock:
            for pool, item in plan_request(self._pools, request, parent):
                pool.move(pool.free if parent is None else pool.of(parent), pool.of(owner), item)
            self._parents[owner] = parent

    def give_back(self, owner: str, *, quarantine: Sequence[str] = ()) -> None:
        """Return what an owner still has: to its parent, or to the free ones when that is gone; kinds in `quarantine` go there instead,
        whoever the parent is."""
        with self._lock:
            parent = self._parents.pop(owner, None)
            for kind, pool in self._pools.items():
                back = pool.of(parent) if parent in self._parents else pool.free
                pool.empty(owner, pool.quarantined if kind in quarantine else back)

    def holds(self, owner: str, kind: str) -> tuple[Range, ...]:
        """What `owner` has of a kind now, sorted."""
        with self._lock:
            return tuple(self._pools[kind].owned.get(owner, ()))

    def owner_of(self, kind: str, unit: int) -> str | None:
        """Whose a unit is; None when it is nobody's."""
        with self._lock:
            owned = self._pools[kind].owned.items()
            return next((owner for owner, runs in owned if runs.contains(unit, unit + 1)), None)

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

    def lift_quarantine(self) -> None:
        """After a reset nothing reaches freed units any more: quarantined ones become free."""
        with self._lock:
            for pool in self._pools.values():
                for item in pool.quarantined:
                    pool.move(pool.quarantined, pool.free, item)

    def rows(self) -> tuple[LedgerRow, ...]:
        """The books, one row a kind, kinds without units left out."""
        with self._lock:
            return tuple(pool.row() for pool in self._pools.values() if pool.total)

    def check(self, names: Container[str] | None = None) -> list[str]:
        """Proof of the books: what is wrong, empty when they balance. names: live owners; others must own nothing."""
        with self._lock:
            return [text for pool in self._pools.values() for text in pool.check(names)]
