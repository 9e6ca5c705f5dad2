"""Placement: how many vGPUs of a type fit, and where the next one goes. Pure; the one function decides for list and create (F11).

Equal-size mode: the first vGPU fixes the size; slots are numbered from 0, `max_instances` of them at the most; channel runs are powers of
two, given out from the top down. Source: kernel_vgpu_mgr.c of open-gpu-kernel-modules 595.45.04, restated in reference page vgpu-host.md
3.4.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from nvcore_vfio.types import VgpuType

__all__ = ["CHANNELS", "Room", "channels_per_vgpu", "room"]

CHANNELS: Final = 2048
"""Channel ids of a runlist that the split is computed from."""


def channels_per_vgpu(max_instances: int) -> int:
    """The largest power of two that is not above CHANNELS / max_instances."""
    return 1 << ((CHANNELS // max_instances).bit_length() - 1)


class Room:
    """What fits. left: further vGPUs of the type; slot and function: of the next one; reason: why there is none."""

    __slots__ = ("function", "left", "reason", "slot")

    def __init__(self, left: int, slot: int | None, function: int | None, reason: str | None) -> None:
        self.left, self.slot, self.function, self.reason = left, slot, function, reason


def room(
    kind: VgpuType,
    *,
    declared: Mapping[int, int],
    sizes: Collection[int],
    pool: int,
    functions: int,
    unreadable: Mapping[int, str],
) -> Room:
    """Room for one more vGPU of `kind`.

    declared: slot -> function of every declared vGPU. sizes: sizes of the types declared here. pool: vGPUs that the client's memory is
    split for. functions: VFs of the GPU; unreadable: VFs that cannot be used, with the reason: they are left out, and spoil nothing else.
    """
    other = [size for size in sizes if size != kind.size]
    if other:
        return Room(0, None, None, f"the GPU holds vGPUs of {other[0]} GiB; equal-size mode takes one size at a time")
    limit = min(kind.max_instances, pool)
    taken = set(declared.values())
    usable = [number for number in range(1, functions + 1) if number not in taken and number not in unreadable]
    slots = [slot for slot in range(limit) if slot not in declared]
    left = min(len(slots), len(usable))
    if left:
        return Room(left, slots[0], usable[0], None)
    if not slots:
        return Room(0, None, None, f"all {limit} slots are declared")
    bad = "; ".join(f"VF {number}: {why}" for number, why in sorted(unreadable.items()))
    return Room(0, None, None, f"no usable virtual function is left{': ' + bad if bad else ''}")
