"""Placement: how many vGPUs of a type fit, and where the next one goes. Pure; the one function decides for list and create (F11).

Equal-size mode: the first vGPU fixes the size; slots are numbered from 0, `max_instances` of them at the most. Source: kernel_vgpu_mgr.c
of open-gpu-kernel-modules 595.45.04, restated in reference page vgpu-host.md 3.4.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from nvcore_vfio.types import VgpuType

__all__ = ["Room", "room"]

_ELSEWHERE: Final = "`nvcore vgpu types` lists the GPUs with room, and why others have none"


class Room:
    """What fits. left: further vGPUs of the type; slot and function: of the next one; reason, remedy: why there is none, and what helps."""

    __slots__ = ("function", "left", "reason", "remedy", "slot")

    def __init__(self, left: int, slot: int | None, function: int | None, reason: str | None = None, remedy: str = _ELSEWHERE) -> None:
        self.left, self.slot, self.function, self.reason, self.remedy = left, slot, function, reason, remedy


def room(
    kind: VgpuType,
    *,
    places: Sequence[tuple[int | None, int | None]],
    sizes: Collection[int],
    pool: int,
    functions: int,
    unusable: Mapping[int, str],
    kept: Mapping[int, str],
    unread: int = 0,
) -> Room:
    """Room for one more vGPU of `kind`.

    places: slot and function of every declared vGPU, as far as they are known. sizes: sizes of the types declared here. pool: vGPUs that
    the client's memory is split for. functions: VFs of the GPU. unusable: VFs that cannot be used, with the reason; kept: VFs in quarantine
    together with the memory of a vGPU. Both are left out, and spoil nothing else. unread: how many of the places are of records that
    cannot be read.
    """
    other = [size for size in sizes if size != kind.size]
    if other:
        text = f"the GPU holds vGPUs of {other[0]} GiB; equal-size mode takes one size at a time"
        return Room(0, None, None, text, f"destroy those first; {_ELSEWHERE}")
    if pool <= 0:
        return Room(0, None, None, "no memory is set aside for vGPUs")
    limit = min(kind.max_instances, pool)
    taken = {function for _, function in places}
    slots = sorted(set(range(limit)) - {slot for slot, _ in places})
    usable = [number for number in range(1, functions + 1) if number not in taken and number not in unusable and number not in kept]
    memory = limit - len(places) - len(kept.keys() - taken)
    left = min(len(slots), len(usable), memory)
    if left > 0:
        return Room(left, slots[0], usable[0])
    why = f"all {limit} slots are declared" if usable else "no usable virtual function is left"
    bad = "; ".join(f"VF {number}: {text}" for number, text in sorted({**kept, **({} if usable else unusable)}.items()))
    ways = [
        *(["destroy a vGPU"] if len(places) > unread else []),
        *(["mend the records that cannot be read (`nvcore doctor` names them)"] if unread else []),
        *(["nvcore gpus reset GPU, for what cannot be used"] if bad else []),
    ]
    return Room(0, None, None, f"{why}: {bad}" if bad else why, ", or ".join(ways) or _ELSEWHERE)
