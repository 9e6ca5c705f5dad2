"""Families of a firmware session: semantic operations, each family versioned and optional, described without any firmware's words.

Known names: inventory, memory, channel, vgpu, display, power, telemetry, diagnostics. A new client needs a new family, not a change to the
core. Objects made in the firmware belong to a `Tenant`. Here are the families that the core itself uses; those of one client alone are a
module each, imported on use (`vgpu`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import attrs

from nvcore.api.inventory import Inventory
from nvcore.api.marks import may_sleep

__all__ = [
    "ChannelFamily", "ChannelRef", "ChannelSpec", "DiagnosticsFamily", "Family", "InventoryFamily", "MemoryFamily", "SpaceRef", "Tenant",
]


class Family(Protocol):
    """Base of all families. `version` grows when operations are added."""

    name: str
    version: int


class Tenant(Protocol):
    """A root in the firmware below which one owner's objects hang."""

    label: str

    @property
    def open(self) -> bool:
        """Whether it can still be used."""

    @may_sleep
    def close(self) -> None:
        """Free everything below, channels first, then itself; each step is tried. Idempotent; on a dead firmware it only forgets. Raises
        the first cause when the firmware may still hold something: the grant's units then go into quarantine."""


@may_sleep
class InventoryFamily(Family, Protocol):
    """Family "inventory", version 1: what the GPU has."""

    def read(self) -> Inventory:
        """The inventory, complete. Asked once after boot."""

    def bar1_directory(self) -> int:
        """VRAM address of the page directory behind BAR1, into which the core links its own static map."""


class SpaceRef(Protocol):
    """An address space in the firmware."""

    tenant: Tenant


@may_sleep
class MemoryFamily(Family, Protocol):
    """Family "memory", version 1: address spaces whose tables their owner builds; the firmware learns only where the root is."""

    def create_space(self, tenant: Tenant) -> SpaceRef:
        """An empty address space that its owner manages."""

    def set_page_directory(self, space: SpaceRef, address: int, *, entries: int, aperture: Literal["vram", "system"] = "vram") -> None:
        """Link the root directory (`address` in bytes, `entries` root entries). Channels of the space run with it from now on."""

    def unset_page_directory(self, space: SpaceRef) -> None:
        """Unlink it: no channel translates through it after the answer."""

    def free_space(self, space: SpaceRef) -> None:
        """Free the space; its channels must be gone."""


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
    """Family "channel", version 1: channels on runlists."""

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


@may_sleep
class DiagnosticsFamily(Family, Protocol):
    """Family "diagnostics", version 1: what can be told about a firmware, also a dead one: it reads memory and registers only."""

    def logs(self) -> Mapping[str, bytes]:
        """Raw log regions by name, as far as written; an empty value = never written."""

    def queues(self) -> Mapping[str, object]:
        """Both queues: pointers, counters, the last messages by name, JSON-able."""

    def registers(self) -> Mapping[str, int]:
        """The registers worth keeping, by name."""
