"""What happens to vGPUs when hardware or firmware fails under them: marked, suspended, and brought back where that can be.

Owns the memory of one incident (why the client quiesced, which vGPUs a grant's reset is for). `on_fault` runs on the client's
delivery thread and waits for nothing; `quiesce` and `resume` on the life-cycle thread. A vGPU whose task crashed stays failed,
whatever is reset around it, until it is stopped or started. Source: reference page vgpu-host.md, section 6.3.
"""

from __future__ import annotations

from typing import Literal

from nvcore.api.client import ClientContext, QuiesceReason
from nvcore.api.errors import NvcoreError
from nvcore.api.events import Fault, Rung
from nvcore_vfio.books import Books, Entry
from nvcore_vfio.errors import told
from nvcore_vfio.instance import type_spec
from nvcore_vfio.lifecycle import LifeCycle
from nvcore_vfio.pool import Pool

__all__ = ["Recovery"]


class Recovery:
    """Faults of one GPU, as its vGPUs see them."""

    def __init__(self, context: ClientContext, books: Books, pool: Pool, life: LifeCycle) -> None:
        self._context, self._books, self._pool, self._life = context, books, pool, life
        self._reason: QuiesceReason | None = None
        self._hit: set[str] = set()

    def on_fault(self, fault: Fault) -> None:
        """Mark what is hit: all by a fault of the GPU, one by that of its grant."""
        for entry in self._books.started():
            grant = entry.instance.grant if entry.instance is not None else None
            if fault.rung in (Rung.GPU, Rung.LOST):
                self._books.move(entry, "suspended", fault.cause, only={"running"})
            elif fault.rung is Rung.GRANT and grant is not None and fault.grant == grant.name:
                self._hit.add(entry.record.name)
                self._books.move(entry, "suspended", fault.cause, only={"running"})

    def quiesce(self, reason: QuiesceReason) -> None:
        """Stop using the hardware."""
        self._reason = reason
        for entry in self._books.started():
            self._books.move(entry, "suspended", reason, only={"running"})

    def resume(self, vram: Literal["kept", "lost"]) -> None:
        """Go on. Where memory was lost (a grant's reset: that of one vGPU; otherwise all of it), what ran is brought up again in its old
        place."""
        hit, self._hit = self._hit, set()
        one = self._reason == "grant-reset"
        problem = self._teach_again() if vram == "lost" and not one else None
        for entry in self._books.started():
            lost = vram == "lost" and (not one or entry.record.name in hit)
            self._come_back(entry, lost, problem)

    def _teach_again(self) -> NvcoreError | None:
        """Tell a firmware that was started anew the types; take again what was in quarantine. The error when that cannot be."""
        try:
            self._life.family().upload_types([type_spec(kind, self._pool.heap) for kind in self._pool.kinds])
            if self._pool.kept:
                for entry in self._books.started():
                    assert entry.instance is not None
                    entry.instance.down(None)
                self._pool.regain()
        except NvcoreError as error:
            return error
        return None

    def _come_back(self, entry: Entry, lost: bool, problem: NvcoreError | None) -> None:
        record, state = entry.record, entry.stands[0]
        try:
            if lost and (problem is not None or state == "failed"):
                self._life.take_down(entry, asked=False)
                if problem is not None and state != "failed":
                    raise problem
            elif lost:
                self._life.again(entry)
            else:
                self._books.move(entry, "running", only={"suspended"})
        except NvcoreError as error:
            self._books.move(entry, "failed", told(error))
            self._context.report("vgpu", f"{record.name} did not come back: {error}", vm=record.vm, code=error.code)
