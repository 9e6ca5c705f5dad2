"""Rows of the schemas nvcore.vgpu/1 and nvcore.vgpu-types/1: JSON made of the books, here alone. Pure."""

from __future__ import annotations

from typing import Any

from nvcore_vfio.books import Entry
from nvcore_vfio.placement import Room
from nvcore_vfio.types import VgpuType

__all__ = ["room_row", "vgpu_row"]


def vgpu_row(entry: Entry, gpu: str, epoch: float) -> dict[str, Any]:
    """One declared vGPU. gpu: bus address; epoch: what the GPU's clock is behind the time of day. What is not known is None."""
    record, kind, instance = entry.record, entry.kind, entry.instance
    state, reason = entry.stands
    run = instance.channels if instance is not None else None
    started = instance.started if instance is not None else None
    return {
        "name": record.name,
        "uuid": record.uuid,
        "gpu": gpu,
        "function": record.function,
        "type": record.type,
        "slot": record.slot,
        "vm": record.vm,
        "state": state,
        "reason": reason,
        "framebuffer_bytes": kind.framebuffer if kind is not None else None,
        "channels": [run.start, run.size] if run is not None else None,
        "machine": record.machine,
        "firmware": record.firmware,
        "protocol": instance.protocol if instance is not None else None,
        "bring_up": kind.bring_up if kind is not None else None,
        "started_at": epoch + started if started is not None else None,
        "claim_pid": record.claim.pid if record.claim is not None else None,
    }


def room_row(kind: VgpuType, here: Room) -> dict[str, Any]:
    """Room for one type."""
    return {"type": kind.name, "left": here.left, "reason": here.reason, "bring_up": kind.bring_up}
