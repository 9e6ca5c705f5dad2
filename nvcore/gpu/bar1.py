"""The core's one map of its own: BAR1 onto VRAM from address 0 on, static, in 2 MiB entries.

Owns the tables of that map (VRAM held by the owner OWNER in the ledger). Built when the first lease on a device that shares no memory needs
it, and anew after a firmware restart; written through the PRAMIN window, linked into the root that the firmware owns. May sleep. Not
revocable: a lease through it is read and written, never viewed. Source: `nvcore.hw.pte`; nouveau writes BAR1's directory itself, without an
RPC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from nvcore.api.errors import FirmwareDead
from nvcore.api.families.inventory import InventoryFamily
from nvcore.api.grant import GrantRequest
from nvcore.gpu.invalidate import TicketRing
from nvcore.hw.pte import HUGE_PAGE, page_format

if TYPE_CHECKING:
    from nvcore.gpu.hardware import Hardware

__all__ = ["OWNER", "build_static_map"]

OWNER: Final = "core/bar1"
_TABLE: Final = 0x1000


def build_static_map(hardware: Hardware) -> int:
    """Map as much of VRAM as BAR1 is large; the bytes mapped, 0 without a BAR1. Raises OutOfResources, FirmwareDead, DeviceGone."""
    inventory, vram = hardware.inventory, hardware.vram
    bar = hardware.device.bars.get(1)
    window = min(bar.size if bar else 0, inventory.bar1_size, inventory.memory_size) // HUGE_PAGE * HUGE_PAGE
    if not window:
        return 0
    form = page_format(inventory.page_tables)
    spans = [1 << shift + (8 if shift == 21 else 9) for shift in form.shifts]
    counts = [-(-window // span) for span in spans]
    held = hardware.ledger.holds(OWNER, "vram")
    if not held:
        request = GrantRequest(OWNER, vram=sum(counts) * _TABLE, vram_align=_TABLE, top_down=True)
        held = tuple(hardware.ledger.take(OWNER, request).ranges["vram"])
    at, below = held[0].start, [page * HUGE_PAGE for page in range(window // HUGE_PAGE)]
    for shift, count in zip(reversed(form.shifts), reversed(counts), strict=True):
        data = bytearray(count * _TABLE)
        step = 16 if shift == 21 else 8
        encode = form.huge if shift == 21 else form.directory
        for index, address in enumerate(below):
            data[index * step : index * step + 8] = encode(address).to_bytes(8, "little")
        vram.write(at, memoryview(data))
        below = [at + index * _TABLE for index in range(count)]
        at += count * _TABLE
    root = cast(InventoryFamily, hardware.family("inventory")).bar1_directory()
    vram.write(root, b"".join(form.directory(address).to_bytes(8, "little") for address in below))
    ticket = hardware.invalidator.start(TicketRing(hardware.invalidator), root)
    if not ticket.wait(2 * hardware.invalidator.limit) or ticket.error is not None:
        raise FirmwareDead("the map behind BAR1 could not be made visible", seen=ticket.error)
    return window
