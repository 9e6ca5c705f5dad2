"""Address spaces and channels of a grant: the core links a root, makes a channel, hands out a doorbell; it never looks into a page table.

Owns the state of each object and its counterpart in the firmware, which it lets go when it is closed. Methods run in the caller's thread,
where session calls are legal; `kill` and `invalidate` may run anywhere, also on a receiver thread or in a signalling section: they make no
call into the firmware.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvcore.api.errors import ContractError, NvcoreError
from nvcore.api.families.channel import ChannelRef
from nvcore.api.families.memory import MemoryFamily, SpaceRef
from nvcore.api.grant import AddressSpace, Channel
from nvcore.api.marks import follows, interrupt_safe, signalling_safe
from nvcore.gpu.doorbell import ChannelDoorbell
from nvcore.gpu.invalidate import Ticket, TicketRing
from nvcore.gpu.leases import GrantBuffer, Owned

if TYPE_CHECKING:
    from nvcore.gpu.grants import GpuGrant


@follows(AddressSpace)
class GpuSpace(Owned):
    """An address space whose tables its client owns. stuck: hardware may still walk the tables although the space is gone."""

    __slots__ = ("_gate", "_invalidator", "_ring", "_root", "ref", "stuck")

    def __init__(self, grant: GpuGrant, ref: SpaceRef) -> None:
        super().__init__(grant)
        self.ref, self._gate, self._invalidator = ref, grant.hardware.gate, grant.hardware.invalidator
        self._ring = TicketRing(self._invalidator, self._gate)
        self._root: int | None = None
        self.stuck = False

    def _family(self) -> MemoryFamily:
        self._gate.check()
        return self.grant.hardware.memory

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
        if self._root is None:
            return
        try:
            self._family().unset_page_directory(self.ref)
            self._invalidator.start(self._ring, self._root).finish()
        except NvcoreError:
            self.stuck = True
            raise
        self._root = None

    def leave(self) -> None:
        """As `unlink`; nothing to do on a dead generation."""
        if self._gate.open:
            self.unlink()

    def invalidate(self) -> Ticket:
        """Start dropping cached translations of this space."""
        return self._invalidator.start(self._ring, self._root or 0)

    def close(self) -> None:
        """Unlink and free. Idempotent; on a dead generation it only forgets."""
        if not self.first_close():
            return
        alive, ref = self._gate.open, self.ref
        self.stuck = self.stuck or (self._root is not None and not alive)
        try:
            self.leave()
        finally:
            del self.ref
            if alive:
                self._family().free_space(ref)


@follows(Channel)
class GpuChannel(Owned):
    """A channel. `doorbell` is what a submission path keeps."""

    __slots__ = ("_buffer", "_gate", "channel", "doorbell", "engine", "ref", "runlist")

    def __init__(self, grant: GpuGrant, engine: str, runlist: int, channel: int, ref: ChannelRef, buffer: GrantBuffer | None) -> None:
        super().__init__(grant)
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
        if self._gate.open and not self.closed:
            self.grant.hardware.channel.disable(self.ref)

    def close(self) -> None:
        """Disable and free it; then its fault buffer, which the hardware does not reach any more. Idempotent. When it raises, the buffer
        may still be written to: it stays the grant's."""
        self.kill()
        if not self.first_close():
            return
        ref = self.ref
        del self.ref
        if self._gate.open:
            self.grant.hardware.channel.destroy(ref)
        if self._buffer is not None:
            self._buffer.close()
