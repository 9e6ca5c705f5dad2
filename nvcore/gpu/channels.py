"""Address spaces and channels of a grant: the core links a root, makes a channel, hands out a doorbell; it never looks into a page table.

Owns the state of each object and its counterpart in the firmware. Methods run in the caller's thread, where session calls are legal; `kill`
and `invalidate` may run anywhere, also on a receiver thread or in a signalling section: they make no call into the firmware.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from nvcore.api.errors import ContractError, FirmwareDead, NvcoreError, WaitTimeout
from nvcore.api.families.channel import ChannelFamily, ChannelRef
from nvcore.api.families.memory import MemoryFamily, SpaceRef
from nvcore.api.marks import interrupt_safe, may_sleep, signalling_safe
from nvcore.gpu.doorbell import ChannelDoorbell
from nvcore.gpu.invalidate import Ticket, TicketRing

if TYPE_CHECKING:
    from nvcore.api.device import DmaBuffer
    from nvcore.gpu.grants import GpuGrant

__all__ = ["GpuChannel", "GpuSpace"]


class GpuSpace:
    """An address space whose tables its client owns. stuck: hardware may still walk the tables although the space is gone."""

    __slots__ = ("_gate", "_ring", "_root", "closed", "dead_ticket", "grant", "ref", "stuck")

    def __init__(self, grant: GpuGrant, ref: SpaceRef) -> None:
        self.grant, self.ref = grant, ref
        self._gate = grant.hardware.gate
        self._ring = TicketRing(grant.hardware.invalidator)
        self.dead_ticket = Ticket(grant.hardware.invalidator)
        self.dead_ticket.error = f"generation {self._gate.generation} is over"
        self._root: int | None = None
        self.closed, self.stuck = False, False

    @may_sleep
    def link(self, root: int, *, entries: int) -> None:
        """Tell the hardware where the root directory lies. Raises UsageError outside of the grant, FirmwareDead."""
        self._usable()
        self.grant.require_vram(root, 0x1000, "a root directory")
        family = cast(MemoryFamily, self.grant.hardware.family("memory"))
        family.set_page_directory(self.ref, root, entries=entries)
        self._root = root

    @may_sleep
    def unlink(self) -> None:
        """Unlink the root; the hardware has left the tables when this returns. When it raises, it may not have: the memory is not free
        again before a reset."""
        if self._root is None:
            return
        hardware = self.grant.hardware
        try:
            hardware.check(self._gate)
            cast(MemoryFamily, hardware.family("memory")).unset_page_directory(self.ref)
            ticket = hardware.invalidator.start(self._ring, self._root)
            limit = 2 * hardware.invalidator.limit
            if not ticket.wait(limit):
                raise WaitTimeout("an invalidate did not end", expected=f"within {limit:g} s", remedy="the GPU is being reset")
            if ticket.error is not None:
                raise FirmwareDead("an invalidate failed", seen=ticket.error, remedy="the GPU is being reset")
        except NvcoreError:
            self.stuck = True
            raise
        self._root = None

    @signalling_safe
    def invalidate(self) -> Ticket:
        """Start dropping cached translations of this space."""
        gate = self._gate
        if not gate.open:
            self.dead_ticket.error = gate.cause
            return self.dead_ticket
        return self.grant.hardware.invalidator.start(self._ring, self._root or 0)

    @may_sleep
    def close(self) -> None:
        """Unlink and free. Idempotent; on a dead generation it only forgets."""
        if self.closed:
            return
        self.closed = True
        self.grant.forget_space(self)
        if not self._gate.open:
            self.stuck = self.stuck or self._root is not None
            return
        try:
            self.unlink()
        finally:
            cast(MemoryFamily, self.grant.hardware.family("memory")).free_space(self.ref)

    def _usable(self) -> None:
        self.grant.hardware.check(self._gate)
        if self.closed:
            raise ContractError("the address space is closed")


class GpuChannel:
    """A channel. `doorbell` is what a submission path keeps."""

    __slots__ = ("_buffer", "_gate", "channel", "closed", "doorbell", "engine", "grant", "ref", "runlist")

    def __init__(self, grant: GpuGrant, engine: str, runlist: int, channel: int, ref: ChannelRef, buffer: DmaBuffer | None) -> None:
        self.grant, self.engine, self.runlist, self.channel, self.ref, self._buffer = grant, engine, runlist, channel, ref, buffer
        self._gate = grant.hardware.gate
        self.doorbell = ChannelDoorbell(grant.hardware.device.bars[0], ref.token, self._gate)
        self.closed = False

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

    @may_sleep
    def disable(self) -> None:
        """Take it off its runlist. Idempotent; nothing to do on a dead generation."""
        self.kill()
        if self._gate.open and not self.closed:
            cast(ChannelFamily, self.grant.hardware.family("channel")).disable(self.ref)

    @may_sleep
    def close(self) -> None:
        """Disable and free it; then its fault buffer, which the hardware does not reach any more. Idempotent."""
        if self.closed:
            return
        self.kill()
        self.closed = True
        self.grant.forget_channel(self)
        try:
            if self._gate.open:
                cast(ChannelFamily, self.grant.hardware.family("channel")).destroy(self.ref)
        except NvcoreError:
            if self._buffer is not None and self._gate.open:  # it may still be written to
                self.grant.hardware.limbo.append(self._buffer)
                self._buffer = None
            raise
        finally:
            buffer, self._buffer = self._buffer, None
            if buffer is not None:
                buffer.close()
