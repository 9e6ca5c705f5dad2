"""The vGPUs of one GPU: declared, started, stopped, made again. A client of the function "vgpu".

Owns the GPU's records and its started instances, under one lock that is never held across a call to the core. Operations run on the GPU's
life-cycle thread, one after another; `status` and `rows` answer at once from any thread.
"""

from __future__ import annotations

import time
import uuid as uuids
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, cast

from nvcore.api.client import ClientContext, ClientStatus, QuiesceReason
from nvcore.api.errors import FormatError, NvcoreError, WaitTimeout
from nvcore.api.events import Fault, Rung, VgpuPluginEvent
from nvcore.api.families.vgpu import VgpuFamily
from nvcore.api.grant import Grant, GrantRequest
from nvcore.locks import Lock
from nvcore_vfio.declared import Claim, Declared, Store, check_name, living
from nvcore_vfio.errors import NoCapacity, PinnedMismatch, UnknownVgpu, VgpuExists, VgpuInUse
from nvcore_vfio.instance import Instance, type_spec
from nvcore_vfio.placement import Room, room
from nvcore_vfio.types import MACHINE, VgpuType, type_named, types_for

__all__ = ["CALL_TIMEOUT", "Manager"]

CALL_TIMEOUT: Final = 180.0
"""Seconds for one operation: the firmware may take 120 s for one of its answers."""

State = Literal["stopped", "starting", "running", "stopping", "suspended", "failed"]


class Manager:
    """All vGPUs of one GPU."""

    def __init__(self, context: ClientContext, limit: int | None) -> None:
        self.context = context
        self._lock = Lock("vfio.manager")
        self._records: dict[str, Declared] = {}
        self._states: dict[str, tuple[State, str | None]] = {}
        self._instances: dict[str, Instance] = {}
        self._damaged: list[FormatError] = []
        self._unreadable: dict[int, str] = {}
        self._parent: Grant | None = None
        self._heap = 0
        self._pool = 0
        self._limit = limit
        self._unsubscribe: Callable[[], None] = _nothing
        self._store = Store(context.state_dir / context.gpu.address.replace(":", "-"))
        self.segment = context.inventory.vmmu_segment or 0x200000

    # beginning

    def begin(self) -> None:
        """Take the memory, teach the firmware the types, read the records, make again what was running. Life-cycle thread."""
        self._unsubscribe = self.context.subscribe_vgpu(self._task_told)
        family = self._family()
        kinds = types_for(self.context.gpu.chip.name, self.context.inventory.memory_size)
        self._heap = family.heap_size()
        self._reserve(kinds)
        family.upload_types([type_spec(kind, self._heap) for kind in kinds])
        for number in range(1, self.context.inventory.vgpu.functions + 1):
            try:
                self.context.virtual_function(number)
            except NvcoreError as error:
                self._unreadable[number] = error.what
        self._load()
        for record in list(self._records.values()):
            if record.autostart:
                self._make_again(record)

    def _reserve(self, kinds: list[VgpuType]) -> None:
        """One grant for all vGPUs: as many of the largest count as fit, or as the configuration says."""
        if not kinds:
            return
        kind = max(kinds, key=lambda row: row.max_instances)
        each = Instance(_probe_record(kind), kind, "", self._heap, self.segment).memory
        free = self.context.inventory.usable_memory
        fit = max(0, (free - self.segment) // each)
        wanted = min(
            kind.max_instances, self._limit if self._limit is not None else kind.max_instances, self.context.inventory.vgpu.functions
        )
        self._pool = min(wanted, fit)
        if not self._pool:
            return
        request = GrantRequest(
            label="vgpus",
            vram=each * self._pool,
            vram_align=self.segment,
            top_down=True,
            channels=kind.channels * self._pool,
            channels_at=self.context.inventory.channels - kind.channels * self._pool,  # from the top of the range down
            functions=tuple(range(1, self.context.inventory.vgpu.functions + 1)),
        )
        self._parent = self.context.grant(request)

    def _load(self) -> None:
        for item in self._store.load():
            if isinstance(item, FormatError):
                self._damaged.append(item)
                self.context.report("vgpu", str(item), code=item.code, action="record left alone")
                continue
            if item.claim is not None and not item.claim.alive:
                self.context.report(
                    "vgpu", f"the claim of process {item.claim.pid} on {item.name} is stale", vm=item.vm, action="claim removed"
                )
                item.claim = None
                self._store.save(item)
            self._records[item.name] = item
            self._states[item.name] = ("stopped", None)

    def _make_again(self, record: Declared) -> None:
        try:
            self._start(record)
        except NvcoreError as error:
            self._set(record.name, "failed", str(error))
            self.context.report("vgpu", f"{record.name} was not made again: {error}", vm=record.vm, code=error.code)

    # operations, called from any thread

    def create(self, type_name: str, *, name: str | None, vm: str | None, start: bool) -> dict[str, Any]:
        """Declare a vGPU, and start it. Raises NoCapacity, VgpuExists, BringUpFailed (then nothing is declared)."""
        kind = type_named(type_name)
        checked = check_name(name or f"{type_name.lower()}-{uuids.uuid4().hex[:6]}")
        return cast(dict[str, Any], self._on_life_cycle(lambda: self._create(kind, checked, vm, start)))

    def start(self, name: str, *, pid: int | None = None) -> dict[str, Any]:
        """Start a declared vGPU; `pid` claims it for a process."""
        return cast(dict[str, Any], self._on_life_cycle(lambda: self._start_named(name, pid)))

    def stop(self, name: str, *, force: bool = False) -> dict[str, Any]:
        """Stop it; it stays declared and its slot stays its own. Raises VgpuInUse unless `force`."""
        return cast(dict[str, Any], self._on_life_cycle(lambda: self._stop_named(name, force)))

    def destroy(self, name: str, *, force: bool = False) -> dict[str, Any]:
        """Stop and forget it."""
        return cast(dict[str, Any], self._on_life_cycle(lambda: self._destroy(name, force)))

    def rows(self) -> list[dict[str, Any]]:
        """Every declared vGPU, JSON-able."""
        with self._lock:
            return [self._row(record) for record in sorted(self._records.values(), key=lambda record: record.slot)]

    def capacity(self) -> list[dict[str, Any]]:
        """Room for each type, by the very function that `create` uses."""
        with self._lock:
            answer = []
            for kind in types_for(self.context.gpu.chip.name, self.context.inventory.memory_size):
                here = self._room(kind)
                answer.append({"type": kind.name, "left": here.left, "reason": here.reason, "bring_up": kind.bring_up})
            return answer

    @property
    def damaged(self) -> list[FormatError]:
        """Records that cannot be used."""
        return list(self._damaged)

    def firmware_tasks(self) -> dict[int, int]:
        """What the firmware says is in use, bytes by function."""
        return dict(cast(Mapping[int, int], self._on_life_cycle(lambda: self._family().usage())))

    def functions_running(self) -> set[int]:
        """Functions whose vGPU runs."""
        with self._lock:
            return {instance.record.function for instance in self._instances.values()}

    # their bodies, on the life-cycle thread

    def _create(self, kind: VgpuType, name: str, vm: str | None, start: bool) -> dict[str, Any]:
        with self._lock:
            if name in self._records:
                raise VgpuExists(f"vGPU {name} exists", remedy="choose another name, or destroy it first")
            here = self._room(kind)
            if here.slot is None or here.function is None:
                raise NoCapacity(f"no room for {kind.name} on GPU {self.context.gpu.address}", seen=here.reason, remedy="destroy a vGPU")
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
            self._records[name] = record
            self._states[name] = ("stopped", None)
        try:
            if start:
                self._start(record)
            self._store.save(record)
        except (NvcoreError, OSError):
            self._take_down(record)
            with self._lock:
                del self._records[name], self._states[name]
            raise
        self.context.report("vgpu", f"{name} ({kind.name}) created", vm=vm, action="started" if start else "declared")
        return self._row(record)

    def _start_named(self, name: str, pid: int | None) -> dict[str, Any]:
        record = self._record(name)
        if living(record.claim):
            raise VgpuInUse(f"vGPU {name} is held by process {record.claim.pid if record.claim else '?'}", seen=record.vm)
        claim = Claim.of(pid) if pid is not None else None
        if name not in self._instances:
            self._start(record)
        record.claim, record.autostart = claim, True
        self._store.save(record)
        return self._row(record)

    def _stop_named(self, name: str, force: bool) -> dict[str, Any]:
        record = self._record(name)
        if living(record.claim) and not force:
            holder = record.claim.pid if record.claim else "?"
            seen = f"VM {record.vm or '?'}, process {holder}"
            raise VgpuInUse(f"vGPU {name} is in use", seen=seen, remedy="shut the VM down first, or use --force")
        self._set(name, "stopping", None)
        problem = self._take_down(record)
        record.claim, record.autostart = None, False
        self._store.save(record)
        self._set(name, "stopped", problem)
        self.context.report("vgpu", f"{name} stopped", vm=record.vm, action="forced" if force else None)
        return self._row(record)

    def _destroy(self, name: str, force: bool) -> dict[str, Any]:
        row = self._stop_named(name, force)
        self._store.remove(name)
        with self._lock:
            del self._records[name], self._states[name]
        self.context.report("vgpu", f"{name} destroyed", vm=row["vm"])
        return {**row, "state": "destroyed"}

    def _start(self, record: Declared) -> None:
        kind = type_named(record.type)
        self._check_pinned(record)
        if self._parent is None:
            raise NoCapacity(f"no memory is set aside for vGPUs on {self.context.gpu.address}", remedy="see `nvcore doctor`")
        self._set(record.name, "starting", None)
        function = self.context.virtual_function(record.function)
        instance = Instance(record, kind, function.address, self._heap, self.segment)
        try:
            instance.up(self._parent, self._family())
        except NvcoreError as error:
            self._set(record.name, "failed", str(error))
            raise
        instance.started = time.time()
        with self._lock:
            self._instances[record.name] = instance
        self._set(record.name, "running", None)

    def _check_pinned(self, record: Declared) -> None:
        if record.machine != MACHINE:
            raise PinnedMismatch(f"vGPU {record.name} is pinned to another machine type", expected=MACHINE, seen=record.machine)
        if record.firmware != self.context.inventory.firmware:
            raise PinnedMismatch(
                f"vGPU {record.name} is pinned to another firmware",
                expected=record.firmware,
                seen=self.context.inventory.firmware,
                remedy="start the GPU with that firmware, or destroy the vGPU and create it again",
            )

    def _take_down(self, record: Declared) -> str | None:
        with self._lock:
            instance = self._instances.pop(record.name, None)
        if instance is None:
            return None
        problem = instance.down(self._family_if_alive())
        if problem:
            self.context.report("vgpu", f"{record.name} was taken down with a problem: {problem}", vm=record.vm)
        return problem

    # what the core tells

    def on_fault(self, fault: Fault) -> None:
        """Mark what is hit; nothing is waited for."""
        for name, instance in list(self._instances.items()):
            grant = instance.grant
            if fault.rung in (Rung.GPU, Rung.LOST):
                self._states[name] = ("suspended", fault.cause)
            elif grant is not None and fault.grant == grant.name and fault.rung is Rung.GRANT:
                self._states[name] = ("failed", fault.cause)

    def _task_told(self, event: VgpuPluginEvent) -> None:
        """The firmware speaks of a vGPU's task. One that crashed is failed and keeps its memory until it is stopped. Delivery thread."""
        if event.what != "crashed":
            return
        for name, instance in list(self._instances.items()):
            if instance.record.function == event.function and self._states[name][0] == "running":
                self._states[name] = ("failed", "its task in the firmware crashed")
                self.context.report("vgpu", f"{name}: its task in the firmware crashed", vm=instance.record.vm, action="marked failed")

    def quiesce(self, reason: QuiesceReason) -> None:
        """Stop using the hardware."""
        for name in self._instances:
            self._set(name, "suspended", reason)

    def resume(self, vram: Literal["kept", "lost"]) -> None:
        """Go on; with lost memory every vGPU that ran is brought up again in its old place."""
        family = self._family()
        if vram == "lost":
            kinds = types_for(self.context.gpu.chip.name, self.context.inventory.memory_size)
            family.upload_types([type_spec(kind, self._heap) for kind in kinds])
        for name, instance in list(self._instances.items()):
            try:
                if vram == "lost":
                    instance.again(family)
                self._set(name, "running", None)
            except NvcoreError as error:
                with self._lock:
                    self._instances.pop(name, None)
                self._set(name, "failed", str(error))
                self.context.report("vgpu", f"{name} did not come back: {error}", vm=instance.record.vm, code=error.code)

    def end(self) -> None:
        """Take everything down; the declarations stay."""
        self._unsubscribe()
        for name in list(self._instances):
            self._take_down(self._records[name])
            self._set(name, "stopped", None)
        if self._parent is not None:
            self._parent.release()
            self._parent = None

    def status(self) -> ClientStatus:
        """One line."""
        with self._lock:
            running = sum(state == "running" for state, _ in self._states.values())
            failed = [name for name, (state, _) in self._states.items() if state == "failed"]
        text = f"{running} of {len(self._records)} vGPUs running" + (f", failed: {', '.join(failed)}" if failed else "")
        return ClientStatus("running", text, {"running": running, "declared": len(self._records), "pool": self._pool})

    # helpers

    def _on_life_cycle(self, call: Any) -> object:
        try:
            return self.context.run(call, timeout=CALL_TIMEOUT)
        except WaitTimeout as error:
            raise WaitTimeout(
                f"no answer for a vGPU operation on {self.context.gpu.address}", expected=error.expected, seen=error.seen
            ) from error

    def _family(self) -> VgpuFamily:
        return cast(VgpuFamily, self.context.family("vgpu"))

    def _family_if_alive(self) -> VgpuFamily | None:
        return cast("VgpuFamily | None", self.context.family("vgpu"))

    def _room(self, kind: VgpuType) -> Room:
        records = self._records.values()
        return room(
            kind,
            declared={record.slot: record.function for record in records},
            sizes={type_named(record.type).size for record in records},
            pool=self._pool,
            functions=self.context.inventory.vgpu.functions,
            unreadable=self._unreadable,
        )

    def _record(self, name: str) -> Declared:
        record = self._records.get(name)
        if record is None:
            raise UnknownVgpu(f"no vGPU {name}", expected=", ".join(self._records) or "none is declared", seen=ascii(name))
        return record

    def _set(self, name: str, state: State, reason: str | None) -> None:
        with self._lock:
            self._states[name] = (state, reason)

    def _row(self, record: Declared) -> dict[str, Any]:
        state, reason = self._states.get(record.name, ("stopped", None))
        instance = self._instances.get(record.name)
        kind = type_named(record.type)
        grant = instance.grant if instance else None
        return {
            "name": record.name,
            "uuid": record.uuid,
            "gpu": self.context.gpu.address,
            "function": record.function,
            "type": record.type,
            "slot": record.slot,
            "vm": record.vm,
            "state": state,
            "reason": reason,
            "framebuffer_bytes": kind.framebuffer,
            "channels": [grant.channels[0].start, grant.channels[0].size] if grant else None,
            "machine": record.machine,
            "firmware": record.firmware,
            "protocol": instance.protocol if instance else None,
            "bring_up": kind.bring_up,
            "started_at": instance.started if instance else None,
            "claim_pid": record.claim.pid if record.claim else None,
        }


def _nothing() -> None:
    """Before there is a subscription to end."""


def _probe_record(kind: VgpuType) -> Declared:
    return Declared(name="probe", uuid="", type=kind.name, slot=0, function=1, machine=MACHINE, firmware="")
