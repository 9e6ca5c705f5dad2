"""Page-table entries as the core writes them for its own map behind BAR1: directory entries and 2 MiB entries in video memory.

Data and two encoders per format; whole tables are `nvcore.vmm`'s business. Source: open-gpu-kernel-modules 570.144 dev_mmu.h of Pascal
(format 2) and Hopper (format 3), gmmu_fmt; Linux 7.3 nouveau nvkm/subdev/mmu/vmmgp100.c, vmmgh100.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["FORMATS", "HUGE_PAGE", "PageFormat", "page_format"]

HUGE_PAGE: Final = 1 << 21
"""Bytes that one entry of the last directory maps."""


def _directory2(address: int) -> int:
    """Format 2: aperture video (bits 2:1 = 1), address >> 12 in bits 32:8."""
    return 1 << 1 | address >> 12 << 8


def _huge2(address: int) -> int:
    """Format 2: valid, aperture video (0), kind pitch, address >> 12 in bits 32:8; the second word of the entry stays zero."""
    return 1 | address >> 12 << 8


def _directory3(address: int) -> int:
    """Format 3: aperture video, PCF 2 (cached, no ATS) in bits 5:3, address in place."""
    return 1 << 1 | 2 << 3 | address


def _huge3(address: int) -> int:
    """Format 3: valid, aperture video (0), PCF 0x10 (cached) in bits 7:3, kind pitch, address in place."""
    return 1 | 0x10 << 3 | address


class PageFormat(NamedTuple):
    """One format. shifts: of the directories below the root, outermost first; the last one has 256 entries of 16 bytes, the others 512 of
    8.

    root_shift: address bits below a root entry. directory, huge: encode an entry for a VRAM address.
    """

    version: int
    root_shift: int
    shifts: tuple[int, ...]
    directory: Callable[[int], int]
    huge: Callable[[int], int]


FORMATS: Final = (
    PageFormat(2, 47, (38, 29, 21), _directory2, _huge2),
    PageFormat(3, 56, (47, 38, 29, 21), _directory3, _huge3),
)
"""The two formats: Turing to Ada, Hopper and later."""


def page_format(version: int) -> PageFormat:
    """The format of that version. Raises KeyError."""
    for row in FORMATS:
        if row.version == version:
            return row
    raise KeyError(version)
