"""Grants: what of a GPU is whose, and everything in the firmware that hangs below.

Owns a grant's holding in the ledger, its firmware tenant (opened on first use), address spaces, channels, leases, DMA buffers and interrupt
lines, and the order in which they go: channels stop, spaces unlink, the tenant closes, leases are revoked, DMA maps vanish, memory is
scrubbed, units return (into quarantine when hardware may still reach them). Client threads and the life-cycle thread; `kill` runs anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from nvcore.api.errors import DeviceGone, FirmwareDead, LeaseRevoked, NvcoreError, OutOfResources, UsageError
from nvcore.api.families.channel import ChannelFamily, ChannelSpec
from nvcore.api.families.memory import MemoryFamily
from nvcore.api.grant import GrantRequest, GrantState, Share
from nvcore.api.inventory import Range
from nvcore.api.marks import interrupt_safe, may_sleep, signalling_safe
from nvcore.gpu.buffers import GrantBuffer
from nvcore.gpu.channels import GpuChannel, GpuSpace
from nvcore.gpu.interrupts import Line
from nvcore.gpu.leases import MemoryLease
from nvcore.gpu.memory import Extent

if TYPE_CHECKING:
    from nvcore.api.families import Tenant
    from nvcore.gpu.hardware import Hardware

__all__ = ["GpuGrant"]

_Part = TypeVar("_Part")


class GpuGrant:
    """One grant. `client` is the owner's name, `function` the function it was asked for; `problems` what could not be taken down
    properly."""

    def __init__(self, hardware: Hardware, client: str, function: str, request: GrantRequest, parent: GpuGrant | None = None) -> None:
        for share in request.shares:
            hardware.engine(share.engine)
            if not 1 <= share.weight <= 1000:
                raise UsageError("a share's weight is out of range", expected="1 to 1000", seen=share.weight)
        self.hardware, self.client, self.function, self.label, self.parent = hardware, client, function, request.label, parent
        self.vm: str | None = request.vm or (parent.vm if parent else None)
        self.name = f"{hardware.name}/{client}/{hardware.next_serial()}"
        self.generation = hardware.gate.generation
        self._holding = hardware.ledger.take(self.name, request, parent.name if parent else None)
        self._shares = request.shares
        self._state: GrantState = "live"
        self._tenant: Tenant | None = None
        self._spaces: list[GpuSpace] = []
        self._channels: list[GpuChannel] = []
        self._leases: list[MemoryLease] = []
        self._buffers: list[GrantBuffer] = []
        self._lines: list[Line] = []
        self._children: list[GpuGrant] = []
        self._extents: dict[Range, Extent] = {}
        self.problems: list[str] = []
        with hardware.lock:
            hardware.grants[self.name] = self

    # what it has

    @property
    def state(self) -> GrantState:
        """Where it is in its life."""
        return self._state

    @property
    def vram(self) -> Sequence[Range]:
        """Memory of the grant, without what children hold."""
        return self.hardware.ledger.holds(self.name, "vram")

    @property
    def channels(self) -> Sequence[Range]:
        """Channel ids, on every runlist, without what children hold."""
        return self.hardware.ledger.holds(self.name, "channels")

    @property
    def functions(self) -> Sequence[int]:
        """Virtual functions, from 1."""
        return tuple(number for item in self.hardware.ledger.holds(self.name, "functions") for number in range(item.start, item.end))

    @property
    def shares(self) -> Sequence[Share]:
        """Engine shares, as granted."""
        return self._shares

    @property
    def tenant(self) -> Tenant:
        """The root in the firmware; opened on first use. Raises FirmwareDead, LeaseRevoked."""
        if self._tenant is None or not self._tenant.open:
            self._live()
            self.hardware.check(self.hardware.gate)
            self._tenant = self.hardware.session.open_tenant(self.name)
        return self._tenant

    @property
    def has_tenant(self) -> bool:
        """Whether it has a root in the firmware now."""
        return self._tenant is not None

    @property
    def space_count(self) -> int:
        """Address spaces in the firmware."""
        return len(self._spaces)

    @property
    def live_channels(self) -> tuple[GpuChannel, ...]:
        """Channels that exist."""
        return tuple(self._channels)

    @property
    def children(self) -> tuple[GpuGrant, ...]:
        """Grants cut out of this one."""
        return tuple(self._children)

    # what its owner does with it

    @may_sleep
    def child(self, request: GrantRequest) -> GpuGrant:
        """Cut a child out of this grant. Raises OutOfResources or UsageError with the books unchanged. Memory that the device shares as one
        piece with what is under a lease is not cut; where a piece was mapped before, the cut may lose the piece's contents."""
        self._live()
        child = GpuGrant(self.hardware, self.client, self.function, request, self)
        taken = child.vram
        cut = [extent.range for extent in self._extents.values() if any(extent.range.overlaps(item) for item in taken)]
        if any(lease.range.overlaps(item) for lease in self._leases for item in (*taken, *cut)):
            child._leave()
            raise UsageError("memory under a lease cannot be cut out of a grant", remedy="release the lease first, or name vram_at")
        self._adopt(self._children, child)
        for item in [item for item in self._extents if any(item.overlaps(cut) for cut in taken)]:
            self._extents.pop(item).close()  # no extent covers two owners; nobody has a lease in it
        return child

    @may_sleep
    def map(self, range: Range) -> MemoryLease:
        """A lease on memory of this grant. Raises UsageError outside of it, LeaseRevoked when the grant is gone."""
        self._live()
        home = self.require_vram(range.start, range.size, "a lease")
        vram = self.hardware.vram
        extent = next((known for known in self._extents.values() if known.range.contains(range)), None)
        if extent is None:
            extent = vram.extent(home)
            if extent is not None:
                self._extents[home] = extent
            else:
                self.hardware.map_behind_bar1()
        mapped = extent.map(range) if extent is not None else None
        lease = MemoryLease(range, vram, mapped, self._forget_lease, self.name)
        self._adopt(self._leases, lease)
        return lease

    @may_sleep
    def create_space(self) -> GpuSpace:
        """An address space for channels of this grant. Raises NotSupportedError, FirmwareDead, FirmwareRefused."""
        self._live()
        family = cast(MemoryFamily, self.hardware.family("memory"))
        space = GpuSpace(self, family.create_space(self.tenant))
        self._adopt(self._spaces, space)
        return space

    @may_sleep
    def create_channel(
        self, space: GpuSpace, engine: str, *, ring_address: int, ring_entries: int, instance: int, userd: int, privileged: bool = False
    ) -> GpuChannel:
        """A channel on `engine`, enabled when this returns. Raises OutOfResources without a free id, UsageError, NotFoundError,
        FirmwareRefused."""
        self._live()
        hardware = self.hardware
        runlist = hardware.engine(engine).runlist
        if space.grant is not self or space.closed:
            raise UsageError("the address space is not one of this grant")
        self.require_vram(instance, 0x1000, "an instance block")
        self.require_vram(userd, 0x200, "a user-data page")
        family = cast(ChannelFamily, hardware.family("channel"))
        number = self._free_id(runlist)
        size = family.fault_buffer_size()
        buffer = hardware.device.allocate_dma(size, label=f"fault buffer of {self.name}") if size else None
        try:
            spec = ChannelSpec(
                engine, number, ring_address, ring_entries, instance, userd, buffer.bus_address() if buffer else 0, size, privileged
            )
            ref = family.create(space.ref, spec)
        except NvcoreError:
            if buffer is not None:
                buffer.close()
            raise
        channel = GpuChannel(self, engine, runlist, number, ref, buffer)
        self._adopt(self._channels, channel)
        with hardware.lock:
            hardware.channels[runlist, number] = channel
        try:
            family.create_engine_object(ref)
            family.enable(ref)
        except NvcoreError:
            channel.close()
            raise
        return channel

    def _free_id(self, runlist: int) -> int:
        used = {channel.channel for channel in self._channels if channel.runlist == runlist}
        for item in self.channels:
            for number in range(item.start, item.end):
                if number not in used:
                    return number
        raise OutOfResources(
            f"no free channel id in {self.name} on runlist {runlist}",
            expected="a channel id of the grant",
            seen=f"{len(used)} in use of {sum(item.size for item in self.channels)}",
            remedy="close a channel, or ask for a grant with more channels",
        )

    @may_sleep
    def interrupt(self, engine: str) -> Line:
        """Count the engine's non-stall interrupts. Raises NotFoundError; UsageError for an engine that raises none."""
        self._live()
        vector = self.hardware.engine(engine).nonstall_vector
        if vector is None:
            raise UsageError(f"engine {engine} raises no non-stall interrupt")
        line = self.hardware.tree.route(vector)
        self._adopt(self._lines, line)
        return line

    @may_sleep
    def allocate_dma(self, size: int, *, label: str) -> GrantBuffer:
        """Host memory for the device, freed with the grant after its channels stopped."""
        self._live()
        buffer = GrantBuffer(self.hardware.device.allocate_dma(size, label=label), self._forget_buffer)
        self._adopt(self._buffers, buffer)
        return buffer

    @may_sleep
    def scrub(self, range: Range) -> None:
        """Fill memory of the grant with zeros. Raises UsageError outside of it, DeviceGone."""
        self.require_vram(range.start, range.size, "a range to scrub")
        for known, piece in self._pieces(range):
            if known is not None:
                known.zero(piece)
                continue
            extent = self.hardware.vram.extent(piece) if piece.start % 0x1000 == piece.size % 0x1000 == 0 else None
            if extent is None:
                self.hardware.vram.zero(piece)
                continue
            try:
                extent.zero(piece)
            finally:
                extent.close()

    def _pieces(self, whole: Range) -> list[tuple[Extent | None, Range]]:
        """`whole` cut at the borders of the extents that the grant has: writing through the window what a descriptor could punch takes
        minutes."""
        pieces: list[tuple[Extent | None, Range]] = []
        at = whole.start
        for known in sorted(self._extents.values(), key=lambda extent: extent.range.start):
            start, end = max(known.range.start, at), min(known.range.end, whole.end)
            if start >= end:
                continue
            if at < start:
                pieces.append((None, Range(at, start - at)))
            pieces.append((known, Range(start, end - start)))
            at = end
        if at < whole.end:
            pieces.append((None, Range(at, whole.end - at)))
        return pieces

    @may_sleep
    def release(self) -> None:
        """Give everything back, in the order of this module's heading. Idempotent."""
        if self._state in ("released", "revoked"):
            return
        self._take_down("released", "released by its owner")

    # what the core does with it

    @interrupt_safe
    @signalling_safe
    def kill(self) -> None:
        """Revoke every doorbell of the grant and its children; no call into the firmware."""
        for channel in tuple(self._channels):
            channel.kill()
        for child in tuple(self._children):
            child.kill()

    def revoke_leases(self, cause: str) -> None:
        """Take back all leases, children's included."""
        for lease in tuple(self._leases):
            lease.revoke(cause)
        for child in tuple(self._children):
            child.revoke_leases(cause)

    def set_quiescing(self, quiescing: bool) -> None:
        """Between a fault and resume nothing new is handed out."""
        if self._state in ("live", "quiescing"):
            self._state = "quiescing" if quiescing else "live"
        for child in tuple(self._children):
            child.set_quiescing(quiescing)

    @may_sleep
    def revoke(self, cause: str) -> None:
        """The core takes the grant back without its owner."""
        if self._state not in ("released", "revoked"):
            self._take_down("revoked", cause)

    @may_sleep
    def reset(self, generation: int) -> None:
        """The grant's rung of the ladder: disable its channels, unset its page directories, invalidate, scrub; then a new generation.
        Raises what the firmware or the invalidate answers: the next rung's business. Children, which hold what is theirs, are reset with
        it."""
        for child in tuple(self._children):
            child.reset(generation)
        self.kill()
        for channel in tuple(self._channels):
            channel.disable()
        for space in tuple(self._spaces):
            space.unlink()
        self.revoke_leases("grant reset")
        for channel in tuple(self._channels):
            channel.close()
        for space in tuple(self._spaces):
            space.close()
        tenant, self._tenant = self._tenant, None
        if tenant is not None:
            tenant.close()
        for item in self.vram:
            self.scrub(item)
        self.generation = generation

    @may_sleep
    def renew(self, generation: int) -> None:
        """After a firmware reboot: the same resources, zeroed, under a new generation; what hung below in the old firmware is forgotten."""
        for child in tuple(self._children):
            child.renew(generation)
        self._forget_hardware()
        for item in self.vram:
            self.scrub(item)
        self.generation = generation

    def _forget_hardware(self) -> None:
        self.kill()
        self.revoke_leases("the firmware was restarted")
        for channel in tuple(self._channels):
            channel.close()
        for space in tuple(self._spaces):
            space.close()
        self._tenant = None

    def _take_down(self, final: GrantState, cause: str) -> None:
        self._state = final
        self.kill()
        stuck = not self.hardware.gate.open or self.hardware.device.gone

        def step(what: str, call: Callable[[], None]) -> bool:
            try:
                call()
            except NvcoreError as error:
                self.problems.append(f"{what}: {error}")
                return False
            return True

        for child in reversed(tuple(self._children)):
            child._take_down(final, cause)
            stuck = stuck or bool(child.problems)
        for channel in reversed(tuple(self._channels)):
            stuck = not step(f"channel {channel.channel}", channel.close) or stuck
        for space in reversed(tuple(self._spaces)):
            stuck = not step("address space", space.close) or stuck or space.stuck
        tenant, self._tenant = self._tenant, None
        if tenant is not None:
            stuck = not step("firmware tenant", tenant.close) or stuck
        self.revoke_leases(cause)
        buffers = reversed(tuple(self._buffers))
        if stuck and self.hardware.gate.open:  # a channel that may still run may still write: its host memory stays until reset
            self.hardware.limbo.extend(buffers)
        else:
            for buffer in buffers:
                step("DMA buffer", buffer.close)
        self._buffers.clear()
        for line in tuple(self._lines):
            step("interrupt", line.close)
        self._lines.clear()
        if not stuck:
            for item in self.vram:
                stuck = not step("scrub", lambda item=item: self.scrub(item)) or stuck  # type: ignore[misc]
        for extent in self._extents.values():
            extent.close()
        self._extents.clear()
        self._leave(quarantine=("vram", "channels", "functions") if stuck else ())
        action = "quarantined until reset" if stuck else "scrubbed"
        self.hardware.events.publish(
            "grant",
            f"{final}: {self.label}: {cause}" + (f"; {'; '.join(self.problems)}" if self.problems else ""),
            gpu=self.hardware.name,
            function=self.function,
            grant=self.name,
            owner=self.client,
            vm=self.vm,
            action=action,
        )

    def _leave(self, quarantine: Sequence[str] = ()) -> None:
        if self._state not in ("released", "revoked"):
            self._state = "released"
        self.hardware.ledger.give_back(self._holding, quarantine=quarantine)
        with self.hardware.lock:
            self.hardware.grants.pop(self.name, None)
            if self.parent is not None and self in self.parent._children:
                self.parent._children.remove(self)

    # the books of its parts

    def require_vram(self, address: int, size: int, what: str) -> Range:
        """The grant's range that holds [address, address + size). Raises UsageError."""
        for item in self.vram:
            if size > 0 and item.start <= address and address + size <= item.end:
                return item
        owned = ", ".join(f"[{item.start:#x}, {item.end:#x})" for item in self.vram)
        raise UsageError(f"{what} lies outside of the grant {self.name}", expected=owned or "no memory", seen=f"{address:#x} + {size:#x}")

    def _live(self) -> None:
        if self._state in ("released", "revoked"):
            raise LeaseRevoked(f"the grant {self.name} is {self._state}")
        if self._state == "quiescing":
            raise FirmwareDead(f"the grant {self.name} is being reset", seen=self.hardware.gate.cause, remedy="wait for resume")
        if not self.hardware.gate.open:
            raise FirmwareDead(f"the GPU of grant {self.name} is down", seen=self.hardware.gate.cause, remedy="wait for resume")
        if self.hardware.device.gone:
            raise DeviceGone(f"the device of grant {self.name} left")

    def _adopt(self, parts: list[_Part], part: _Part) -> None:
        with self.hardware.lock:
            parts.append(part)

    def _forget_lease(self, lease: MemoryLease) -> None:
        self._drop(self._leases, lease)

    def _forget_buffer(self, buffer: GrantBuffer) -> None:
        self._drop(self._buffers, buffer)

    def forget_space(self, space: GpuSpace) -> None:
        """The space is being closed."""
        self._drop(self._spaces, space)

    def forget_channel(self, channel: GpuChannel) -> None:
        """The channel is being closed; its id is free when the firmware has answered, or with the grant."""
        self._drop(self._channels, channel)
        with self.hardware.lock:
            self.hardware.channels.pop((channel.runlist, channel.channel), None)

    def _drop(self, parts: list[_Part], part: _Part) -> None:
        with self.hardware.lock:
            if part in parts:
                parts.remove(part)
