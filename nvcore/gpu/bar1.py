"""The core's one map of its own: BAR1 onto VRAM from address 0 on, static, in 2 MiB entries.

Owns the tables of that map (VRAM held by the owner OWNER in the ledger). Built when the first lease on a device that shares no memory needs
it, and anew after a firmware restart; written through the PRAMIN window, linked into the root that the firmware owns. May sleep. Not
revocable: a lease through it is read and written, never viewed. The tables' bytes are `nvcore.vmm.flat`'s. Source: nouveau writes BAR1's
directory itself, without an RPC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from nvcore.api.families.inventory import InventoryFamily
from nvcore.api.grant import GrantRequest
from nvcore.gpu.invalidate import TicketRing
from nvcore.hw.pte import HUGE_PAGE, page_format
from nvcore.vmm.flat import TABLE, flat_map, flat_map_size

if TYPE_CHECKING:
    from nvcore.gpu.hardware import Hardware

OWNER: Final = "core/bar1"
"""Under whose name the ledger books it."""


def build_static_map(hardware: Hardware) -> int:
    """Map as much of VRAM as BAR1 is large; the bytes mapped, 0 without a BAR1. Raises OutOfResources, FirmwareDead, WaitTimeout,
    DeviceGone."""
    inventory, vram = hardware.inventory, hardware.vram
    bar = hardware.device.bars.get(1)
    window = min(bar.size if bar else 0, inventory.bar1_size, inventory.memory_size) // HUGE_PAGE * HUGE_PAGE
    if not window:
        return 0
    form = page_format(inventory.page_tables)
    if not hardware.ledger.holds(OWNER, "vram"):
        hardware.ledger.take(OWNER, GrantRequest(OWNER, vram=flat_map_size(form, window), vram_align=TABLE, top_down=True))
    root = cast(InventoryFamily, hardware.family("inventory")).bar1_directory()
    for address, table in flat_map(form, window, hardware.ledger.holds(OWNER, "vram")[0].start):
        vram.write(root if address is None else address, table)
    hardware.invalidator.start(TicketRing(hardware.invalidator, hardware.gate), root).finish()
    return window
