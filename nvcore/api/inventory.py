"""The inventory: what a booted GPU has. Frozen, and the same record for every firmware version.

Sizes and addresses in bytes; addresses are offsets in the GPU's memory (VRAM). Numbers of interrupts are vectors of the interrupt tree.
"""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["Engine", "Inventory", "MemoryRegion", "Range", "VgpuSupport"]

EngineKind = Literal["graphics", "copy", "nvdec", "nvenc", "nvjpg", "ofa", "sec2", "software"]


@attrs.frozen(order=True)
class Range:
    """[start, start + size). Used for VRAM, BAR1 windows (bytes) and for runs of ids (units)."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """First value behind the range."""
        return self.start + self.size

    def contains(self, other: Range) -> bool:
        """Whether `other` lies wholly inside."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: Range) -> bool:
        """Whether the two share a unit."""
        return self.start < other.end and other.start < self.end


@attrs.frozen
class Engine:
    """One engine: `name` as in "COPY0"; `runlist` its runlist id; vectors are None when it raises no such interrupt."""

    name: str
    kind: EngineKind
    instance: int
    runlist: int
    stall_vector: int | None
    nonstall_vector: int | None


@attrs.frozen
class MemoryRegion:
    """A piece of VRAM after boot. usable: general memory, compressible and free of protection; otherwise `owner` says who holds it."""

    range: Range
    usable: bool
    owner: str


@attrs.frozen
class VgpuSupport:
    """vGPU side of a GPU: `functions` VFs prepared for, `host` whether the firmware was started as a vGPU host; `reason` when it was
    not."""

    host: bool
    functions: int
    reason: str | None


@attrs.frozen
class Inventory:
    """What one GPU has.

    channels: channel ids per runlist, [first_channel, channels). vmmu_segment: bytes, None when there is no VMMU. page_tables: format
    version (2 or 3). bar1_size: bytes. firmware: a label for provenance, never to be compared or parsed. capabilities: names, open-ended.
    """

    name: str
    uuid: str
    memory_size: int
    regions: tuple[MemoryRegion, ...]
    engines: tuple[Engine, ...]
    first_channel: int
    channels: int
    vmmu_segment: int | None
    page_tables: int
    bar1_size: int
    firmware_vector: int | None
    heads: int
    vgpu: VgpuSupport
    firmware: str
    capabilities: frozenset[str]

    @property
    def usable_memory(self) -> int:
        """Bytes of VRAM that clients can be given."""
        return sum(region.range.size for region in self.regions if region.usable)

    def engine(self, name: str) -> Engine:
        """The engine of that name. Raises KeyError."""
        return {engine.name: engine for engine in self.engines}[name]
