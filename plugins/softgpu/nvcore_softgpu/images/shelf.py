"""A firmware folder as the model sees it: which GSP images it has for a chip.

Owns the search and the open files of one shelf. Files are mapped on the first use and stay mapped as long as the shelf lives. Any thread
under the device's lock.
Source: linux-firmware's layout, nvidia/CHIP/gsp/gsp-VERSION.bin.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

from nvcore_softgpu.images.parser import GspImage

__all__ = ["Shelf", "open_shelf"]


class Shelf:
    """GSP images of one folder (`ports.ImageShelf`)."""

    def __init__(self, folder: Path) -> None:
        """folder: has `nvidia/CHIP/gsp` below it, or is that `nvidia` folder itself."""
        self.folder = folder
        self._known: dict[str, list[GspImage]] = {}

    def files(self, chip: str) -> list[Path]:
        """Files of GSP images for a chip."""
        for base in (self.folder / "nvidia", self.folder):
            found = sorted((base / chip.lower() / "gsp").glob("gsp-*.bin"))
            if found:
                return found
        return []

    def candidates(self, chip: str) -> Sequence[GspImage]:
        """Images for a chip by name ("GA100"), in any release. Raises ImageFormatError for a file that is no image."""
        known = self._known.get(chip)
        if known is None:
            known = self._known[chip] = [GspImage(_map(path)) for path in self.files(chip)]
        return known


def _map(path: Path) -> memoryview:
    # a real image has 60 MiB: mapped, so that only the pages that are compared are read
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def open_shelf(folder: str | Path) -> Shelf:
    """The shelf of a folder; it need not exist yet."""
    return Shelf(Path(folder))
