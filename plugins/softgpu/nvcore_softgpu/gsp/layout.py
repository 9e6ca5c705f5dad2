"""Where things lie in video memory: what the driver may have and what is the GSP's.

Owns the reserved ranges. Reads the WPR meta by field name only. Pure data after construction.
Source: open-gpu-kernel-modules 570.144, gsp_fw_wpr_meta.h; the first MiB and the page directories stay reserved because drivers use page
0 through BAR2 for flushes and take directory addresses from the static info.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["MIB", "Layout"]

MIB = 1 << 20  # bytes


class Layout:
    """Reserved and usable ranges, as (first, last + 1) in bytes."""

    __slots__ = ("directories", "frts", "non_wpr_heap", "reserved", "top", "usable", "vram_size")

    def __init__(self, meta: Mapping[str, int], vram_size: int, directories: tuple[int, int]) -> None:
        """meta: the WPR meta, offsets filled in. directories: root page directories of BAR1 and BAR2."""
        self.vram_size = vram_size
        self.directories = directories
        self.non_wpr_heap = meta.get("nonWprHeapOffset", 0)
        self.frts = meta.get("frtsOffset", 0)
        starts = [meta.get(name, 0) for name in ("gspFwRsvdStart", "nonWprHeapOffset", "gspFwWprStart")]
        self.top = min((start for start in starts if start), default=vram_size)
        pieces = [(0, MIB), (self.top, vram_size)]
        pieces += [(address & ~0xFFFF, (address & ~0xFFFF) + 0x10000) for address in directories]
        self.reserved = _merge(pieces)
        self.usable = _gaps(self.reserved, vram_size)

    def clear(self, address: int, size: int) -> bool:
        """Whether a range lies in VRAM and touches nothing reserved above the first MiB."""
        if size <= 0 or address < 0 or address + size > self.vram_size:
            return False
        return all(address + size <= first or address >= end for first, end in self.reserved if first)

    def inside(self, address: int, size: int) -> bool:
        """Whether a range lies in VRAM."""
        return address >= 0 and size >= 0 and address + size <= self.vram_size


def _merge(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, end in sorted(pieces):
        if first >= end:
            continue
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((first, end))
    return merged


def _gaps(reserved: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    gaps: list[tuple[int, int]] = []
    at = 0
    for first, end in reserved:
        if first > at:
            gaps.append((at, first))
        at = max(at, end)
    if at < size:
        gaps.append((at, size))
    return gaps
