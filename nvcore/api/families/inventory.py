"""Family "inventory": what the GPU has."""

from __future__ import annotations

from typing import Protocol

from nvcore.api.families import Family
from nvcore.api.inventory import Inventory
from nvcore.api.marks import may_sleep

__all__ = ["InventoryFamily"]


@may_sleep
class InventoryFamily(Family, Protocol):
    """Version 1."""

    def read(self) -> Inventory:
        """The inventory, complete. Asked once after boot."""

    def bar1_directory(self) -> int:
        """VRAM address of the page directory behind BAR1, into which the core links its own static map."""
