"""Grants: what of a GPU is whose, and everything in the firmware that hangs below.

Owns a grant's holding in the ledger, its firmware tenant (opened on first use), its parts (child grants, address spaces, channels, leases,
DMA buffers, interrupt lines), and the order in which they go: channels stop, spaces unlink, the tenant closes, leases are revoked, DMA maps
vanish, memory is scrubbed, units return (into quarantine when hardware may still reach them). A grant that is gone holds on to nothing of
its GPU, whoever keeps it. Client threads and the life-cycle thread; `kill` runs anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from nvcore.api.errors import DeviceGone, FirmwareDead, LeaseRevoked, NotSupportedError, OutOfResources, UsageError
from nvcore.api.families import ChannelFamily, ChannelSpec, Tenant
from nvcore.api.grant import Grant, GrantRequest, GrantState, Share
from nvcore.api.inventory import Range
from nvcore.api.marks import follows, interrupt_safe, may_sleep, signalling_safe
from nvcore.gpu.parts import GpuChannel, GpuSpace, GrantBuffer, Line, MemoryLease, Owned
from nvcore.gpu.threads import fails
from nvcore.locks import Lock
from nvcore.vmm.mapping import Extent
from nvcore.vmm.runs import cut

if TYPE_CHECKING:
    from nvcore.gpu.hardware import Hardware

_Part = TypeVar("_Part", bound="Owned | GpuGrant")


def _must(what: str, call: Callable[[], object]) -> bool:
    """Make a call that may raise; the counterpart of `fails`."""
    call()
    return False


@follows(Grant)
class GpuGrant:
    """One grant. `client` is the owner's name, `function` the function it was asked for; `problems` what could not be taken down properly;
    `about` what a line of the event log says of it."""

    def __init__(self, hardware: Hardware, client: str, function: str, request: GrantRequest, parent: GpuGrant | None = None) -> None:
        for share in request.shares:
            hardware.engine(share.engine)
            if share != Share(share.engine):
                raise NotSupportedError("scheduling weights are not built yet", seen=f"{share}", remedy="leave weight and timeslice_us out")
        self._hardware: Hardware | None = hardware
        self.client, self.function, self.label, self.parent = client, function, request.label, parent
        self.vm: str | None = request.vm or (parent.vm if parent else None)
        self.name = f"{hardware.name}/{client}/{next(hardware.serials)}"
        self.generation = hardware.gate.generation
        self.shares = request.shares
        self._final: GrantState | None = None  # how it ended
        self._quiescing = False  # set by the receiver or the life-cycle thread, also while it ends
        self.problems: list[str] = []
        hardware.ledger.take(self.name, request, parent.name if parent else None)
        self.root: Tenant | None = None
        self._parts: dict[Owned | GpuGrant, None] = {}  # in the order in which they were made
        self._extents: dict[Range, Extent] = {}
        self._lock = Lock("grant")  # of its end, and of its extents: none is made of memory that may be another's by then
        self.about: dict[str, Any] = {"function": function, "grant": self.name, "owner": client, "vm": self.vm}
        hardware.grants[self.name] = self

    # what it has

    @property
    def state(self) -> GrantState:
        """Live, quiescing, released or revoked."""
        return self._final or ("quiescing" if self._quiescing else "live")

    @property
    def ended(self) -> bool:
        """Whether it was released or revoked."""
        return self._final is not None

    @property
    def hardware(self) -> Hardware:
        """The GPU. Raises LeaseRevoked when the grant is gone."""
        hardware = self._hardware
        if hardware is None:
            raise LeaseRevoked(f"the grant {self.name} is {self.state}")
        return hardware

    @property
    def vram(self) -> Sequence[Range]:
        """Memory of the grant, without what children hold."""
        return self._holds("vram")

    @property
    def channels(self) -> Sequence[Range]:
        """Channel ids, on every runlist, without what children hold."""
        return self._holds("channels")

    @property
    def functions(self) -> Sequence[int]:
        """Virtual functions, from 1."""
        return tuple(number for item in self._holds("functions") for number in range(item.start, item.end))

    def _holds(self, kind: str) -> tuple[Range, ...]:
        hardware = self._hardware
        return hardware.ledger.holds(self.name, kind) if hardware is not None else ()

    @property
    @may_sleep
    def tenant(self) -> Tenant:
        """The root in the firmware; opened on first use. Raises FirmwareDead, LeaseRevoked."""
        if self.root is None or not self.root.open:
            self.root = self._live().session.open_tenant(self.name)
        return self.root

    # what its owner does with it

    def child(self, request: GrantRequest) -> GpuGrant:
        """Cut a child out of this grant. Raises OutOfResources or UsageError with the books unchanged. Memory that the device shares as one
        piece with what is under a lease is not cut; where a piece was mapped before, the cut may lose the piece's contents."""
        child = GpuGrant(self._live(), self.client, self.function, request, self)
        taken = child.vram
        touched = [item for item in self._extents if any(item.overlaps(one) for one in taken)]
        if any(lease.range.overlaps(item) for lease in self.parts(MemoryLease) for item in (*taken, *touched)):
            child._leave("released")
            raise UsageError("memory under a lease cannot be cut out of a grant", remedy="release the lease first, or name vram_at")
        for item in touched:
            self._extents.pop(item).close()  # no extent covers two owners; nobody has a lease in it
        return self._adopt(child)

    def map(self, range: Range) -> MemoryLease:
        """A lease on memory of this grant. Raises UsageError outside of it, LeaseRevoked when the grant is gone."""
        hardware = self._live()
        home = self.require_vram(range.start, range.size, "a lease")
        with self._lock:
            self._live()
            extent = next((known for known in self._extents.values() if known.range.contains(range)), None) or hardware.vram.extent(home)
            if extent is not None:
                self._extents[extent.range] = extent
        if extent is None:
            hardware.map_behind_bar1()
        return self._adopt(MemoryLease(self, range, extent.map(range) if extent is not None else None))

    def create_space(self) -> GpuSpace:
        """An address space for channels of this grant. Raises NotSupportedError, FirmwareDead, FirmwareRefused."""
        return self._adopt(GpuSpace(self, self._live().family("memory").create_space(self.tenant)))

    def create_channel(
        self, space: GpuSpace, engine: str, *, ring_address: int, ring_entries: int, instance: int, userd: int, privileged: bool = False
    ) -> GpuChannel:
        """A channel on `engine`, enabled when this returns. Raises OutOfResources without a free id, UsageError, NotFoundError,
        FirmwareRefused."""
        hardware = self._live()
        runlist = hardware.engine(engine).runlist
        if space.grant is not self or space.closed:
            raise UsageError("the address space is not one of this grant")
        self.require_vram(instance, 0x1000, "an instance block")
        self.require_vram(userd, 0x200, "a user-data page")
        family: ChannelFamily = hardware.family("channel")
        number, size = self._free_id(runlist), family.fault_buffer_size()
        with ExitStack() as undo:
            buffer = self.allocate_dma(size, label=f"fault buffer of {self.name}") if size else None
            if buffer is not None:
                undo.callback(buffer.close)
            faults = buffer.bus_address() if buffer is not None else 0
            spec = ChannelSpec(engine, number, ring_address, ring_entries, instance, userd, faults, size, privileged)
            channel = GpuChannel(self, engine, runlist, number, family.create(space.ref, spec), buffer)
            undo.pop_all()
            undo.callback(channel.close)
            self._adopt(channel)
            family.create_engine_object(channel.ref)
            family.enable(channel.ref)
            undo.pop_all()
        return channel

    def _free_id(self, runlist: int) -> int:
        used = {channel.channel for channel in self.parts(GpuChannel) if channel.runlist == runlist}
        free = [number for item in self.channels for number in range(item.start, item.end) if number not in used]
        if free:
            return free[0]
        raise OutOfResources(
            f"no free channel id in {self.name} on runlist {runlist}", expected="a channel id of the grant",
            seen=f"all {len(used)} in use", remedy="close a channel, or ask for a grant with more channels",
        )  # fmt: skip

    def interrupt(self, engine: str) -> Line:
        """Count the engine's non-stall interrupts. Raises NotFoundError; UsageError for an engine that raises none."""
        hardware = self._live()
        vector = hardware.engine(engine).nonstall_vector
        if vector is None:
            raise UsageError(f"engine {engine} raises no non-stall interrupt")
        return self._adopt(Line(self, hardware.tree, vector))

    def allocate_dma(self, size: int, *, label: str) -> GrantBuffer:
        """Host memory for the device, freed with the grant after its channels stopped."""
        return self._adopt(GrantBuffer(self, self._live().device.allocate_dma(size, label=label)))

    def scrub(self, range: Range) -> None:
        """Fill memory of the grant with zeros. Raises UsageError outside of it, DeviceGone."""
        self.require_vram(range.start, range.size, "a range to scrub")
        for known, piece in cut(range, tuple(self._extents)):
            (self.hardware.vram if known is None else self._extents[known]).zero(piece)

    def release(self) -> None:
        """Give everything back, in the order of this module's heading. Idempotent."""
        self.revoke("released by its owner", "released")

    # what the core does with it

    @interrupt_safe
    @signalling_safe
    def kill(self) -> None:
        """Revoke every doorbell of the grant and its children; no call into the firmware."""
        for channel in self._below(GpuChannel):
            channel.kill()

    def revoke_leases(self, cause: str) -> None:
        """Take back all leases, children's included."""
        for lease in self._below(MemoryLease):
            lease.revoke(cause)

    def set_quiescing(self, quiescing: bool) -> None:
        """Between a fault and resume nothing new is handed out, neither of the grant nor of its children."""
        for grant in (self, *self._below(GpuGrant)):
            grant._quiescing = quiescing

    @may_sleep
    def renew(self, generation: int, cause: str) -> None:
        """Begin anew under a new generation with the same resources, zeroed; what hung below in the firmware is gone. Where the firmware
        runs on (the grant's rung of the ladder): disable the channels, unset the page directories, invalidate, then scrub. Raises what the
        firmware or the invalidate answers: the next rung's business. Children, which hold what is theirs, come first."""
        for child in self.parts(GpuGrant):
            child.renew(generation, cause)
        try:
            self._clear(cause, _must)
            for item in self.vram:
                self.scrub(item)
        except (LeaseRevoked, UsageError):
            if not self.ended:  # else its owner gave it back meanwhile, which is no fault of anything
                raise
        self.generation = generation

    @may_sleep
    def revoke(self, cause: str, final: GrantState = "revoked") -> None:
        """The core takes the grant back without its owner, in the order of this module's heading."""
        with self._lock:
            if self.ended:
                return
            self._final = final
        hardware, problems = self.hardware, self.problems
        self.kill()
        stuck = False
        for child in self.parts(GpuGrant):
            child.revoke(cause, final)
            stuck |= bool(child.problems)
        stuck |= self._clear(cause, partial(fails, problems)) or not hardware.gate.open or hardware.device.gone
        buffers = self.parts(GrantBuffer)
        if stuck and hardware.gate.open:  # a channel that may still run may still write: its host memory stays until reset
            hardware.limbo.extend(buffers)
            buffers = []
        for part in (*buffers, *self.parts(Line)):
            fails(problems, part.what, part.close)
        for item in () if stuck else self.vram:
            stuck |= fails(problems, "scrub", self.scrub, item)
        self._leave(final, quarantine=("vram", "channels", "functions") if stuck else ())
        text = "; ".join([f"{final}: {self.label}: {cause}", *problems])
        hardware.publish("grant", text, action="quarantined until reset" if stuck else "scrubbed", **self.about)

    def _clear(self, cause: str, step: Callable[[str, Callable[[], object]], bool]) -> bool:
        """Channels stop, spaces unlink, the root in the firmware closes, leases are revoked. step: makes a call; whether that failed.
        Whether any did: hardware may then still reach the memory."""
        self.kill()
        stuck = False
        for part in (*self.parts(GpuChannel), *self.parts(GpuSpace)):
            stuck |= step(part.what, part.close)
        root, self.root = self.root, None
        if root is not None:
            stuck |= step("firmware tenant", root.close)
        self.revoke_leases(cause)
        self.hardware.vram.settle()  # what was being written through one of them ends before the scrub
        return stuck

    def _leave(self, final: GrantState, quarantine: Sequence[str] = ()) -> None:
        hardware, self._final = self.hardware, final
        with self._lock:
            extents, self._extents = self._extents, {}
        for extent in extents.values():
            extent.close()
        hardware.ledger.give_back(self.name, quarantine=quarantine)
        hardware.grants.pop(self.name, None)
        if self.parent is not None:
            self.parent.forget(self)
        self._parts, self._hardware = {}, None

    # the books of its parts

    def require_vram(self, address: int, size: int, what: str) -> Range:
        """The grant's range that holds [address, address + size). Raises UsageError."""
        held = self.vram
        for item in held:
            if size > 0 and item.start <= address and address + size <= item.end:
                return item
        owned = ", ".join(f"[{item.start:#x}, {item.end:#x})" for item in held)
        raise UsageError(f"{what} lies outside of the grant {self.name}", expected=owned or "no memory", seen=f"{address:#x} + {size:#x}")

    def _live(self) -> Hardware:
        """The GPU, for something new. Raises LeaseRevoked when the grant is gone, FirmwareDead until it is resumed, DeviceGone."""
        if self.ended:
            raise LeaseRevoked(f"the grant {self.name} is {self.state}")
        hardware = self.hardware
        hardware.gate.check()
        if self._quiescing:
            raise FirmwareDead(f"the grant {self.name} is being reset", seen=hardware.gate.cause, remedy="wait for resume")
        if hardware.device.gone:
            raise DeviceGone(f"the device of grant {self.name} left")
        return hardware

    def parts(self, kind: type[_Part]) -> list[_Part]:
        """Its parts of a kind, newest first."""
        return [part for part in reversed(tuple(self._parts)) if isinstance(part, kind)]

    def _below(self, kind: type[_Part]) -> list[_Part]:
        """Parts of a kind, its children's included."""
        return [*self.parts(kind), *(part for child in self.parts(GpuGrant) for part in child._below(kind))]

    def _adopt(self, part: _Part) -> _Part:
        """The part is the grant's. One that was made while another thread took the grant back goes at once: who does that marks the grant
        as ended first, and looks for parts then. Raises LeaseRevoked."""
        self._parts[part] = None
        if self.ended:
            with suppress(LeaseRevoked):  # of what went with the grant's root in the firmware
                (part.release if isinstance(part, GpuGrant) else part.close)()
            raise LeaseRevoked(f"the grant {self.name} is {self.state}")
        return part

    def forget(self, part: Owned | GpuGrant) -> None:
        """The part is being closed."""
        self._parts.pop(part, None)
