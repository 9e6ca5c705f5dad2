"""Family "channel": channels on runlists, described without any firmware's words."""

from __future__ import annotations

from typing import Protocol

import attrs

from nvcore.api.families import Family, Tenant
from nvcore.api.families.memory import SpaceRef
from nvcore.api.marks import may_sleep

__all__ = ["ChannelFamily", "ChannelRef", "ChannelSpec"]


@attrs.frozen
class ChannelSpec:
    """What a channel needs.

    engine: name as in the inventory. channel: the id, chosen by the core. ring_address: GPU virtual address of the GPFIFO; ring_entries:
    of 8 bytes. instance: VRAM address of the instance block (4 KiB); userd: VRAM address of the user-data page (512 bytes). fault_buffer:
    bus address of `fault_buffer_size` bytes of host memory that the firmware uses when a fault hits the channel.
    """

    engine: str
    channel: int
    ring_address: int
    ring_entries: int
    instance: int
    userd: int
    fault_buffer: int
    fault_buffer_size: int
    privileged: bool = False


class ChannelRef(Protocol):
    """A channel in the firmware."""

    tenant: Tenant
    channel: int
    token: int  # what is written to the doorbell


@may_sleep
class ChannelFamily(Family, Protocol):
    """Version 1."""

    def fault_buffer_size(self) -> int:
        """Bytes that `ChannelSpec.fault_buffer` must have."""

    def create(self, space: SpaceRef, spec: ChannelSpec) -> ChannelRef:
        """Make the channel and bind it to its engine's runlist; it does not run yet."""

    def create_engine_object(self, channel: ChannelRef) -> None:
        """Make the object of the channel's engine (the copy class for a copy engine), so that its methods are accepted."""

    def enable(self, channel: ChannelRef) -> None:
        """Put it on the runlist."""

    def disable(self, channel: ChannelRef) -> None:
        """Take it off the runlist: no method of it executes after the answer."""

    def destroy(self, channel: ChannelRef) -> None:
        """Disable and free it. Idempotent."""
