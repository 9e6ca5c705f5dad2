"""Which firmware was loaded: read from the image that the driver described, not from what anybody says.

Owns the table of known images. Reads memory, changes nothing. Runs on the caller's thread under the device's lock.
Source: sizes of `.fwimage` in linux-firmware and in the vendor's packages (distinct per version); synthetic images carry their name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from nvcore_softgpu.ports import Aperture, Memory

__all__ = ["KNOWN_SIZES", "MARK", "MARK_AT", "Identity", "identify"]

MARK: Final = b"nvcore synthetic GSP image\0"
"""What a synthetic image says of itself."""

MARK_AT: Final = 0x800
"""Where in the firmware's section it says so."""

# .fwimage bytes: (version, family of the image)
KNOWN_SIZES: Final[dict[int, tuple[str, str]]] = {
    38043648: ("535.113.01", "ga10x"),
    37322752: ("550.163.01", "ga10x"),
    63541248: ("570.144", "ga10x"),
    23737168: ("535.113.01", "tu10x"),
    24604872: ("550.163.01", "tu10x"),
    28528288: ("570.144", "tu10x"),
}
_PAGE = 0x1000
_AUIPC: Final = 0x17


class Identity(NamedTuple):
    """version: release string; family: tu10x or ga10x; synthetic: no real firmware."""

    version: str
    family: str
    synthetic: bool


def _first_page(memory: Memory, root: int) -> bytes | None:
    address = root
    for _ in range(3):
        if address == 0 or address % _PAGE:
            return None
        address = int.from_bytes(memory.read(Aperture.SYSTEM, address, 8), "little")
    return None if address == 0 or address % _PAGE else memory.read(Aperture.SYSTEM, address, _PAGE)


def identify(memory: Memory, meta: Mapping[str, int]) -> tuple[Identity | None, str]:
    """(identity, reason when there is none) of the image behind the radix3 table of the WPR meta."""
    size = meta.get("sizeOfRadix3Elf", 0)
    page = _first_page(memory, meta.get("sysmemAddrOfRadix3Elf", 0))
    if page is None:
        return None, "the radix3 table leads nowhere"
    if page[MARK_AT : MARK_AT + len(MARK)] == MARK:
        text = page[MARK_AT + len(MARK) : MARK_AT + len(MARK) + 64]
        version, family = (part.decode("ascii", "replace") for part in text.split(b"\0")[:2])
        return Identity(version, family, True), ""
    known = KNOWN_SIZES.get(size)
    if known is None:
        return None, f"no known firmware image has {size} bytes"
    looks = "tu10x" if page[:4] == b"\x7fELF" else "ga10x" if page[0] & 0x7F == _AUIPC else "nothing known"
    if looks != known[1]:
        return None, f"an image of {size} bytes should look like {known[1]}, this one looks like {looks}"
    return Identity(known[0], known[1], False), ""
