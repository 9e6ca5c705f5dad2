"""Up and down: how a declared vGPU gets what it needs of the hardware, and how that is taken from it.

Owns no state of its own: how a vGPU stands is in the books, what is left in the pool. Life-cycle thread of the GPU; that a task crashed is
told on the client's delivery thread. Whatever stops a way up (an interrupt from the keyboard too) unwinds it, and the books say what
stands.
"""

from __future__ import annotations

from functools import partial
from typing import cast

from nvcore.api.client import ClientContext
from nvcore.api.families.vgpu import VgpuFamily
from nvcore_vfio.books import Books, Entry
from nvcore_vfio.declared import Declared
from nvcore_vfio.ear import Ear
from nvcore_vfio.errors import BringUpFailed, NoFirmware, PinnedMismatch, UnusableRecord, told
from nvcore_vfio.instance import Instance
from nvcore_vfio.pool import Pool
from nvcore_vfio.types import MACHINE

__all__ = ["LifeCycle"]


class LifeCycle:
    """Starts and takes down the vGPUs of one GPU."""

    def __init__(self, context: ClientContext, books: Books, pool: Pool) -> None:
        self._context, self._books, self._pool = context, books, pool

    def family(self) -> VgpuFamily:
        """The firmware's vGPU operations. Raises NoFirmware."""
        found = self._family_if_alive()
        if found is None:
            raise NoFirmware(f"no firmware runs on {self._context.gpu.address}")
        return found

    def _family_if_alive(self) -> VgpuFamily | None:
        return cast("VgpuFamily | None", self._context.family("vgpu"))

    def start(self, entry: Entry) -> None:
        """Bring it up. Raises UnusableRecord, PinnedMismatch, NoCapacity, NoFirmware, BringUpFailed; it is failed then, and has nothing."""
        try:
            self._start(entry)
        except BaseException as error:
            self._fail(entry, error)
            raise

    def _start(self, entry: Entry) -> None:
        record, kind = entry.record, entry.kind
        if kind is None or entry.flaw:
            raise UnusableRecord(f"vGPU {record.name} cannot be started", seen=entry.flaw)
        self._check_pinned(record)
        grant, family = self._pool.grant_for(record.function), self.family()
        self._books.move(entry, "starting")
        address = self._context.virtual_function(record.function).address
        entry.instance = Instance(record, kind, address, self._pool.heap, self._pool.segment)
        self._listen(entry)
        entry.instance.up(grant, family)
        self._runs(entry)

    def _listen(self, entry: Entry) -> None:
        """To what is told of its next task, and no more of an earlier one."""
        assert entry.instance is not None
        entry.instance.hear(Ear(self._context, entry.record.function, partial(self._crashed, entry)))

    def _crashed(self, entry: Entry) -> None:
        """It is failed, and keeps its memory until it is stopped."""
        record, why = entry.record, "its task in the firmware crashed"
        if self._books.move(entry, "failed", why, only={"starting", "running", "suspended"}):
            self._context.report("vgpu", f"{record.name}: {why}", vm=record.vm, action="marked failed")

    def _runs(self, entry: Entry) -> None:
        assert entry.instance is not None
        entry.instance.started = self._context.clock.now()
        if not self._books.move(entry, "running", only={"starting", "suspended"}):
            raise BringUpFailed(f"vGPU {entry.record.name} failed while it was brought up", seen=entry.stands[1])

    def _check_pinned(self, record: Declared) -> None:
        firmware = self._context.inventory.firmware
        if record.machine != MACHINE:
            raise PinnedMismatch(f"vGPU {record.name} is pinned to another machine type", expected=MACHINE, seen=record.machine)
        if record.firmware != firmware:
            raise PinnedMismatch(
                f"vGPU {record.name} is pinned to another firmware",
                expected=record.firmware,
                seen=firmware,
                remedy="start the GPU with that firmware, or destroy the vGPU and create it again",
            )

    def again(self, entry: Entry) -> None:
        """After its memory and its task were lost: bring it up in its old place. Raises as `start`."""
        assert entry.instance is not None
        try:
            self._listen(entry)
            entry.instance.again(self._pool.grant_for(entry.record.function), self.family())
            self._runs(entry)
        except BaseException as error:
            self._fail(entry, error)
            raise

    def _fail(self, entry: Entry, error: BaseException) -> None:
        self.take_down(entry, told(error))
        self._books.move(entry, "failed", told(error))

    def take_down(self, entry: Entry, cause: str | None = None, *, asked: bool = True) -> str | None:
        """Take from it what it has; the first cause when a step failed. cause: why it is taken down, where that says why the firmware may
        keep it. asked: whether the firmware is told; a new one knows nothing of it. A function that does not come back is reported."""
        instance, entry.instance = entry.instance, None
        if instance is None:
            return None
        record = entry.record
        problem = instance.down(self._family_if_alive() if asked else None)
        kept = self._pool.settle(record.function, problem or cause)
        if kept is not None:
            self._context.report("vgpu", f"virtual function {record.function}, which {record.name} had, is {kept}", vm=record.vm)
        elif problem is not None:
            self._context.report("vgpu", f"{record.name} was taken down with a problem: {problem}", vm=record.vm)
        return problem
