"""What a booted GPU consists of, as its grants use it: device, books, windows, interrupt tree, invalidate unit, and the session of this
generation.

Owns the registry of live grants of one GPU, which any thread may look at, and the core's one map of its own: BAR1 onto VRAM from address 0
on, static, in 2 MiB entries. That map's tables are VRAM held by the owner BAR1_OWNER in the ledger, written through the PRAMIN window and
linked into the root that the firmware owns; it is not revocable: a lease through it is read and written, never viewed. What is here
outlives a firmware reboot: session, gate and inventory are replaced, grants and ledger stay. Any thread; takes no decision about faults.
Source: nouveau writes BAR1's directory itself, without an RPC.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from nvcore.api.device import Device, DmaBuffer
from nvcore.api.errors import NotFoundError, NotSupportedError, NvcoreError
from nvcore.api.firmware import FirmwareSession
from nvcore.api.grant import GrantRequest
from nvcore.api.inventory import Engine, Inventory, Range
from nvcore.gpu.boot import same_resources
from nvcore.gpu.interrupts import InterruptTree
from nvcore.gpu.invalidate import Gate, Invalidator, TicketRing
from nvcore.gpu.ledger import Ledger
from nvcore.gpu.memory import VramAccess
from nvcore.gpu.parts import GpuChannel, GpuSpace

if TYPE_CHECKING:
    from nvcore.gpu.grants import GpuGrant

BAR1_OWNER: Final = "core/bar1"  # under whose name the ledger books the tables of the map behind BAR1


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

    def map_behind_bar1(self) -> None:
        """Once a generation: the static map, for a device that shares no memory. Where it cannot be made, the window serves."""
        if self.vram.mapped is None:
            self.vram.mapped = 0
            try:
                self.vram.mapped = self._build_static_map()
            except NvcoreError as error:
                self.publish("device", f"no map behind BAR1: {error}", action="the PRAMIN window serves instead")

    def _build_static_map(self) -> int:
        """Map as much of VRAM as BAR1 is large; the bytes mapped, 0 without a BAR1. Raises OutOfResources, FirmwareDead, WaitTimeout,
        DeviceGone."""
        from nvcore.hw.pte import HUGE_PAGE, page_format
        from nvcore.vmm.flat import TABLE, flat_map, flat_map_size

        inventory, bar = self.inventory, self.vram.bar1
        window = min(bar.size if bar is not None else 0, inventory.bar1_size, inventory.memory_size) // HUGE_PAGE * HUGE_PAGE
        if not window:
            return 0
        form = page_format(inventory.page_tables)
        if not self.ledger.holds(BAR1_OWNER, "vram"):
            size = flat_map_size(form, window)
            self.ledger.take(BAR1_OWNER, GrantRequest(BAR1_OWNER, vram=size, vram_align=TABLE, top_down=True))
        root = self.family("inventory").bar1_directory()
        for address, table in flat_map(form, window, self.ledger.holds(BAR1_OWNER, "vram")[0].start):
            self.vram.write(root if address is None else address, table)
        self.invalidator.start(TicketRing(self.invalidator, self.gate), root).finish()
        return window

    def admit(self, session: FirmwareSession, inventory: Inventory, generation: int) -> None:
        """A firmware was started, for the first time or after a reset: grants keep their resources, zeroed; quarantine ends; interrupts
        come through. Raises UsageError when it left other resources than the one before."""
        same_resources(self.inventory, inventory)
        self.inventory, self.session, self.vram.mapped = inventory, session, None
        self.gate = Gate(generation)  # grants are quiescing: nobody but the core uses it yet
        if not self.vram.shares:
            self.map_behind_bar1()  # before the scrub, which goes through it
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
