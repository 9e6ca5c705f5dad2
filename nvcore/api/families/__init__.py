"""Families of a firmware session: semantic operations, each family versioned and optional.

Known names: inventory, memory, channel, vgpu, display, power, telemetry, diagnostics. A new client needs a new family, not a change to the
core. Each family is one module here, imported on use. Objects made in the firmware belong to a `Tenant`.
"""

from __future__ import annotations

from typing import Protocol

from nvcore.api.marks import may_sleep

__all__ = ["Family", "Tenant"]


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
