"""From the records on disk to the books, when a GPU comes up: what can be used, what cannot, and why.

Owns no state. Writes nothing but the end of a claim whose process is gone (F17). One record that cannot be used spoils no other (F11): it
is in the books as failed, with its reason, and keeps its place until it is destroyed. Life-cycle thread.
"""

from __future__ import annotations

from contextlib import suppress

from nvcore.api.client import ClientContext
from nvcore_vfio.books import Books, Entry
from nvcore_vfio.declared import Declared
from nvcore_vfio.errors import NotStored
from nvcore_vfio.pool import Pool
from nvcore_vfio.store import Damaged, Store
from nvcore_vfio.types import VgpuType, find_type

__all__ = ["restore"]


def restore(context: ClientContext, store: Store, books: Books, pool: Pool) -> None:
    """Enter every record; none is started by this."""
    for item in store.load():
        if isinstance(item, Damaged):
            books.damaged.append(item)
            context.report("vgpu", str(item.error), code=item.error.code, action="record left alone")
            continue
        _end_stale_claim(context, store, item)
        kind = find_type(item.type)
        flaw = _flaw(item, kind, books, pool)
        books.add(Entry(item, kind, flaw))
        if flaw:
            context.report("vgpu", f"{item.name} cannot be made again: {flaw}", vm=item.vm, action="marked failed")


def _end_stale_claim(context: ClientContext, store: Store, record: Declared) -> None:
    claim = record.claim
    if claim is not None and not claim.alive:
        context.report("vgpu", f"the claim of process {claim.pid} on {record.name} is stale", vm=record.vm, action="claim removed")
        record.claim = None
        with suppress(NotStored):  # the next start finds it stale again
            store.save(record)


def _flaw(record: Declared, kind: VgpuType | None, books: Books, pool: Pool) -> str | None:
    """What of a record this GPU or this release does not have, or what an earlier one has."""
    if kind is None or kind not in pool.kinds:
        return f"its type {record.type} is not known for this GPU"
    if record.slot >= kind.max_instances:
        return f"its slot {record.slot} does not exist: {record.type} has 0 to {kind.max_instances - 1}"
    if record.function > pool.functions:
        return f"its virtual function {record.function} does not exist: the GPU has 1 to {pool.functions}"
    for other in books.all():
        for word in ("slot", "function"):
            ours = getattr(record, word)
            if ours == getattr(other.record, word):
                return f"its {word} {ours} is that of {other.record.name}"
    return None
