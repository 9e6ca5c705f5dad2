"""Stable names of GPUs: UUID and bus address, never ordinals (a number is only a column on a screen)."""

from __future__ import annotations

import attrs

__all__ = ["ChipId", "GpuIdentity"]


@attrs.frozen
class ChipId:
    """The chip behind a function: `name` as in "GA100", `family` as in "ampere", `revision` as in "a1". Decoded once by the core."""

    name: str
    family: str
    revision: str


@attrs.frozen
class GpuIdentity:
    """One GPU. `uuid` is "GPU-…", None until the firmware told it; `address` the bus address; `source` what the configuration names."""

    address: str
    source: str
    chip: ChipId
    device_id: int
    uuid: str | None = None

    @property
    def name(self) -> str:
        """The name to print and to accept: the bus address."""
        return self.address
