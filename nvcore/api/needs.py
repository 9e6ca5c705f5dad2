"""What clients need of a GPU before it boots: heap, VF information and settings are fixed at boot.

`ClientOffer.needs` is pure and asked for every GPU that the selected client could drive. The core merges the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import attrs

from nvcore.api.errors import ConflictError

__all__ = ["NO_NEEDS", "BootNeeds", "merge_needs"]


def _frozen_map(value: Mapping[str, int]) -> Mapping[str, int]:
    return MappingProxyType(dict(value))


@attrs.frozen
class BootNeeds:
    """Needs of one client, or of all together.

    vgpu_host: the firmware must be started as a vGPU host (bigger heap, SR-IOV mode). virtual_functions: how many VFs to prepare for.
    display: heads are wanted. settings: firmware settings by name, passed on as they are; two clients that want different values of one
    setting are in conflict.
    """

    vgpu_host: bool = False
    virtual_functions: int = 0
    display: bool = False
    settings: Mapping[str, int] = attrs.field(factory=dict, converter=_frozen_map)


NO_NEEDS: Final = BootNeeds()
"""Needs of a client that needs nothing."""


def merge_needs(needs: Iterable[tuple[str, BootNeeds]]) -> BootNeeds:
    """Union of (client name, needs). Raises ConflictError naming both clients when one setting is wanted with two values."""
    vgpu, functions, display = False, 0, False
    settings: dict[str, int] = {}
    owner: dict[str, str] = {}
    for name, need in needs:
        vgpu, display = vgpu or need.vgpu_host, display or need.display
        functions = max(functions, need.virtual_functions)
        for key, value in need.settings.items():
            if settings.setdefault(key, value) != value:
                what = f"clients {owner[key]} and {name} want different values of the firmware setting {key}"
                remedy = "select only one of the two plugins, or set the value in their configuration"
                raise ConflictError(what, expected=settings[key], seen=value, remedy=remedy)
            owner.setdefault(key, name)
    return BootNeeds(vgpu, functions, display, settings)
