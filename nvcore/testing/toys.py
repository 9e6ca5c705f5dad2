"""Toy tenants: clients that bind, submit and recover like a real one, small enough to prove the core's promises with two of them.

Owns a tenant's grant, address space, page table, channel and fences. A job thread per tenant commits prepared updates in signalling
sections and signals their fences; `on_fault` errors all of them and waits for nothing. `journal` holds what it was told, with the host's
time. What a test hangs into `hooks` runs inside the callback of that name.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from nvcore.api.client import ClientContext, ClientStatus, Function, FunctionKind, QuiesceReason
from nvcore.api.errors import FirmwareDead, NvcoreError
from nvcore.api.events import Fault
from nvcore.api.grant import Channel, Grant, GrantRequest, Lease
from nvcore.api.marks import may_sleep, signalling_safe
from nvcore.api.needs import BootNeeds
from nvcore.api.offers import ClientOffer
from nvcore.locks import Fence, Lock, signalling, start_thread
from nvcore.testing.pagetable import ToyPageTable, ToyPlan

__all__ = ["ToyDriver", "ToyTenant", "toy_client"]

_TABLES = 0x100000
_POLL = 0.0005


class ToyTenant:
    """One tenant on one function."""

    def __init__(self, context: ClientContext, driver: ToyDriver) -> None:
        self.context, self.driver, self.name = context, driver, driver.name
        self.journal: list[tuple[str, float]] = []
        self.faults: list[Fault] = []
        self.hooks = driver.hooks
        self.lock = Lock("toy-vm")
        self._jobs: deque[tuple[Fence, ToyPlan, ToyPageTable]] = deque()
        self._flag = threading.Semaphore(0)
        self._books = Lock("toy-fences", leaf=True)
        self._open_fences: dict[int, Fence] = {}
        self.generation = context.generation
        self.vram_kept: list[str] = []
        self.grant: Grant = context.grant(driver.request)
        self._build()
        self._thread = start_thread(f"toy {self.name}", self._run)

    def _build(self) -> None:
        base = self.grant.vram[0]
        self.space = self.grant.create_space()
        self.tables: Lease = self.grant.map(type(base)(base.start, _TABLES))
        self.table = ToyPageTable(self.space, self.tables, self.lock, self.driver.at_prepare)
        self.table.link(4 if self.context.inventory.page_tables == 2 else 2)
        self.channel: Channel = self.grant.create_channel(
            self.space,
            self.driver.engine,
            ring_address=0x100000,
            ring_entries=64,
            instance=base.start + _TABLES,
            userd=base.start + _TABLES + 0x1000,
        )

    # work

    @may_sleep
    def bind(self, slot: int, value: int) -> Fence:
        """An asynchronous update; its fence is published when this returns. Raises what prepare raises, with no fence published."""
        fence = Fence(f"{self.name} slot {slot}")
        with self.lock:
            plan = self.table.prepare(slot, value)
        if not self.context.family("memory"):  # the firmware died under the preparation: nothing was published yet
            self.table.abort(plan)
            raise FirmwareDead("the GPU died while an update was prepared")
        with self._books:
            self._open_fences[id(fence)] = fence
        fence.publish()
        self._jobs.append((fence, plan, self.table))
        self._flag.release()
        return fence

    @signalling_safe
    def _finish(self, fence: Fence, error: BaseException | None) -> None:
        with self._books:
            mine = self._open_fences.pop(id(fence), None) is not None
        if mine:
            fence.signal(error)

    def _run(self) -> None:
        while True:
            self._flag.acquire()
            if not self._jobs:
                return
            fence, plan, table = self._jobs.popleft()
            with signalling():
                ticket = table.commit(plan)
                while not ticket.poll():
                    time.sleep(_POLL)
                self._finish(fence, FirmwareDead(f"{fence.name}: {ticket.error}") if ticket.error else None)
            if ticket.error is None and not fence.error:
                table.cleanup(plan)

    def submit(self) -> bool:
        """Ring the doorbell."""
        return self.channel.doorbell.ring()

    def _note(self, what: str) -> None:
        self.journal.append((what, self.context.clock.now()))

    def _hook(self, name: str) -> None:
        hook = self.hooks.get(name)
        if hook is not None:
            hook()

    # the Client contract

    @signalling_safe
    def on_fault(self, fault: Fault) -> None:
        """Error all fences now."""
        self._note("on_fault")
        self.faults.append(fault)
        with self._books:
            fences = tuple(self._open_fences.values())
        for fence in fences:
            self._finish(fence, FirmwareDead(f"{fence.name}: {fault.cause}"))
        self._hook("on_fault")

    @may_sleep
    def quiesce(self, reason: QuiesceReason, deadline: float, generation: int) -> None:
        """Stop."""
        self._note(f"quiesce {reason}")
        self._hook("quiesce")

    @may_sleep
    def resume(self, vram: Literal["kept", "lost"], generation: int) -> None:
        """Go on; after a loss, build everything again on the same grant."""
        self._note(f"resume {vram} {generation}")
        self._hook("resume")
        if vram == "lost":
            self.vram_kept = [self.grant.map(item).read(0, 16).hex() for item in self.grant.vram]
            self._build()
        elif not self.channel.alive:
            self.channel.close()
            base = self.grant.vram[0]
            self.channel = self.grant.create_channel(
                self.space,
                self.driver.engine,
                ring_address=0x100000,
                ring_entries=64,
                instance=base.start + _TABLES,
                userd=base.start + _TABLES + 0x1000,
            )
        self.generation = generation

    @may_sleep
    def status(self) -> ClientStatus:
        """Running."""
        return ClientStatus("running", f"{len(self._open_fences)} fences open")

    @may_sleep
    def remove(self) -> None:
        """Leave: stop the job thread, release the grant unless the test wants it left behind."""
        self._note("remove")
        self._hook("remove")
        self.stop()
        if not self.driver.leave_behind:
            self.grant.release()

    def stop(self) -> None:
        """End the job thread. Idempotent."""
        self._flag.release()
        self._thread.join(2.0)


class ToyDriver:
    """Drives `kind` functions with toy tenants; they are in `tenants`. leave_behind: `remove` releases nothing. at_prepare: see
    ToyPageTable."""

    def __init__(self, name: str, kind: FunctionKind, *, engine: str = "COPY0", request: GrantRequest | None = None) -> None:
        self.name, self.kind, self.engine = name, kind, engine
        self.request = request or GrantRequest(name, vram=4 << 20, channels=8)
        self.tenants: list[ToyTenant] = []
        self.hooks: dict[str, Callable[[], None]] = {}
        self.leave_behind = False
        self.at_prepare: Callable[[], None] | None = None

    @property
    def tenant(self) -> ToyTenant:
        """The newest tenant."""
        return self.tenants[-1]

    @may_sleep
    def match(self, function: Function) -> bool:
        """Its kind."""
        return function.kind == self.kind

    @may_sleep
    def probe(self, context: ClientContext) -> ToyTenant:
        """A tenant; one that cannot be built leaves what it had for the core to take down."""
        hook = self.hooks.get("probe")
        if hook is not None:
            hook()
        try:
            tenant = ToyTenant(context, self)
        except NvcoreError:
            context.report("client", f"{self.name} cannot be built")
            raise
        self.tenants.append(tenant)
        return tenant


def toy_client(
    name: str, kind: FunctionKind, *, engine: str = "COPY0", needs: BootNeeds | None = None, request: GrantRequest | None = None
) -> tuple[ClientOffer, ToyDriver]:
    """An offer of a toy client for functions of `kind`, and its driver."""
    driver = ToyDriver(name, kind, engine=engine, request=request)
    wanted = needs or BootNeeds(vgpu_host=kind == "vgpu", virtual_functions=4 if kind == "vgpu" else 0, display=kind == "display")
    return ClientOffer(name, "a toy", (kind,), lambda identity: wanted, lambda: driver, plugin=name), driver
