"""The vGPUs of one GPU: declared, started, stopped, made again. A client of the function "vgpu".

Owns the operations and their order; records are on disk before an operation ends, and what an operation did is undone when they cannot be.
Operations run on the GPU's life-cycle thread, one after another; `status`, `rows` and `capacity` answer at once from any thread.
"""

from __future__ import annotations

import time
import uuid as uuids
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, TypeVar, cast

from nvcore.api.client import ClientContext, ClientStatus
from nvcore.api.errors import ContractError, FormatError, NvcoreError, WaitTimeout
from nvcore_vfio.books import Books, Entry
from nvcore_vfio.claims import Claim, check_unheld, living
from nvcore_vfio.declared import Declared, check_name
from nvcore_vfio.errors import BringUpFailed, NoCapacity, NoFirmware, NotStored, VgpuInUse, taken, told
from nvcore_vfio.instance import type_spec
from nvcore_vfio.lifecycle import LifeCycle
from nvcore_vfio.placement import Room, room
from nvcore_vfio.pool import Pool
from nvcore_vfio.recovery import Recovery
from nvcore_vfio.restore import restore
from nvcore_vfio.rows import room_row, vgpu_row
from nvcore_vfio.store import Store, folder_name
from nvcore_vfio.types import MACHINE, VgpuType, misfit, type_named

__all__ = ["CALL_TIMEOUT", "Manager"]

CALL_TIMEOUT: Final = 180.0
"""Seconds for one operation: the firmware may take 120 s for one of its answers."""

_LOOK_TIMEOUT: Final = 10.0  # for a question of the doctor's, which others wait for
_GOES_ON: Final = "it was not called off and goes on: `nvcore vgpu list` shows how it ended"
_LOOK_AGAIN: Final = "another operation on this GPU takes long: `nvcore vgpu list` and `nvcore events` show which; then nvcore doctor again"
_NOT_BEGUN: Final = "nothing was done: `nvcore vgpu list` shows how it stands; then try again"
_NOT_DECLARED: Final = "nothing is declared of it; `nvcore events` shows what the firmware said; then create it again"

_T = TypeVar("_T")


class Manager:
    """All vGPUs of one GPU. naming: holds a name on all GPUs of the host while its vGPU is made; raises VgpuExists, and never waits."""

    def __init__(self, context: ClientContext, limit: int | None, naming: Callable[[str], AbstractContextManager[object]]) -> None:
        self.context, self._naming = context, naming
        self.books, self.pool = Books(), Pool(context, limit)
        self._life = LifeCycle(context, self.books, self.pool)
        self.recovery = Recovery(context, self.books, self.pool, self._life)
        self._store = Store(context.state_dir / folder_name(context.gpu.address))
        self._epoch = time.time() - context.clock.now()  # the one look at the time of day: what the clock says is shown as that

    # beginning and end

    def begin(self) -> None:
        """Take the memory, teach the firmware the types, read the records, make again what was running. Life-cycle thread."""
        family = self._life.family()
        self.pool.fill(family.heap_size())
        family.upload_types([type_spec(kind, self.pool.heap) for kind in self.pool.kinds])
        self.check_here()  # a probe that took too long reads no records that others change by now
        restore(self.context, self._store, self.books, self.pool)
        for entry in self.books.all():
            self.check_here()
            if entry.record.autostart and not entry.flaw:
                self._make_again(entry)

    def _make_again(self, entry: Entry) -> None:
        try:
            self._life.start(entry)
        except NvcoreError as error:
            record = entry.record
            self.context.report("vgpu", f"{record.name} was not made again: {error}", vm=record.vm, code=error.code)

    def end(self) -> None:
        """Take everything down; the declarations stay."""
        for entry in self.books.started():
            self._life.take_down(entry)
            self.books.move(entry, "stopped")
        self.pool.leave()

    @property
    def gone(self) -> bool:
        """Whether its client left, or was given up by the core: another manager answers for the GPU now, or the shelf. Any thread."""
        try:
            _ = self.context.generation
        except ContractError:  # the context has ended
            return True
        return False

    def check_here(self) -> None:
        """Raise NoFirmware when it is gone. On the life-cycle thread the answer holds until what runs there ends."""
        if self.gone:
            raise NoFirmware(f"GPU {self.context.gpu.address} was taken down before this came to its turn", remedy=_NOT_BEGUN)

    # operations, called from any thread

    def create(self, type_name: str, *, name: str | None, vm: str | None, start: bool) -> dict[str, Any]:
        """Declare a vGPU, and start it. Raises NoCapacity, VgpuExists, NotStored and what a start raises; then nothing is declared."""
        kind = type_named(type_name)
        checked = check_name(name or f"{type_name.lower()}-{uuids.uuid4().hex[:6]}")

        def create() -> dict[str, Any]:
            with self._naming(checked):  # here, not where it is waited for: who waits may give up, and this goes on
                return self._create(kind, checked, vm, start)

        return self._on_life_cycle(create)

    def start(self, name: str, *, pid: int | None = None) -> dict[str, Any]:
        """Start a declared vGPU, one that failed anew; `pid` claims it for a process."""
        return self._on_life_cycle(lambda: self._start(self.books.entry(name), pid))

    def stop(self, name: str, *, force: bool = False) -> dict[str, Any]:
        """Stop it; it stays declared and its slot stays its own. Raises VgpuInUse unless `force`."""
        return self._on_life_cycle(lambda: self._stop(self.books.entry(name), force))

    def destroy(self, name: str, *, force: bool = False) -> dict[str, Any]:
        """Stop and forget it."""
        return self._on_life_cycle(lambda: self._destroy(self.books.entry(name), force))

    def firmware_tasks(self) -> dict[int, int]:
        """What the firmware says is in use, bytes by function. Raises NoFirmware."""
        return self._on_life_cycle(lambda: dict(self._life.family().usage()), _LOOK_TIMEOUT, _LOOK_AGAIN)

    def _on_life_cycle(self, call: Callable[[], _T], timeout: float = CALL_TIMEOUT, remedy: str = _GOES_ON) -> _T:
        def in_turn() -> _T:
            self.check_here()  # it may have waited behind a reset of the GPU
            return call()

        try:
            return cast(_T, self.context.run(in_turn, timeout=timeout))
        except WaitTimeout as error:
            if type(error) is not WaitTimeout:  # the firmware's: the operation has ended with it
                raise
            what = f"no answer for a vGPU operation on {self.context.gpu.address}"
            raise WaitTimeout(what, expected=error.expected, seen=error.seen, remedy=remedy) from error

    # what they show, from any thread

    def rows(self) -> list[dict[str, Any]]:
        """Every declared vGPU, JSON-able."""
        return [self._row(entry) for entry in self.books.all()]

    def capacity(self) -> list[dict[str, Any]]:
        """Room for each type, by the very function that `create` uses."""
        return [room_row(kind, self._room(kind)) for kind in self.pool.kinds]

    def declares(self, name: str) -> bool:
        """Whether a vGPU of that name is declared here."""
        return self.books.find(name) is not None

    def check_free(self, name: str) -> None:
        """Raise VgpuExists when the name is that of a vGPU here, or of a record, readable or not."""
        if self.declares(name) or self._store.holds(name):
            raise taken(name, self.declares(name))

    @property
    def damaged(self) -> list[FormatError]:
        """Why records cannot be read."""
        return [item.error for item in self.books.damaged]

    def flaws(self) -> dict[str, str]:
        """Why records that can be read cannot be used, by name."""
        return {entry.record.name: entry.flaw for entry in self.books.all() if entry.flaw}

    def functions_running(self) -> set[int]:
        """Functions whose vGPU has something of the hardware."""
        return {entry.record.function for entry in self.books.started()}

    def status(self) -> ClientStatus:
        """One line."""
        entries = self.books.all()
        running = sum(entry.stands[0] == "running" for entry in entries)
        failed = [entry.record.name for entry in entries if entry.stands[0] == "failed"]
        text = f"{running} of {len(entries)} vGPUs running" + (f", failed: {', '.join(failed)}" if failed else "")
        return ClientStatus("running", text, {"running": running, "declared": len(entries), "pool": self.pool.size})

    def _row(self, entry: Entry) -> dict[str, Any]:
        return vgpu_row(entry, self.context.gpu.address, self._epoch)

    def _room(self, kind: VgpuType) -> Room:
        pool, context = self.pool, self.context
        why = misfit(kind, context.gpu.chip.name, context.inventory.memory_size)
        if why is not None:
            return Room(0, None, None, why)
        return room(
            kind,
            places=self.books.places(),
            sizes={entry.kind.size for entry in self.books.all() if entry.kind is not None},
            pool=pool.size,
            functions=pool.functions,
            unusable=pool.unusable,
            kept=pool.kept,
            unread=len(self.books.damaged),
        )

    # the operations' bodies, on the life-cycle thread

    def _create(self, kind: VgpuType, name: str, vm: str | None, start: bool) -> dict[str, Any]:
        self.check_free(name)
        here = self._room(kind)
        if here.slot is None or here.function is None:
            raise NoCapacity(f"no room for {kind.name} on GPU {self.context.gpu.address}", seen=here.reason, remedy=here.remedy)
        record = Declared(
            name=name,
            uuid=str(uuids.uuid4()),
            type=kind.name,
            slot=here.slot,
            function=here.function,
            machine=MACHINE,
            firmware=self.context.inventory.firmware,
            vm=vm,
            autostart=start,
        )
        entry = Entry(record, kind)
        self.books.add(entry)
        try:
            if start:
                self._life.start(entry)
            self._store.save(record)
        except BaseException as error:
            self._life.take_down(entry)
            self.books.remove(entry)
            with suppress(NotStored):
                self._store.remove(name)
            if isinstance(error, BringUpFailed):
                error.remedy = _NOT_DECLARED  # the usual one is to start it again
            raise
        self.context.report("vgpu", f"{name} ({kind.name}) created", vm=vm, action="started" if start else "declared")
        return self._row(entry)

    def _start(self, entry: Entry, pid: int | None) -> dict[str, Any]:
        record = entry.record
        if record.claim is not None and living(record.claim):
            raise VgpuInUse(f"vGPU {record.name} is held by process {record.claim.pid}", seen=record.vm)
        claim = Claim.of(pid) if pid is not None else None
        if entry.stands[0] == "failed":
            self._life.take_down(entry)  # what a crash left of it
        begun = entry.instance is None
        if begun:
            self._life.start(entry)
        before = record.claim, record.autostart
        record.claim, record.autostart = claim, True
        try:
            self._store.save(record)
        except BaseException as error:
            record.claim, record.autostart = before
            if begun:
                self._life.take_down(entry)
                self.books.move(entry, "failed", told(error))
            raise
        return self._row(entry)

    def _stop(self, entry: Entry, force: bool) -> dict[str, Any]:
        self._halt(entry, force)
        self._noted(entry, self._store.save, entry.record, "is started again after a restart", "stop")
        self.context.report("vgpu", f"{entry.record.name} stopped", vm=entry.record.vm, action="forced" if force else None)
        return self._row(entry)

    def _halt(self, entry: Entry, force: bool) -> None:
        record = entry.record
        check_unheld(record, force)
        self.books.move(entry, "stopping")
        problem = self._life.take_down(entry)
        self.books.move(entry, "failed" if entry.flaw else "stopped", entry.flaw or problem)
        record.claim, record.autostart = None, False

    def _destroy(self, entry: Entry, force: bool) -> dict[str, Any]:
        self._halt(entry, force)
        # nothing is written first: a full disk must not keep it
        self._noted(entry, self._store.remove, entry.record.name, "stays declared", "destroy")
        self.books.remove(entry)
        self.context.report("vgpu", f"{entry.record.name} destroyed", vm=entry.record.vm, action="forced" if force else None)
        return {**self._row(entry), "state": "destroyed"}

    def _noted(self, entry: Entry, change: Callable[[_T], None], what: _T, outcome: str, verb: str) -> None:
        """Change the record of one that was stopped. Raises NotStored that says that it is, and what comes of it."""
        name = entry.record.name
        try:
            change(what)
        except NotStored as error:
            text = f"vGPU {name} was stopped, but its record could not be changed: it {outcome}"
            remedy = f"make room in the state directory, or make it writable; then: nvcore vgpu {verb} {name}"
            raise NotStored(text, seen=error.seen, where=error.where, remedy=remedy) from error
