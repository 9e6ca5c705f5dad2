"""What hangs below a grant: leases, the only way to touch granted memory; host memory, interrupts, address spaces, channels.

Owns the base of all of them: closed once, by whoever comes first, and forgotten by the grant then; their state, the mapping behind a lease,
and the counterparts in the firmware, which they let go when they are closed. The core links a root, makes a channel, hands out a doorbell;
it never looks into a page table. Methods run in the caller's thread, where session calls are legal. `revoke`, `kill`, `invalidate` and
`ring` may run anywhere, also on a receiver thread, the last three in a signalling section: they call no client and no firmware; a view that
a holder kept of a lease then shows anonymous zeros. A ring that raced with the closing of its gate reaches a channel that the hardware is
taken off anyway. Source: DESIGN "Faults", on revocation; open-gpu-kernel-modules 570.144 dev_vm.h (NV_VIRTUAL_FUNCTION_DOORBELL).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvcore.api.device import Bar, DmaBuffer
from nvcore.api.errors import ContractError, DeviceGone, LeaseRevoked, NotSupportedError, NvcoreError
from nvcore.api.families import ChannelRef, MemoryFamily, SpaceRef
from nvcore.api.grant import AddressSpace, Channel, Lease
from nvcore.api.inventory import Range
from nvcore.api.marks import follows, interrupt_safe, may_sleep, signalling_safe
from nvcore.gpu.interrupts import InterruptTree
from nvcore.gpu.invalidate import Gate, Ticket, TicketRing
from nvcore.gpu.memory import VramAccess
from nvcore.hw.interrupts import USERMODE_DOORBELL
from nvcore.vmm.mapping import Mapped

if TYPE_CHECKING:
    from nvcore.gpu.grants import GpuGrant

_DOORBELL = USERMODE_DOORBELL.address()


class Owned:
    """Base of all of them. what: a word for people."""

    __slots__ = ("closed", "grant", "what")

    def __init__(self, grant: GpuGrant, what: str) -> None:
        self.grant, self.what, self.closed = grant, what, False

    @may_sleep
    def close(self) -> None:
        """Its grant's no more, then ended. Idempotent: what ended in an error is closed too."""
        if not self.closed:
            self.closed = True
            self.grant.forget(self)
            self._end()

    def _end(self) -> None:
        """Let go of what is behind it; called once."""


class GrantBuffer(Owned):
    """As `nvcore.api.device.DmaBuffer`; `bus_address` is the device's own bound method, so that a submission path pays nothing for the
    wrapping."""

    __slots__ = ("_inner", "bus_address", "contiguous", "fd", "size", "view")

    def __init__(self, grant: GpuGrant, inner: DmaBuffer) -> None:
        super().__init__(grant, "DMA buffer")
        self._inner, self.bus_address, self.contiguous = inner, inner.bus_address, inner.contiguous
        self.size, self.view, self.fd = inner.size, inner.view, inner.fd

    def _end(self) -> None:
        """Unmap it from the device, then free it."""
        self.view = memoryview(b"")
        self._inner.close()


@follows(Lease)
class MemoryLease(Owned):
    """A claim on `range` (VRAM addresses). mapped: the memory in this process, or None where every access goes through the window."""

    __slots__ = ("_cause", "_memory", "range")

    def __init__(self, grant: GpuGrant, item: Range, mapped: Mapped | None) -> None:
        super().__init__(grant, "lease")
        self.range = item
        self._memory: Mapped | VramAccess = mapped or grant.hardware.vram
        self._cause: str | None = None

    @property
    def valid(self) -> bool:
        """Whether it has been neither revoked nor released."""
        return not self.closed

    def _check(self, offset: int, size: int) -> None:
        if self.closed:
            what = f"the lease on [{self.range.start:#x}, {self.range.end:#x}) of {self.grant.name} is gone"
            raise LeaseRevoked(what, seen=self._cause, remedy="acquire the memory again after resume, or give up")
        if offset < 0 or size < 0 or offset + size > self.range.size:
            raise ContractError("access outside of a lease", expected=f"within {self.range.size:#x} bytes", seen=f"{offset:#x} + {size:#x}")

    def read(self, offset: int, size: int) -> bytes:
        """Bytes at `offset`. Raises LeaseRevoked, also when it is taken back meanwhile: what was read may be the zeros in its place;
        ContractError."""
        self._check(offset, size)
        memory, at = self._memory, self.range.start + offset
        data = memory.read(offset, size) if isinstance(memory, Mapped) else memory.read(at, size, lambda: self.closed)
        self._check(offset, size)
        return data

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store at `offset`. Raises LeaseRevoked, also when it is taken back meanwhile; ContractError."""
        size = memoryview(data).nbytes
        self._check(offset, size)
        if isinstance(self._memory, Mapped):
            self._memory.write(offset, data)
        else:
            self._memory.write(self.range.start + offset, data, lambda: self.closed)
        self._check(offset, size)

    def view(self) -> memoryview:
        """The whole lease, writable. Raises LeaseRevoked; NotSupportedError where the device cannot be mapped revocably."""
        self._check(0, 0)
        if not isinstance(self._memory, Mapped):
            raise NotSupportedError("this device's memory cannot be mapped", remedy="use read and write of the lease")
        return self._memory.view

    def release(self) -> None:
        """Give it back. Idempotent."""
        self.revoke("released by its holder")

    def revoke(self, cause: str) -> None:
        """Take it back from its holder, whatever views exist. Idempotent."""
        self._cause = self._cause or cause
        self.close()

    def _end(self) -> None:
        if isinstance(self._memory, Mapped):
            self._memory.revoke()


class Line(Owned):
    """The grant's count of one vector: an eventfd that the core owns."""

    __slots__ = ("_tree", "fd", "vector")

    def __init__(self, grant: GpuGrant, tree: InterruptTree, vector: int) -> None:
        super().__init__(grant, "interrupt")
        self._tree, self.vector, self.fd = tree, vector, tree.route(vector)

    def _end(self) -> None:
        """Stop counting and close the descriptor."""
        fd, self.fd = self.fd, -1
        self._tree.drop(self.vector, fd)


@follows(AddressSpace)
class GpuSpace(Owned):
    """An address space whose tables its client owns."""

    __slots__ = ("_gate", "_invalidator", "_ring", "_root", "ref")

    def __init__(self, grant: GpuGrant, ref: SpaceRef) -> None:
        super().__init__(grant, "address space")
        self.ref, self._gate, self._invalidator = ref, grant.hardware.gate, grant.hardware.invalidator
        self._ring = TicketRing(self._invalidator, self._gate)
        self._root: int | None = None

    def _family(self) -> MemoryFamily:
        self._gate.check()
        family: MemoryFamily = self.grant.hardware.family("memory")
        return family

    def link(self, root: int, *, entries: int) -> None:
        """Tell the hardware where the root directory lies. Raises UsageError outside of the grant, FirmwareDead."""
        family = self._family()
        if self.closed:
            raise ContractError("the address space is closed")
        self.grant.require_vram(root, 0x1000, "a root directory")
        family.set_page_directory(self.ref, root, entries=entries)
        self._root = root

    def unlink(self) -> None:
        """Unlink the root; the hardware has left the tables when this returns. When it raises, it may not have: the memory is not free
        again before a reset."""
        if self._root is not None:
            self._family().unset_page_directory(self.ref)
            self._invalidator.start(self._ring, self._root).finish()
            self._root = None

    def invalidate(self) -> Ticket:
        """Start dropping cached translations of this space."""
        return self._invalidator.start(self._ring, self._root or 0)

    def _end(self) -> None:
        """Unlink and free; on a dead generation it only forgets."""
        alive, ref = self._gate.open, self.ref
        try:
            if alive:
                self.unlink()
        finally:
            del self.ref
            if alive:
                self._family().free_space(ref)


class ChannelDoorbell:
    """The doorbell of one channel."""

    __slots__ = ("_gate", "_token", "_write", "armed")

    def __init__(self, bar: Bar, token: int, gate: Gate) -> None:
        self._write, self._token, self._gate = bar.write32, token, gate
        self.armed = True

    @signalling_safe
    def ring(self) -> bool:
        """Tell the hardware to look at the channel's ring; False when channel or generation is dead, and nothing was rung."""
        if not (self.armed and self._gate.open):
            return False
        try:
            self._write(_DOORBELL, self._token)
        except DeviceGone:
            return False
        return True


@follows(Channel)
class GpuChannel(Owned):
    """A channel. `doorbell` is what a submission path keeps."""

    __slots__ = ("_buffer", "_gate", "channel", "doorbell", "engine", "ref", "runlist")

    def __init__(self, grant: GpuGrant, engine: str, runlist: int, channel: int, ref: ChannelRef, buffer: GrantBuffer | None) -> None:
        super().__init__(grant, f"channel {channel}")
        self.engine, self.runlist, self.channel, self.ref, self._buffer = engine, runlist, channel, ref, buffer
        self._gate = grant.hardware.gate
        self.doorbell = ChannelDoorbell(grant.hardware.device.bars[0], ref.token, self._gate)

    @property
    def alive(self) -> bool:
        """Whether it is enabled and no fault has stopped it."""
        return self.doorbell.armed and self._gate.open

    @interrupt_safe
    @signalling_safe
    def kill(self) -> bool:
        """Revoke the doorbell and count the channel as dead, with no call into the firmware. Whether it was alive."""
        was, self.doorbell.armed = self.alive, False
        return was

    def disable(self) -> None:
        """Take it off its runlist. Idempotent; nothing to do on a dead generation."""
        self.kill()
        ref = getattr(self, "ref", None)
        if ref is None or not self._gate.open:
            return
        try:
            self.grant.hardware.family("channel").disable(ref)
        except NvcoreError:
            if not self.closed:  # else its owner closed it meanwhile, which takes it off too
                raise

    def _end(self) -> None:
        """Disable and free it; then its fault buffer, which the hardware does not reach any more. When it raises, the buffer may still be
        written to: it stays the grant's."""
        self.kill()
        ref = self.ref
        del self.ref
        if self._gate.open:
            self.grant.hardware.family("channel").destroy(ref)
        if self._buffer is not None:
            self._buffer.close()
