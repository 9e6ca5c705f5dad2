"""What a booted GPU consists of, as its grants use it: device, books, windows, interrupt tree, invalidate unit, and the session of this
generation.

Owns the registries of live grants and channels of one GPU, behind a leaf lock. It outlives a firmware reboot: session, gate and inventory
are replaced, grants and ledger stay. Any thread; takes no decision about faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvcore.api.clock import Clock
from nvcore.api.device import Device, DmaBuffer
from nvcore.api.errors import FirmwareDead, NotFoundError, NotSupportedError, NvcoreError
from nvcore.api.families import Family
from nvcore.api.firmware import FirmwareSession
from nvcore.api.inventory import Engine, Inventory
from nvcore.events import EventLog
from nvcore.gpu.doorbell import Gate
from nvcore.gpu.interrupts import InterruptTree
from nvcore.gpu.invalidate import Invalidator
from nvcore.gpu.ledger import Ledger
from nvcore.gpu.memory import VramAccess
from nvcore.locks import Lock

if TYPE_CHECKING:
    from nvcore.gpu.channels import GpuChannel
    from nvcore.gpu.grants import GpuGrant

__all__ = ["Hardware"]


class Hardware:
    """One booted GPU. `name` is its bus address."""

    def __init__(
        self,
        name: str,
        device: Device,
        clock: Clock,
        events: EventLog,
        *,
        inventory: Inventory,
        ledger: Ledger,
        vram: VramAccess,
        tree: InterruptTree,
        invalidator: Invalidator,
        session: FirmwareSession,
        gate: Gate,
    ) -> None:
        self.name, self.device, self.clock, self.events = name, device, clock, events
        self.inventory, self.ledger, self.vram, self.tree, self.invalidator = inventory, ledger, vram, tree, invalidator
        self.session, self.gate = session, gate
        self.lock = Lock("gpu-registry", leaf=True)
        self.grants: dict[str, GpuGrant] = {}
        self.channels: dict[tuple[int, int], GpuChannel] = {}  # by runlist and id
        self.limbo: list[DmaBuffer] = []  # host memory that hardware may still write to; freed after the next reset
        self.serial = 0

    def next_serial(self) -> int:
        """A number for the next grant's name."""
        with self.lock:
            self.serial += 1
            return self.serial

    def family(self, name: str) -> Family:
        """A family of this generation's firmware. Raises FirmwareDead with the first cause, NotSupportedError."""
        self.check(self.gate)
        family = self.session.family(name)
        if family is None:
            raise NotSupportedError(f"the firmware of {self.name} has no family {name!r}", seen=", ".join(sorted(self.session.families)))
        return family

    @staticmethod
    def check(gate: Gate) -> None:
        """Raise FirmwareDead with the first cause when a generation is over."""
        if not gate.open:
            raise FirmwareDead(f"generation {gate.generation} of the GPU is over", seen=gate.cause, remedy="wait for resume")

    def engine(self, name: str) -> Engine:
        """An engine of the inventory. Raises NotFoundError."""
        try:
            return self.inventory.engine(name)
        except KeyError:
            names = ", ".join(engine.name for engine in self.inventory.engines)
            raise NotFoundError(f"no engine {name!r} on {self.name}", expected=names, seen=name) from None

    def map_behind_bar1(self) -> None:
        """Once a generation: the static map, for a device that shares no memory. Where it cannot be made, the window serves."""
        if self.vram.mapped is not None:
            return
        from nvcore.gpu.bar1 import build_static_map

        self.vram.mapped = 0
        try:
            self.vram.mapped = build_static_map(self)
        except NvcoreError as error:
            self.events.publish("device", f"no map behind BAR1: {error}", gpu=self.name, action="the PRAMIN window serves instead")

    def counts(self) -> dict[str, int]:
        """Objects in the firmware that the core knows of, by the session's kinds."""
        with self.lock:
            grants = list(self.grants.values())
        return {
            "client": sum(grant.has_tenant for grant in grants),
            "space": sum(grant.space_count for grant in grants),
            "channel": len(self.channels),
        }
