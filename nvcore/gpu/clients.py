"""A client at work on a function: its context, its delivery thread, its callbacks with deadlines.

Owns the attachment's state. `on_fault` and vGPU events run on the attachment's own delivery thread, so that a hung client delays no one
else's; probe, quiesce, resume and remove run on the GPU's callback thread while the life-cycle thread waits for them, with a deadline; one
that hangs is abandoned with its thread. What a client left is taken down by the core.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nvcore.api.client import Client, ClientDriver, ClientStatus, QuiesceReason
from nvcore.api.clock import Clock
from nvcore.api.device import VirtualFunction
from nvcore.api.errors import NotFoundError, PluginError, WaitTimeout
from nvcore.api.events import EventKind, Fault, VgpuPluginEvent
from nvcore.api.families import Family
from nvcore.api.function import Function
from nvcore.api.grant import Grant, GrantRequest, LedgerRow
from nvcore.api.identity import GpuIdentity
from nvcore.api.inventory import Inventory
from nvcore.api.marks import interrupt_safe, may_sleep, signalling_safe
from nvcore.gpu.grants import GpuGrant
from nvcore.gpu.threads import Job, Worker, describe_error

if TYPE_CHECKING:
    from nvcore.gpu.life import Gpu

__all__ = ["Attachment", "Context"]


class Context:
    """As `nvcore.api.client.ClientContext`, for one attachment."""

    def __init__(self, gpu: Gpu, attachment: Attachment, function: Function, config: object, state_dir: Path) -> None:
        hardware, identity = gpu.hardware, gpu.identity
        assert hardware is not None and identity is not None  # a function is published only by a booted GPU
        self._gpu, self._attachment, self._hardware = gpu, attachment, hardware
        self.function = function
        self.gpu: GpuIdentity = identity
        self.inventory: Inventory = hardware.inventory
        self.clock: Clock = gpu.clock
        self.config = config
        self.state_dir = state_dir
        self.log = logging.getLogger(f"nvcore.client.{attachment.name}")

    @property
    def generation(self) -> int:
        """The GPU's generation."""
        return self._hardware.gate.generation

    @may_sleep
    def grant(self, request: GrantRequest) -> Grant:
        """A top-level grant. Raises OutOfResources with the books unchanged."""
        self._hardware.check(self._hardware.gate)
        grant = GpuGrant(self._hardware, self._attachment.name, self._attachment.function.name, request)
        self._hardware.events.publish(
            "grant",
            f"granted: {request.label}",
            gpu=self._hardware.name,
            function=grant.function,
            grant=grant.name,
            owner=grant.client,
            vm=grant.vm,
        )
        return grant  # type: ignore[return-value]  # the Protocol names Protocols for its parts; these are the core's own

    def family(self, name: str) -> Family | None:
        """A family of the running firmware; None without."""
        return self._hardware.session.family(name) if self._hardware.gate.open else None

    @may_sleep
    def virtual_function(self, number: int) -> VirtualFunction:
        """VF `number`, from 1. Raises NotFoundError."""
        functions = self._gpu.virtual_functions
        if not 1 <= number <= len(functions):
            raise NotFoundError(f"no virtual function {number} on {self._hardware.name}", expected=f"1 to {len(functions)}", seen=number)
        return functions[number - 1]

    def ledger(self) -> tuple[LedgerRow, ...]:
        """The GPU's books."""
        return self._hardware.ledger.rows()

    @signalling_safe
    def report(
        self,
        kind: EventKind,
        text: str,
        *,
        grant: str | None = None,
        vm: str | None = None,
        code: str | None = None,
        action: str | None = None,
    ) -> None:
        """Write a line into the event log."""
        self._hardware.events.publish(
            kind,
            text,
            gpu=self._hardware.name,
            function=self.function.name,
            owner=self._attachment.name,
            grant=grant,
            vm=vm,
            code=code,
            action=action,
        )

    def subscribe_vgpu(self, callback: Callable[[VgpuPluginEvent], None]) -> Callable[[], None]:
        """Be told of changes of vGPU tasks, on the delivery thread; the result ends it."""
        attachment = self._attachment
        attachment.vgpu_callbacks = (*attachment.vgpu_callbacks, callback)

        def end() -> None:
            attachment.vgpu_callbacks = tuple(other for other in attachment.vgpu_callbacks if other is not callback)

        return end

    @may_sleep
    def run(self, call: Callable[[], object], *, timeout: float) -> object:
        """Run `call` on the life-cycle thread (at once when this is it)."""
        return self._gpu.run(call, f"a call of {self._attachment.name}", timeout)


class Attachment:
    """One client on one function. `client` is None before probe and after it left."""

    def __init__(
        self,
        name: str,
        plugin: str,
        driver: ClientDriver,
        function: Function,
        clock: Clock,
        calls: Worker,
        on_error: Callable[[Attachment, str, BaseException], None],
    ) -> None:
        self.name, self.plugin, self.driver, self.function = name, plugin, driver, function
        self._clock, self._calls, self.on_error = clock, calls, on_error
        self.client: Client | None = None
        self.context: Context | None = None
        self.hung: str | None = None
        self.vgpu_callbacks: tuple[Callable[[VgpuPluginEvent], None], ...] = ()
        self.delivery = Worker(f"deliver {function.name}", clock, lambda what, error: on_error(self, what, error))

    def probe(self, context: Context, timeout: float) -> None:
        """Have the driver take the function. Raises what it raises, WaitTimeout, PluginError."""
        self.context = context
        self.delivery.start()
        client = self._calls.call(lambda: self.driver.probe(context), f"{self.name}: probe", timeout, abandon=True)
        if client is None:
            raise PluginError(f"{self.name} took {self.function.name} and gave no client")
        self.client = client

    @interrupt_safe
    @signalling_safe
    def tell(self, fault: Fault) -> Job | None:
        """Hand a fault to the delivery thread; the job, to wait for. Any thread; never waits."""
        client = self.client
        if client is None or self.hung is not None:
            return None
        return self.delivery.post(lambda: client.on_fault(fault), f"{self.name}: on_fault")

    @interrupt_safe
    def tell_vgpu(self, event: VgpuPluginEvent) -> None:
        """Hand a vGPU event to the delivery thread."""
        for callback in self.vgpu_callbacks:
            self.delivery.post(partial(callback, event), f"{self.name}: vGPU event")

    @may_sleep
    def quiesce(self, told: Job | None, reason: QuiesceReason, deadline: float, generation: int) -> bool:
        """After `told` (its on_fault) ended, quiesce before `deadline`. False when either missed it or failed: the core then revokes
        alone."""
        client = self.client
        if client is None or self.hung is not None:
            return self.hung is None
        try:
            if told is not None and not (self._clock.wait(told.done, max(0.0, deadline - self._clock.now())) or told.done.is_set()):
                raise WaitTimeout(f"{self.name}: on_fault did not return in time")
            left = max(0.0, deadline - self._clock.now())
            self._calls.call(lambda: client.quiesce(reason, deadline, generation), f"{self.name}: quiesce", left, abandon=True)
        except Exception as error:  # isolation boundary: worker
            self.hung = describe_error(error)[0]
            return False
        return True

    @may_sleep
    def resume(self, vram: Literal["kept", "lost"], generation: int, timeout: float) -> bool:
        """Have it go on. False when it failed or hung."""
        client = self.client
        if client is None or self.hung is not None:
            return self.hung is None
        try:
            self._calls.call(lambda: client.resume(vram, generation), f"{self.name}: resume", timeout, abandon=True)
        except Exception as error:  # isolation boundary: worker
            self.hung = describe_error(error)[0]
            return False
        return True

    @may_sleep
    def remove(self, timeout: float) -> str | None:
        """Have it leave; the cause when it did not do so in order. Its delivery thread ends."""
        client, self.client = self.client, None
        cause = self.hung
        if client is not None and cause is None:
            try:
                self._calls.call(client.remove, f"{self.name}: remove", timeout, abandon=True)
            except Exception as error:  # isolation boundary: worker
                cause = describe_error(error)[0]
        self.delivery.stop(0.0 if cause else timeout)
        return cause

    def status(self) -> ClientStatus:
        """How it is; a client that cannot say counts as failed."""
        if self.hung is not None:
            return ClientStatus("failed", self.hung)
        client = self.client
        if client is None:
            return ClientStatus("gone", "not attached")
        try:
            return client.status()
        except Exception as error:  # isolation boundary: worker
            return ClientStatus("failed", describe_error(error)[0])

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        status = self.status()
        return {
            "name": self.name,
            "plugin": self.plugin,
            "function": self.function.name,
            "state": status.state,
            "text": status.text,
            "detail": dict(status.detail),
        }
