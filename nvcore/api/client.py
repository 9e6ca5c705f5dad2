"""Clients: drivers of functions. What a GPU offers them, match, probe, and what a client must answer when hardware fails under it.

The order on a fault: the core disables the channels first, then tells the owner (`on_fault`), the owner errors its own fences without
waiting for hardware, then `quiesce` with a deadline, then `resume` with a new generation. A missed deadline: the core revokes alone.

Threads: each GPU has a life-cycle thread and a callback thread. While a client's callback runs on the second, the first waits for it, with
a deadline; a callback that misses it is abandoned together with its thread. Each client has a delivery thread of its own besides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

import attrs

from nvcore.api.clock import Clock
from nvcore.api.device import VirtualFunction
from nvcore.api.events import EventKind, Fault, VgpuPluginEvent
from nvcore.api.families import Family
from nvcore.api.grant import Grant, GrantRequest, LedgerRow
from nvcore.api.identity import GpuIdentity
from nvcore.api.inventory import Inventory
from nvcore.api.marks import may_sleep, signalling_safe

__all__ = ["Client", "ClientContext", "ClientDriver", "ClientStatus", "Function", "FunctionKind", "QuiesceReason"]

FunctionKind = Literal["vgpu", "graphics", "display"]
QuiesceReason = Literal["channel-fault", "grant-reset", "gpu-reset", "gpu-lost", "unload", "operator"]


@attrs.frozen
class Function:
    """One function of one GPU, published on a registry much like the kernel's auxiliary bus. name: "0000:41:00.0/vgpu".

    published: clients may match it; otherwise `reason` and `remedy` say why not. owner: client that holds it, or None. One owner per
    function; an owner may leave at any time.
    """

    name: str
    kind: FunctionKind
    gpu: GpuIdentity
    published: bool
    reason: str | None = None
    remedy: str | None = None
    owner: str | None = None


@attrs.frozen
class ClientStatus:
    """One line of a client's state. detail: JSON-able, in the client's own schema."""

    state: Literal["running", "quiesced", "failed", "gone"]
    text: str
    detail: Mapping[str, object] = attrs.field(factory=dict)


@may_sleep
class ClientContext(Protocol):
    """What a client is given to drive one function. Valid until `remove` returned."""

    function: Function
    gpu: GpuIdentity
    inventory: Inventory
    clock: Clock
    config: object  # the client's configuration record (its ConfigSection), or None
    state_dir: Path  # the client's own folder in the state directory; exists
    log: logging.Logger

    @property
    def generation(self) -> int:
        """The GPU's generation; grows with every firmware start. Raises ContractError once the client left or was given up."""

    def grant(self, request: GrantRequest) -> Grant:
        """A top-level grant of this client. Raises OutOfResources, or NotSupportedError, with the ledger unchanged."""

    def family(self, name: str) -> Family | None:
        """A family of the running firmware; None when it has none of that name. Never keep it across a `resume`."""

    def virtual_function(self, number: int) -> VirtualFunction:
        """VF `number` (from 1). Raises NotFoundError."""

    def ledger(self) -> tuple[LedgerRow, ...]:
        """The GPU's books."""

    @signalling_safe
    def report(
        self, kind: EventKind, text: str, *, grant: str | None = None, vm: str | None = None, code: str | None = None,
        action: str | None = None,
    ) -> None:  # fmt: skip
        """Write a line into the event log."""

    def subscribe_vgpu(self, callback: Callable[[VgpuPluginEvent], None]) -> Callable[[], None]:
        """Be told, on the client's delivery thread, of changes of vGPU tasks in the firmware; the result ends it."""

    def run(self, call: Callable[[], object], *, timeout: float) -> object:
        """Run `call` on the GPU's life-cycle thread, where session calls are legal, and return or raise what it does; in a callback of
        this client, which that thread waits for, at once. WaitTimeout after `timeout` seconds: the call then goes on, its result is
        dropped."""


@may_sleep
class Client(Protocol):
    """A client at work on one function."""

    @signalling_safe
    def on_fault(self, fault: Fault) -> None:
        """Hardware of yours stopped: give your fences their errors now; wait for nothing. Runs on the client's delivery thread."""

    def quiesce(self, reason: QuiesceReason, deadline: float, generation: int) -> None:
        """Stop using the hardware before `deadline` (the context clock's time). Callback thread."""

    def resume(self, vram: Literal["kept", "lost"], generation: int) -> None:
        """Go on with a new generation. Grants are as before; when vram is "lost" their contents are zero. Callback thread."""

    def status(self) -> ClientStatus:
        """How it is. Any thread that may sleep; it answers at once."""

    def remove(self) -> None:
        """Leave the function. What is left behind, the core takes down. Callback thread."""


@may_sleep
class ClientDriver(Protocol):
    """A driver of functions; one per plugin and host."""

    name: str

    def match(self, function: Function) -> bool:
        """Whether it would drive this function. Pure. Life-cycle thread."""

    def probe(self, context: ClientContext) -> Client:
        """Take the function. Callback thread."""
