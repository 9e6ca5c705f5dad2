"""A toy page table: prepare, commit, cleanup, abort and unset over one leased page range, until a tenant brings a real one.

Owns the tables of one address space: a root of 64 slots, each slot's table a page. `prepare` may allocate and fail and changes nothing
visible; `commit` writes entries, allocates nothing and cannot fail. Its owner's lock guards it. Knows no hardware format. Client threads;
`commit` in a signalling section.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal

from nvcore.api.errors import ContractError, LeaseRevoked, OutOfResources
from nvcore.api.grant import AddressSpace, InvalidateTicket, Lease
from nvcore.api.marks import may_sleep, signalling_safe
from nvcore.locks import LockLike, allocate, assert_held

__all__ = ["SLOTS", "ToyPageTable", "ToyPlan"]

SLOTS = 64
"""Entries of a toy root."""

_PAGE = 0x1000


class ToyPlan:
    """One update of one slot: the entry to write, and the table reserved for it."""

    __slots__ = ("displaced", "slot", "state", "table", "value")

    def __init__(self, slot: int, value: int, table: int) -> None:
        self.slot, self.value, self.table = slot, value, table
        self.state: Literal["prepared", "committed", "done", "aborted"] = "prepared"
        self.displaced: int | None = None


class ToyPageTable:
    """Tables in `lease`, whose first page is the root. lock: the owner's, asserted where the tree changes. at_prepare: called in every
    prepare (a fault script's place)."""

    def __init__(self, space: AddressSpace, lease: Lease, lock: LockLike, at_prepare: Callable[[], None] | None = None) -> None:
        self._space, self._lease, self._lock, self._at_prepare = space, lease, lock, at_prepare
        self._free = list(range(lease.range.size // _PAGE - 1, 0, -1))
        self._tables: dict[int, int] = {}
        self.root = lease.range.start

    @may_sleep
    def link(self, entries: int) -> None:
        """Clear the root and tell the hardware where it is. entries: what the hardware's own format has in a root (4 in version 2, 2 in
        version 3)."""
        self._lease.write(0, bytes(SLOTS * 8))
        self._space.link(self.root, entries=entries)

    @may_sleep
    def prepare(self, slot: int, value: int) -> ToyPlan:
        """Reserve what writing `value` to `slot` needs. Raises OutOfResources with nothing changed."""
        assert_held(self._lock)
        if not 0 <= slot < SLOTS:
            raise ContractError("no such slot", expected=f"0 to {SLOTS - 1}", seen=slot)
        allocate("a toy table")
        if self._at_prepare is not None:
            self._at_prepare()
        if not self._free:
            raise OutOfResources("no free toy table", seen=f"{len(self._tables)} in use")
        return ToyPlan(slot, value, self._free.pop())

    @signalling_safe
    def commit(self, plan: ToyPlan) -> InvalidateTicket:
        """Write the table and its entry in the root, and start the invalidate. On a revoked lease nothing is written; the ticket then says
        why."""
        _step(plan, "prepared", "committed")
        try:
            self._lease.write(plan.table * _PAGE, plan.value.to_bytes(8, "little"))
            self._lease.write(plan.slot * 8, (self.root + plan.table * _PAGE | 1).to_bytes(8, "little"))
        except LeaseRevoked:
            return self._space.invalidate()
        plan.displaced, self._tables[plan.slot] = self._tables.get(plan.slot), plan.table
        return self._space.invalidate()

    @may_sleep
    def cleanup(self, plan: ToyPlan) -> None:
        """After the invalidate: the displaced table can be used again."""
        _step(plan, "committed", "done")
        if plan.displaced is not None:
            self._free.append(plan.displaced)

    @may_sleep
    def abort(self, plan: ToyPlan) -> None:
        """Undo a prepared plan."""
        _step(plan, "prepared", "aborted")
        self._free.append(plan.table)

    @may_sleep
    def unset(self) -> None:
        """Unlink the root; raises what the hardware answers."""
        self._space.unlink()

    def digest(self) -> str:
        """Of all tables as the hardware sees them, and of what is free."""
        data = self._lease.read(0, self._lease.range.size)
        return hashlib.sha256(data + repr((sorted(self._free), sorted(self._tables.items()))).encode()).hexdigest()


def _step(plan: ToyPlan, expected: str, state: Literal["committed", "done", "aborted"]) -> None:
    if plan.state != expected:
        raise ContractError(f"a plan is to be {state}", expected=expected, seen=plan.state)
    plan.state = state
