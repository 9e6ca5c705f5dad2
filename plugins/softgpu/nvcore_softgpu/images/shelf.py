"""A firmware folder as the model sees it: which GSP images, bootloaders and FMCs it has for a chip.

Owns the search and the open files of one shelf. Files are mapped on the first use and stay mapped as long as the shelf lives. Any thread
under the device's lock.
Source: linux-firmware's layout, nvidia/CHIP/gsp/{gsp,bootloader,fmc}-VERSION.bin.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from nvcore_softgpu.images.parser import Fmc, GspImage, ImageFormatError, RiscvImage, parse_fmc, parse_riscv

__all__ = ["Shelf", "open_shelf", "parsed"]

Parsed = TypeVar("Parsed")


class Shelf:
    """GSP images of one folder (`ports.ImageShelf`)."""

    def __init__(self, folder: Path) -> None:
        """folder: has `nvidia/CHIP/gsp` below it, or is that `nvidia` folder itself."""
        self.folder = folder
        self._known: dict[str, list[GspImage]] = {}
        self._bootloaders: dict[str, dict[str, RiscvImage]] = {}
        self._fmcs: dict[str, list[Fmc]] = {}

    def files(self, chip: str, kind: str = "gsp") -> list[Path]:
        """Files of one kind ("gsp", "bootloader", "fmc") for a chip."""
        for base in (self.folder / "nvidia", self.folder):
            found = sorted((base / chip.lower() / "gsp").glob(f"{kind}-*.bin"))
            if found:
                return found
        return []

    def read(self, chip: str) -> None:
        """Read every file for a chip now. Raises ImageFormatError, OSError."""
        self.candidates(chip)
        self.fmcs(chip)
        self.bootloader(chip, "")

    def candidates(self, chip: str) -> Sequence[GspImage]:
        """Images for a chip by name ("GA100"), in any release. Raises ImageFormatError for a file that is no image."""
        known = self._known.get(chip)
        if known is None:
            known = self._known[chip] = [parsed(path, GspImage) for path in self.files(chip)]
        return known

    def bootloader(self, chip: str, version: str) -> RiscvImage | None:
        """The GSP's bootloader of one release. Raises ImageFormatError for a file that is none."""
        known = self._bootloaders.get(chip)
        if known is None:
            known = self._bootloaders[chip] = {
                path.name.removeprefix("bootloader-").removesuffix(".bin"): parsed(path, parse_riscv)
                for path in self.files(chip, "bootloader")
            }
        return known.get(version)

    def fmcs(self, chip: str) -> Sequence[Fmc]:
        """FMCs for a chip, in any release. Raises ImageFormatError for a file that is none."""
        known = self._fmcs.get(chip)
        if known is None:
            known = self._fmcs[chip] = [parsed(path, parse_fmc) for path in self.files(chip, "fmc")]
        return known


def parsed(path: Path, parse: Callable[[memoryview], Parsed]) -> Parsed:
    """What a file holds. Raises ImageFormatError, which names the file, and OSError."""
    try:
        return parse(_map(path))
    except ImageFormatError as problem:
        problem.where = f"{path}, {problem.where}" if problem.where else str(path)
        raise


def _map(path: Path) -> memoryview:
    # a real image has 60 MiB: mapped, so that only the pages that are compared are read
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def open_shelf(folder: str | Path) -> Shelf:
    """The shelf of a folder; it need not exist yet."""
    return Shelf(Path(folder))
