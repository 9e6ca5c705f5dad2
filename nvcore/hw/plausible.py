"""What the hardware lets an inventory say: whole pages that do not overlap, ids that fit their field, segments of a power of two.

Data in, words out; owns nothing, any thread. What firmware tells is compared with this once, when a session was opened.
Source: `nvcore.hw.interrupts.USERMODE_DOORBELL` (a channel id has 16 bits), `nvcore.hw.pte` (the smallest page).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from nvcore.api.inventory import Inventory

__all__ = ["implausible"]

_PAGE: Final = 0x1000
_CHANNELS: Final = 1 << 16


def implausible(inventory: Inventory) -> str | None:
    """What cannot be true of an inventory, in words; None when all of it can."""
    ranges = sorted(region.range for region in inventory.regions)
    for one, two in pairwise(ranges):
        if one.overlaps(two):
            return f"regions at {one.start:#x} and {two.start:#x} overlap"
    for item in ranges:
        if item.start < 0 or item.size <= 0 or item.end > inventory.memory_size or (item.start | item.size) % _PAGE:
            return f"region [{item.start:#x}, {item.end:#x}) of {inventory.memory_size:#x} bytes"
    if not 0 <= inventory.first_channel <= inventory.channels <= _CHANNELS:
        return f"channels {inventory.first_channel} to {inventory.channels}"
    segment = inventory.vmmu_segment
    if segment is not None and (segment <= 0 or segment & (segment - 1)):
        return f"VMMU segment {segment:#x}"
    return None
