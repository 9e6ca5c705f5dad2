"""ABI versions of GSP-RM as data: structure layouts, numbers, and how each version behaves.

Owns the committed data and its reading; touches no device, starts nothing, imports nothing else of this package (a software GPU reads it
too). Any thread. One structure costs one search in a mapped file: `abi.load("570.144").struct("GspFwWprMeta").pack(magic=…)`.
Source: NVIDIA open-gpu-kernel-modules at the tag of each version (`Abi.source`), read back from compiled headers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvcore_fw_gsp.abi.errors import AbiError, AbiFieldError, AbiNameError, AbiValueError, AbiVersionError
from nvcore_fw_gsp.abi.layout import Field, Struct, View
from nvcore_fw_gsp.abi.store import Abi, load, versions

if TYPE_CHECKING:
    from nvcore_fw_gsp.abi.manifests import Manifest

__all__ = [
    "Abi",
    "AbiError",
    "AbiFieldError",
    "AbiNameError",
    "AbiValueError",
    "AbiVersionError",
    "Field",
    "Struct",
    "View",
    "load",
    "manifest",
    "versions",
]


def manifest(version: str) -> Manifest:
    """How `version` behaves (see `nvcore_fw_gsp.abi.manifests`). Raises AbiVersionError."""
    from nvcore_fw_gsp.abi.manifests import of

    return of(version)
