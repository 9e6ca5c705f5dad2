"""Which files boot which chip, one row a chip; there is no default row.

Data only. A chip that is not in the table is not supported by this backend, and no other chip's folder is ever used for it.
Source: Linux 7.3 nova-core firmware.rs and nouveau nvkm/subdev/gsp/*; linux-firmware 20260916 nvidia/<chip>/gsp.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nvcore_fw_gsp.images.errors import ChipNotSupported

__all__ = ["CHIPS", "GENERIC_BOOTLOADERS", "ImageChip", "image_chip"]

_BOOTER: Final = ("gsp", "bootloader", "booter_load", "booter_unload")
_FSP: Final = ("gsp", "bootloader", "fmc")
GENERIC_BOOTLOADERS: Final = ("gsp/gen_bootloader-{version}.bin", "acr/bl.bin")
"""Places of the generic bootloader under a chip's folder, best first; both hold the same code."""


class ImageChip(NamedTuple):
    """One chip: `folder` below the firmware root; `signature` family in the GSP image; `required` roles, each `<role>-<version>.bin`.

    generic: a generic bootloader is needed too (FWSEC of descriptor version 2). optional: roles used when they are there. libos:
    generation in the GSP image.
    """

    name: str
    signature: str
    required: tuple[str, ...]
    generic: bool
    optional: tuple[str, ...]
    libos: int

    @property
    def folder(self) -> str:
        """Name of the chip's folder, as in "ga100"."""
        return self.name.lower()


CHIPS: Final = (
    *(ImageChip(name, "tu10x", _BOOTER, True, (), 2) for name in ("TU102", "TU104", "TU106")),
    *(ImageChip(name, "tu11x", _BOOTER, True, (), 2) for name in ("TU116", "TU117")),
    ImageChip("GA100", "ga100", _BOOTER, True, (), 2),
    *(ImageChip(name, "ga10x", _BOOTER, False, (), 3) for name in ("GA102", "GA103", "GA104", "GA106", "GA107")),
    *(ImageChip(name, "ad10x", _BOOTER, False, ("scrubber",), 3) for name in ("AD102", "AD103", "AD104", "AD106", "AD107")),
    ImageChip("GH100", "gh100", _FSP, False, (), 3),
    *(ImageChip(name, "gb10x", _FSP, False, (), 3) for name in ("GB100", "GB102")),
    *(ImageChip(name, "gb20x", _FSP, False, (), 3) for name in ("GB202", "GB203", "GB205", "GB206", "GB207")),
)
"""Every chip whose images can be found and inspected, by generation."""

_BY_NAME: Final = {chip.name: chip for chip in CHIPS}


def image_chip(name: str) -> ImageChip:
    """The row of a chip, as in "GA100". Raises ChipNotSupported naming the files that such a chip would need."""
    chip = _BY_NAME.get(name)
    if chip is None:
        raise ChipNotSupported(
            f"{name} is not supported by this backend",
            expected=" ".join(_BY_NAME),
            seen=name,
            remedy=f"it needs files of its own under {name.lower()}/gsp/ and a row in the chip table; another chip's files do not fit",
        )
    return chip
