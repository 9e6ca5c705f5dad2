"""The interrupt tree and the doorbell of one function, at their full BAR0 addresses as the physical function sees them.

Data only. Source: open-gpu-kernel-modules 570.144 dev_vm.h (NV_VIRTUAL_FUNCTION_PRIV_CPU_INTR_*, NV_VIRTUAL_FUNCTION_DOORBELL); Linux 7.3
nouveau nvkm/subdev/vfn. Vector v is bit v % 32 of leaf v // 32; two leaves share a bit of TOP.
"""

from __future__ import annotations

from typing import Final

from nvcore.api.errors import UsageError
from nvcore.hw.register import Field, Register

__all__ = [
    "LEAF",
    "LEAF_ENABLE_CLEAR",
    "LEAF_ENABLE_SET",
    "LEAVES_PER_TOP_BIT",
    "TOP",
    "TOP_ENABLE_CLEAR",
    "TOP_ENABLE_SET",
    "USERMODE_DOORBELL",
    "VECTORS_PER_LEAF",
    "place_of",
]

VECTORS_PER_LEAF: Final = 32
"""Vectors that share a LEAF register."""
LEAVES_PER_TOP_BIT: Final = 2
"""LEAF registers that share a bit of TOP."""


def place_of(vector: int, leaves: int) -> tuple[int, int]:
    """(leaf, bit mask in it) of a vector of a tree with so many leaves. Raises UsageError for one outside of it."""
    if not 0 <= vector < leaves * VECTORS_PER_LEAF:
        raise UsageError("no such interrupt vector", expected=f"0 to {leaves * VECTORS_PER_LEAF - 1}", seen=vector)
    return vector // VECTORS_PER_LEAF, 1 << vector % VECTORS_PER_LEAF


class LEAF(Register, offset=0xB81000, stride=4, count=16):
    """Pending vectors of one leaf; writing a one clears it."""

    pending = Field(31, 0, "one bit a vector")


class LEAF_ENABLE_SET(Register, offset=0xB81200, stride=4, count=16):
    """Writing ones enables vectors; reading gives the enabled ones."""

    enabled = Field(31, 0, "one bit a vector")


class LEAF_ENABLE_CLEAR(Register, offset=0xB81400, stride=4, count=16):
    """Writing ones disables vectors."""

    disable = Field(31, 0, "one bit a vector")


class TOP(Register, offset=0xB81600):
    """Summary: bit k is set while leaf 2k or 2k + 1 has an enabled vector pending. Read only."""

    pending = Field(31, 0, "one bit per two leaves")


class TOP_ENABLE_SET(Register, offset=0xB81608):
    """Writing ones lets the message interrupt be raised; done with something still pending it is raised again."""

    enable = Field(31, 0, "one bit per two leaves")


class TOP_ENABLE_CLEAR(Register, offset=0xB81610):
    """Writing ones holds the message interrupt back."""

    disable = Field(31, 0, "one bit per two leaves")


class USERMODE_DOORBELL(Register, offset=0xBB0090):
    """Work submission: a channel's token is written here (0x30090 of the function's own page)."""

    channel = Field(15, 0, "channel id (bits 11:0 in use)")
    runlist = Field(22, 16, "runlist")
