"""A flat map: page tables that show video memory from address 0 on, in 2 MiB entries.

Data in, bytes out: where the tables lie and who writes them is the caller's. Source: `nvcore.hw.pte`.
"""

from __future__ import annotations

from collections.abc import Iterator

from nvcore.hw.pte import HUGE_PAGE, PageFormat

__all__ = ["TABLE", "flat_map", "flat_map_size"]

TABLE = 0x1000
"""Bytes of one table."""


def _counts(form: PageFormat, window: int) -> list[int]:
    """Tables of each level below the root, outermost first. The last level has 256 entries, the others 512."""
    return [-(-window // (1 << shift + (8 if shift == 21 else 9))) for shift in form.shifts]


def flat_map_size(form: PageFormat, window: int) -> int:
    """Bytes of VRAM that the tables of a flat map of `window` bytes take."""
    return sum(_counts(form, window)) * TABLE


def flat_map(form: PageFormat, window: int, at: int) -> Iterator[tuple[int | None, bytes]]:
    """(address, bytes) of each level of tables, innermost first, lying from VRAM address `at` on; the root's entries last, with address
    None: the root is the caller's."""
    below = [page * HUGE_PAGE for page in range(window // HUGE_PAGE)]
    for shift, count in zip(reversed(form.shifts), reversed(_counts(form, window)), strict=True):
        data = bytearray(count * TABLE)
        step = 16 if shift == 21 else 8
        encode = form.huge if shift == 21 else form.directory
        for index, address in enumerate(below):
            data[index * step : index * step + 8] = encode(address).to_bytes(8, "little")
        yield at, bytes(data)
        below = [at + index * TABLE for index in range(count)]
        at += count * TABLE
    yield None, b"".join(form.directory(address).to_bytes(8, "little") for address in below)
