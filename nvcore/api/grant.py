"""Grants: what of a GPU is whose; leases: the only way to touch granted memory; address spaces, channels and doorbells on a grant.

The ledger behind grants belongs to the core. Every unit is free, owned, quarantined or retired, and the four sum to the total.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import attrs

from nvcore.api.device import DmaBuffer
from nvcore.api.families import Tenant
from nvcore.api.inventory import Range
from nvcore.api.marks import may_sleep, signalling_safe

__all__ = [
    "AddressSpace", "Channel", "Doorbell", "Grant", "GrantRequest", "GrantState", "Interrupt", "InvalidateTicket",
    "Lease", "LedgerRow", "Share",
]

GrantState = Literal["live", "quiescing", "revoked", "released"]


@attrs.frozen
class Share:
    """A share of an engine: `weight` against the other shares of that engine (1 to 1000), `timeslice_us` None for the firmware's
    default. A host that cannot set them, as none can yet, refuses all but the defaults with NotSupportedError."""

    engine: str
    weight: int = 100
    timeslice_us: int | None = None


@attrs.frozen
class GrantRequest:
    """What a client asks for. Zero or empty = none.

    vram: bytes; vram_align: bytes, power of two, at least 4 KiB (the VMMU segment for vGPUs); vram_at: exact start or None; top_down:
    search from the end. channels: a contiguous run of ids, `channels_at` its exact start; power_of_two_channels: aligned to its own size.
    bar1: bytes of window, whole 2 MiB entries. functions: VF numbers (from 1) by name. heads: how many. shares: engines
    that it will run on, all alike so far (see `Share`).
    """

    label: str
    vram: int = 0
    vram_align: int = 0x200000
    vram_at: int | None = None
    top_down: bool = False
    channels: int = 0
    channels_at: int | None = None
    power_of_two_channels: bool = False
    bar1: int = 0
    functions: tuple[int, ...] = ()
    heads: int = 0
    shares: tuple[Share, ...] = ()
    vm: str | None = None


@attrs.frozen
class LedgerRow:
    """The books of one kind of resource on one GPU, in its unit. total == free + owned + quarantined + retired, always."""

    kind: str
    unit: str
    total: int
    free: int
    owned: int
    quarantined: int
    retired: int
    owners: Mapping[str, int]


@signalling_safe
class Lease(Protocol):
    """A claim on a range of granted memory that the core can take back at any moment.

    After revocation every method raises LeaseRevoked; a view taken earlier then shows anonymous zeros and reaches nothing.
    """

    range: Range

    @property
    def valid(self) -> bool:
        """Whether it has not been revoked or released."""

    def read(self, offset: int, size: int) -> bytes:
        """Bytes at `offset` inside the lease."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store at `offset` inside the lease."""

    @may_sleep
    def view(self) -> memoryview:
        """The whole lease as writable memory, where the device can map it; else NotSupportedError."""

    @may_sleep
    def release(self) -> None:
        """Give it back. Idempotent."""


class InvalidateTicket(Protocol):
    """One asked-for invalidate. `done` once the hardware finished or the ticket failed; `error` then says why it failed, or is None."""

    @property
    def done(self) -> bool:
        """Finished, either way."""

    @property
    def error(self) -> str | None:
        """First cause of the failure."""

    @signalling_safe
    def poll(self) -> bool:
        """Look at the hardware once; whether the ticket is done. Takes the GPU's leaf lock for register accesses only."""

    @may_sleep
    def wait(self, timeout: float) -> bool:
        """Wait for `done`; never call it inside a signalling section."""


@may_sleep
class AddressSpace(Protocol):
    """An address space whose page tables its client owns. The core links the root and invalidates translations, nothing else."""

    grant: Grant

    def link(self, root: int, *, entries: int) -> None:
        """Tell the hardware where the root directory lies (VRAM address inside the grant)."""

    def unlink(self) -> None:
        """The reverse; the hardware has left the tables when this returns."""

    @signalling_safe
    def invalidate(self) -> InvalidateTicket:
        """Start dropping cached translations. Allocates nothing: tickets come from a reserve made with the space. On a dead generation the
        ticket is done at once, with its error."""

    def close(self) -> None:
        """Unlink and free. Idempotent."""


class Doorbell(Protocol):
    """The work-submission register, for one channel."""

    @signalling_safe
    def ring(self) -> bool:
        """Tell the hardware to look at the channel's ring. False when the channel was disabled or the generation is dead: nothing was
        rung."""


class Interrupt(Protocol):
    """An eventfd that counts one of the GPU's interrupts for one grant. `fd` is owned by the core; read it non-blocking, or poll it."""

    fd: int

    @may_sleep
    def close(self) -> None:
        """Stop counting; closes the descriptor."""


@may_sleep
class Channel(Protocol):
    """A channel of a grant. `doorbell` is what a submission path keeps."""

    channel: int
    engine: str
    doorbell: Doorbell

    @property
    def alive(self) -> bool:
        """Whether it is enabled and no fault has stopped it."""

    def disable(self) -> None:
        """Take it off its runlist. Idempotent."""

    def close(self) -> None:
        """Disable and free it. Idempotent."""


@may_sleep
class Grant(Protocol):
    """What one owner has of one GPU. Child grants split it further, with quota: a child never gets what its parent has not."""

    name: str
    label: str
    vm: str | None
    generation: int
    parent: Grant | None

    @property
    def state(self) -> GrantState:
        """Where it is in its life."""

    @property
    def vram(self) -> Sequence[Range]:
        """Memory of the grant, not counting what children hold."""

    @property
    def channels(self) -> Sequence[Range]:
        """Channel ids of the grant, on every runlist."""

    @property
    def functions(self) -> Sequence[int]:
        """Virtual functions of the grant, from 1."""

    @property
    def shares(self) -> Sequence[Share]:
        """Engine shares, as granted."""

    @property
    @may_sleep
    def tenant(self) -> Tenant:
        """The grant's root in the firmware, opened on first use; objects under it go when the grant goes."""

    def child(self, request: GrantRequest) -> Grant:
        """Cut a child grant out of this one. Raises OutOfResources with the ledger unchanged."""

    def map(self, range: Range) -> Lease:
        """A lease on memory of this grant. Raises UsageError outside of it, LeaseRevoked when the grant is gone."""

    def create_space(self) -> AddressSpace:
        """An address space for channels of this grant."""

    def create_channel(
        self, space: AddressSpace, engine: str, *, ring_address: int, ring_entries: int, instance: int, userd: int, privileged: bool = False
    ) -> Channel:
        """A channel on `engine` with a free id of the grant; enabled when this returns. Addresses as in `families.ChannelSpec`;
        instance and userd must lie inside the grant."""

    def interrupt(self, engine: str) -> Interrupt:
        """Count the engine's non-stall interrupts."""

    def allocate_dma(self, size: int, *, label: str) -> DmaBuffer:
        """Host memory for the device, freed with the grant, after its channels stopped."""

    def scrub(self, range: Range) -> None:
        """Fill memory of the grant with zeros."""

    def release(self) -> None:
        """Give everything back: channels stop, leases are revoked, DMA maps vanish, memory is scrubbed, ids return. Idempotent."""
