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


# Needs of a client that needs nothing.
NO_NEEDS: Final = BootNeeds()


def merge_needs(needs: Iterable[tuple[str, BootNeeds]]) -> BootNeeds:
    """Union of (client name, needs). Raises ConflictError naming both clients when one setting is wanted with two values."""
    wanted = list(needs)
    settings: dict[str, tuple[str, int]] = {}
    for name, need in wanted:
        for key, value in need.settings.items():
            first, settled = settings.setdefault(key, (name, value))
            if settled != value:
                what = f"clients {first} and {name} want different values of the firmware setting {key}"
                remedy = "select only one of the two plugins, or set the value in their configuration"
                raise ConflictError(what, expected=settled, seen=value, remedy=remedy)
    vgpu, display = any(need.vgpu_host for _, need in wanted), any(need.display for _, need in wanted)
    functions = max((need.virtual_functions for _, need in wanted), default=0)
    return BootNeeds(vgpu, functions, display, {key: value for key, (_, value) in settings.items()})
