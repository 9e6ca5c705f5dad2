"""Family "memory": address spaces whose tables their owner builds; the firmware learns only where the root is."""

from __future__ import annotations

from typing import Literal, Protocol

from nvcore.api.families import Family, Tenant
from nvcore.api.marks import may_sleep

__all__ = ["MemoryFamily", "SpaceRef"]


class SpaceRef(Protocol):
    """An address space in the firmware."""

    tenant: Tenant


@may_sleep
class MemoryFamily(Family, Protocol):
    """Version 1."""

    def create_space(self, tenant: Tenant) -> SpaceRef:
        """An empty address space that its owner manages."""

    def set_page_directory(self, space: SpaceRef, address: int, *, entries: int, aperture: Literal["vram", "system"] = "vram") -> None:
        """Link the root directory (`address` in bytes, `entries` root entries). Channels of the space run with it from now on."""

    def unset_page_directory(self, space: SpaceRef) -> None:
        """Unlink it: no channel translates through it after the answer."""

    def free_space(self, space: SpaceRef) -> None:
        """Free the space; its channels must be gone."""
