"""What a booted GPU consists of, as its grants use it: device, books, windows, interrupt tree, invalidate unit, and the session of this
generation.

Owns the registry of live grants of one GPU, which any thread may look at. It outlives a firmware reboot: session, gate and inventory
are replaced, grants and ledger stay. Any thread; takes no decision about faults.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from nvcore.api.device import Device, DmaBuffer
from nvcore.api.errors import NotFoundError, NotSupportedError
from nvcore.api.firmware import FirmwareSession
from nvcore.api.inventory import Engine, Inventory, Range
from nvcore.gpu.boot import same_resources
from nvcore.gpu.interrupts import InterruptTree
from nvcore.gpu.invalidate import Gate, Invalidator
from nvcore.gpu.ledger import Ledger
from nvcore.gpu.memory import VramAccess, map_behind_bar1
from nvcore.gpu.parts import GpuChannel, GpuSpace

if TYPE_CHECKING:
    from nvcore.gpu.grants import GpuGrant


class Hardware:
    """One booted GPU. `name` is its bus address; `publish` writes a line about it into the event log. functions: virtual functions that
    exist. `session` and `gate` are those of the generation that `admit` let in."""

    session: FirmwareSession
    gate: Gate

    def __init__(
        self, device: Device, publish: Callable[..., None], inventory: Inventory, functions: int, tree: InterruptTree, unit: Invalidator
    ) -> None:
        self.name, self.device, self.publish, self.inventory = device.identity.address, device, publish, inventory
        self.tree, self.invalidator = tree, unit
        self.ledger = Ledger(
            vram=[region.range for region in inventory.regions if region.usable],
            channels=Range(inventory.first_channel, inventory.channels - inventory.first_channel),
            bar1=inventory.bar1_size, functions=functions, heads=inventory.heads,
        )  # fmt: skip
        self.vram = VramAccess(device, page_tables=inventory.page_tables)
        self.grants: dict[str, GpuGrant] = {}
        self.limbo: list[DmaBuffer] = []  # host memory that hardware may still write to; freed after the next reset
        self.serials = count(1)  # of the grants' names

    @property
    def top_grants(self) -> list[GpuGrant]:
        """Grants that are no children, oldest first."""
        return [grant for grant in tuple(self.grants.values()) if grant.parent is None]

    @property
    def channels(self) -> list[GpuChannel]:
        """All channels of all grants."""
        return [channel for grant in tuple(self.grants.values()) for channel in grant.parts(GpuChannel)]

    def family(self, name: str) -> Any:
        """A family of this generation's firmware, of the type that goes with its name. Raises FirmwareDead with the first cause,
        NotSupportedError."""
        self.gate.check()
        family = self.session.family(name)
        if family is None:
            raise NotSupportedError(f"the firmware of {self.name} has no family {name!r}", seen=", ".join(sorted(self.session.families)))
        return family

    def engine(self, name: str) -> Engine:
        """An engine of the inventory. Raises NotFoundError."""
        engines = {engine.name: engine for engine in self.inventory.engines}
        if name not in engines:
            raise NotFoundError(f"no engine {name!r} on {self.name}", expected=", ".join(engines), seen=name)
        return engines[name]

    def admit(self, session: FirmwareSession, inventory: Inventory, generation: int) -> None:
        """A firmware was started, for the first time or after a reset: grants keep their resources, zeroed; quarantine ends; interrupts
        come through. Raises UsageError when it left other resources than the one before."""
        same_resources(self.inventory, inventory)
        self.inventory, self.session, self.vram.mapped = inventory, session, None
        self.gate = Gate(generation)  # grants are quiescing: nobody but the core uses it yet
        if not self.vram.shares:
            map_behind_bar1(self)  # before the scrub, which goes through it
        for grant in self.top_grants:
            grant.renew(generation, "the firmware was restarted")
        for item in self.ledger.quarantined("vram"):
            self.vram.zero(item)
        self.ledger.lift_quarantine()
        while self.limbo:
            self.limbo.pop().close()
        self.tree.open(inventory.firmware_vector)
        for grant in self.top_grants:
            grant.set_quiescing(False)

    def counts(self) -> dict[str, int]:
        """Objects in the firmware that the core knows of, by the session's kinds."""
        grants = tuple(self.grants.values())
        roots, spaces = sum(grant.root is not None for grant in grants), sum(len(grant.parts(GpuSpace)) for grant in grants)
        return {"client": roots, "space": spaces, "channel": len(self.channels)}
