"""Clients at work on the functions of a booted GPU: who gets which, its context, its delivery thread, its callbacks with deadlines.

Two clients that want one function are a reported conflict and neither gets it; one whose probe fails leaves its function free, with the
reason. Owns the attachments' state. `on_fault` and vGPU events run on the attachment's own delivery thread, so that a hung client delays no
one else's; probe, quiesce, resume and remove run on the GPU's callback thread while the life-cycle thread waits for them, with a deadline;
one that hangs is abandoned with its thread. What a client left is taken down by the core.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nvcore.api.client import Client, ClientContext, ClientDriver, ClientStatus, Function, QuiesceReason
from nvcore.api.device import VirtualFunction
from nvcore.api.errors import ContractError, FirmwareDead, LeaseRevoked, NotFoundError, PluginError
from nvcore.api.events import EventKind, Fault, VgpuPluginEvent
from nvcore.api.families import Family
from nvcore.api.grant import Grant, GrantRequest, LedgerRow
from nvcore.api.marks import follows, interrupt_safe, signalling_safe
from nvcore.api.offers import ClientOffer
from nvcore.gpu.grants import GpuGrant
from nvcore.gpu.threads import Job, Worker, describe_error

if TYPE_CHECKING:
    from nvcore.gpu.hardware import Hardware
    from nvcore.gpu.life import Gpu
    from nvcore.host import Host


@follows(ClientContext)
class Context:
    """As `nvcore.api.client.ClientContext`, for one attachment. Its client may keep it, the GPU's parts are gone with `end`."""

    def __init__(self, gpu: Gpu, owner: str, function: Function, state_dir: Path) -> None:
        assert gpu.hardware is not None and gpu.identity is not None  # a function is published only by a booted GPU
        self._gpu, self._owner, self.function = gpu, owner, function
        self._held: Hardware | None = gpu.hardware
        self.gpu, self.inventory, self.clock = gpu.identity, gpu.hardware.inventory, gpu.clock
        self.config, self.state_dir = gpu.settings.clients.get(owner), state_dir
        self.log = logging.getLogger(f"nvcore.client.{owner}")
        self.vgpu_callbacks: tuple[Callable[[VgpuPluginEvent], None], ...] = ()

    def end(self) -> None:
        """The client left."""
        self._held, self.vgpu_callbacks = None, ()

    @property
    def _hardware(self) -> Hardware:
        held = self._held
        if held is None:
            raise ContractError(f"{self._owner} left {self.function.name}: its context ended with that")
        return held

    @property
    def generation(self) -> int:
        """The GPU's generation."""
        return self._hardware.gate.generation

    def grant(self, request: GrantRequest) -> Grant:
        """A top-level grant. Raises OutOfResources with the books unchanged."""
        hardware = self._hardware
        hardware.gate.check()
        grant = GpuGrant(hardware, self._owner, self.function.name, request)
        if self._held is None:  # it left while this was made, and the core may have looked for its grants already
            grant.revoke("its client left")
        self._hardware.publish("grant", f"granted: {request.label}", **grant.about)
        return grant  # type: ignore[return-value]  # the Protocol names Protocols for its parts; these are the core's own

    def family(self, name: str) -> Family | None:
        """A family of the running firmware; None without."""
        held = self._held
        return held.session.family(name) if held is not None and held.gate.open else None

    def virtual_function(self, number: int) -> VirtualFunction:
        """VF `number`, from 1. Raises NotFoundError."""
        functions = self._gpu.virtual_functions
        if not 1 <= number <= len(functions):
            raise NotFoundError(f"no virtual function {number} on {self._gpu.name}", expected=f"1 to {len(functions)}", seen=number)
        return functions[number - 1]

    def ledger(self) -> tuple[LedgerRow, ...]:
        """The GPU's books."""
        return self._hardware.ledger.rows()

    def report(self, kind: EventKind, text: str, **about: str | None) -> None:
        """Write a line into the event log. about: grant, vm, code, action."""
        self._gpu.publish(kind, text, function=self.function.name, owner=self._owner, **about)

    def subscribe_vgpu(self, callback: Callable[[VgpuPluginEvent], None]) -> Callable[[], None]:
        """Be told of changes of vGPU tasks, on the delivery thread; the result ends it."""
        self.vgpu_callbacks = (*self.vgpu_callbacks, callback)

        def end() -> None:
            self.vgpu_callbacks = tuple(other for other in self.vgpu_callbacks if other is not callback)

        return end

    def run(self, call: Callable[[], object], *, timeout: float) -> object:
        """Run `call` on the life-cycle thread (at once when this is it)."""
        return self._gpu.run(call, f"a call of {self._owner}", timeout)


class Attachment:
    """One client on one function. `client` is None before probe and after it left; `hung`: why nothing more is asked of it."""

    def __init__(self, gpu: Gpu, offer: ClientOffer, driver: ClientDriver, function: Function, state_dir: Path) -> None:
        self.name, self.plugin, self.driver, self.function = offer.name, offer.plugin or offer.name, driver, function
        self.context = Context(gpu, offer.name, function, state_dir)
        self.publish = partial(gpu.publish, "client", function=function.name, owner=offer.name)
        self._clock, self._calls, self._settings, self._down = gpu.clock, gpu.calls, gpu.settings, gpu.ladder.down
        self.client: Client | None = None
        self.hung: str | None = None
        self._told: deque[Job] = deque()  # in them `on_fault` runs, and one may be put down before one that was posted earlier
        self._last: Fault | None = None  # it was told of
        self.delivery = Worker(f"deliver {function.name}", gpu.clock, self._raised)

    def _raised(self, what: str, error: BaseException) -> None:
        """A callback on the delivery thread raised: its own fault, told and left at that; quiesce decides whether it is still at work."""
        cause, code, _ = describe_error(error)
        self.publish(f"{what} raised: {cause}", code=code)

    def _obeys(self, client: Client | None, what: str, timeout: float, call: Callable[[Client], object]) -> bool:
        """Have the client do something, after its `on_fault` ended; False when it fails, hangs, or hung before."""
        end = self._clock.now() + timeout
        if client is None or self.hung is not None:
            return self.hung is None
        try:
            while self._told:
                self._told[0].wait(self._clock, max(0.0, end - self._clock.now()))
                self._told.popleft()
            self._calls.call(partial(call, client), f"{self.name}: {what}", max(0.0, end - self._clock.now()), abandon=True)
        except Exception as error:  # isolation boundary: worker
            self.hung = describe_error(error)[0]
        return self.hung is None

    def probe(self) -> None:
        """Have the driver take the function. Raises what it raises, WaitTimeout, PluginError."""
        self.client = self._calls.call(lambda: self.driver.probe(self.context), f"{self.name}: probe", self._settings.call, abandon=True)
        if self.client is None:
            raise PluginError(f"{self.name} took {self.function.name} and gave no client")

    @interrupt_safe
    @signalling_safe
    def tell(self, fault: Fault) -> None:
        """Hand a fault to the delivery thread, once. Any thread; never waits."""
        client = self.client
        if client is not None and self.hung is None and self._last is not fault:
            self._last = fault
            self._told.append(self.delivery.post(lambda: client.on_fault(fault), f"{self.name}: on_fault"))

    @interrupt_safe
    def tell_vgpu(self, event: VgpuPluginEvent) -> None:
        """Hand a vGPU event to the delivery thread."""
        for callback in self.context.vgpu_callbacks:
            self.delivery.post(partial(callback, event), f"{self.name}: vGPU event")

    def quiesce(self, reason: QuiesceReason, generation: int) -> bool:
        """Have it leave the hardware before its deadline, in which on_fault too must end. False when either missed it or failed: the core
        then revokes alone."""
        deadline = self._clock.now() + self._settings.quiesce
        return self._obeys(self.client, "quiesce", self._settings.quiesce, lambda client: client.quiesce(reason, deadline, generation))

    def resume(self, vram: Literal["kept", "lost"], generation: int) -> bool:
        """Have it go on. False when it failed or hung; when the GPU died again meanwhile, that is not the client's failure."""

        def go_on(client: Client) -> None:
            try:
                client.resume(vram, generation)
            except (FirmwareDead, LeaseRevoked):
                if not self._down():
                    raise

        return self._obeys(self.client, "resume", self._settings.call, go_on)

    def remove(self) -> str | None:
        """Have it leave; the cause when it did not do so in order. Its delivery thread ends."""
        client, self.client = self.client, None
        self._obeys(client, "remove", self._settings.call, lambda client: client.remove())
        self.delivery.stop(0.0 if self.hung else self._settings.call)
        self.context.end()
        return self.hung

    def status(self) -> ClientStatus:
        """How it is; a client that cannot say counts as failed."""
        client = self.client
        if client is None or self.hung is not None:
            return ClientStatus("failed", self.hung) if self.hung is not None else ClientStatus("gone", "not attached")
        try:
            return client.status()
        except Exception as error:  # isolation boundary: worker
            return ClientStatus("failed", describe_error(error)[0])


def attach_clients(gpu: Gpu, host: Host) -> None:
    """Probe every client on every published function that is its own; those of a GPU that dies before or under it, when it runs again."""
    while gpu.unasked and not gpu.ladder.down():
        function = gpu.unasked.pop(0)
        offers = [offer for offer in host.clients if function.published and function.kind in offer.functions]
        claims = [offer for offer in offers if _matches(gpu, host, offer, function)]
        if len(claims) > 1:
            gpu.conflicts.append(f"clients {' and '.join(one.name for one in claims)} both claim {function.name}: none got it")
            gpu.publish("client", gpu.conflicts[-1], function=function.name, code="NVC-1005", action="select only one of them")
        elif claims:
            _attach(gpu, host, claims[0], function)


def _matches(gpu: Gpu, host: Host, offer: ClientOffer, function: Function) -> bool:
    """Whether a client's driver, which is opened for that, wants a function; False when it cannot say, which is on record then."""
    try:
        return host.open_driver(offer).match(function)
    except BaseException as error:  # isolation boundary: worker
        gpu.leave_out(offer.name, function, _failed(gpu, offer, function, error))
        return False


def _attach(gpu: Gpu, host: Host, offer: ClientOffer, function: Function) -> None:
    folder = host.state_dir / "clients" / offer.name
    folder.mkdir(parents=True, exist_ok=True)
    attachment = Attachment(gpu, offer, host.open_driver(offer), function, folder)
    gpu.attachments.append(attachment)
    gpu.own(function, offer.name)
    try:
        attachment.probe()
        attachment.publish(f"{offer.name} drives {function.name}")
    except BaseException as error:  # isolation boundary: worker
        cause, died = _failed(gpu, offer, function, error), gpu.ladder.down()
        gpu.detach(attachment, None if died else f"probe failed: {cause}")
        gpu.unasked[:0] = [function] if died else []  # no failure of the client's: it is asked again when the GPU runs


def _failed(gpu: Gpu, offer: ClientOffer, function: Function, error: BaseException) -> str:
    """Tell that a client failed on a function; the cause."""
    cause, code, remedy = describe_error(error)
    gpu.publish("client", f"{offer.name} failed on {function.name}: {cause}", owner=offer.name, code=code, action=remedy)
    return cause
