"""A host and its GPUs as JSON-able objects: the one place where records become dictionaries.

Owns nothing; any thread; reads what is there without asking the firmware. What is unknown is None, never zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvcore.api.events import Event
from nvcore.api.firmware import BootReport, BootStage, UnloadReport
from nvcore.api.function import Function
from nvcore.api.grant import LedgerRow
from nvcore.api.inventory import Inventory

if TYPE_CHECKING:
    from nvcore.gpu.grants import GpuGrant
    from nvcore.gpu.life import Gpu

__all__ = ["describe_event", "describe_gpu", "describe_report", "summarise_gpu"]


def describe_event(event: Event) -> dict[str, Any]:
    """An event; keys with no value are left out."""
    names = ("sequence", "time", "wall", "kind", "gpu", "text", "code", "function", "grant", "owner", "channel", "vm", "action")
    found = {name: getattr(event, name) for name in names if getattr(event, name) is not None}
    if event.fault is not None:
        fault = event.fault
        found["fault"] = {
            "rung": fault.rung.value,
            "cause": fault.cause,
            "generation": fault.generation,
            "engine": fault.engine,
            "function": fault.function,
            "address": fault.address,
        }
    return found


def _stages(stages: tuple[BootStage, ...] | list[BootStage]) -> list[dict[str, Any]]:
    return [
        {"name": stage.name, "seconds": stage.seconds, "outcome": stage.outcome, "detail": stage.detail, "registers": dict(stage.registers)}
        for stage in stages
    ]


def describe_report(report: BootReport | None) -> dict[str, Any] | None:
    """A boot report."""
    if report is None:
        return None
    image = report.image
    return {
        "chip": report.chip,
        "image": {
            "version": image.version,
            "kind": image.kind,
            "location": image.location,
            "problem": image.problem,
            "looked_for": list(image.looked_for),
        },
        "stages": _stages(report.stages),
        "seconds": report.seconds,
        "cause": report.cause,
        "code": report.code,
        "remedy": report.remedy,
        "logs": dict(report.logs),
    }


def _unload(report: UnloadReport | None) -> dict[str, Any] | None:
    if report is None:
        return None
    return {"stages": _stages(report.stages), "clean": report.clean, "needs_reset": report.needs_reset, "cause": report.cause}


def _inventory(inventory: Inventory) -> dict[str, Any]:
    return {
        "name": inventory.name,
        "uuid": inventory.uuid,
        "memory_size": inventory.memory_size,
        "usable_memory": inventory.usable_memory,
        "regions": [
            {"start": region.range.start, "size": region.range.size, "usable": region.usable, "owner": region.owner}
            for region in inventory.regions
        ],
        "engines": [{"name": engine.name, "kind": engine.kind, "runlist": engine.runlist} for engine in inventory.engines],
        "first_channel": inventory.first_channel,
        "channels": inventory.channels,
        "vmmu_segment": inventory.vmmu_segment,
        "page_tables": inventory.page_tables,
        "bar1_size": inventory.bar1_size,
        "heads": inventory.heads,
        "vgpu": {"host": inventory.vgpu.host, "functions": inventory.vgpu.functions, "reason": inventory.vgpu.reason},
        "firmware": inventory.firmware,
        "capabilities": sorted(inventory.capabilities),
    }


def _function(function: Function) -> dict[str, Any]:
    names = ("name", "kind", "published", "reason", "remedy", "owner")
    return {name: getattr(function, name) for name in names}


def _row(row: LedgerRow) -> dict[str, Any]:
    names = ("kind", "unit", "total", "free", "owned", "quarantined", "retired")
    return {**{name: getattr(row, name) for name in names}, "owners": dict(row.owners)}


def _grant(grant: GpuGrant) -> dict[str, Any]:
    return {
        "name": grant.name,
        "label": grant.label,
        "state": grant.state,
        "client": grant.client,
        "function": grant.function,
        "vm": grant.vm,
        "generation": grant.generation,
        "parent": grant.parent.name if grant.parent else None,
        "vram": [[item.start, item.size] for item in grant.vram],
        "channels": [[item.start, item.size] for item in grant.channels],
        "functions": list(grant.functions),
    }


def summarise_gpu(gpu: Gpu) -> dict[str, Any]:
    """One row of a list."""
    hardware, report = gpu.hardware, gpu.boot_report
    rows = {row.kind: row for row in hardware.ledger.rows()} if hardware else {}
    vram = rows.get("vram")
    return {
        "source": gpu.source,
        "address": gpu.identity.address if gpu.identity else None,
        "uuid": gpu.identity.uuid if gpu.identity else None,
        "chip": gpu.identity.chip.name if gpu.identity else None,
        "state": gpu.state.name,
        "cause": gpu.state.cause,
        "code": gpu.state.code,
        "remedy": gpu.state.remedy,
        "since": gpu.state.wall,
        "firmware": report.image.version if report else None,
        "firmware_kind": report.image.kind if report else None,
        "generation": gpu.generation,
        "vram_total": vram.total if vram else None,
        "vram_owned": vram.owned if vram else None,
        "vram_quarantined": vram.quarantined if vram else None,
        "functions_total": rows["functions"].total if "functions" in rows else None,
        "functions_owned": rows["functions"].owned if "functions" in rows else None,
        "faults": {rung.value: count for rung, count in gpu.ladder.counts.items()},
        "conflicts": list(gpu.conflicts),
    }


def describe_gpu(gpu: Gpu) -> dict[str, Any]:
    """Everything that is known about a GPU."""
    hardware = gpu.hardware
    return {
        **summarise_gpu(gpu),
        "inventory": _inventory(hardware.inventory) if hardware else None,
        "ledger": [_row(row) for row in hardware.ledger.rows()] if hardware else [],
        "grants": [_grant(grant) for grant in tuple(hardware.grants.values())] if hardware else [],
        "functions": [_function(function) for function in gpu.functions],
        "clients": [attachment.as_dict() for attachment in tuple(gpu.attachments)],
        "needs": {
            "vgpu_host": gpu.needs.vgpu_host,
            "virtual_functions": gpu.needs.virtual_functions,
            "display": gpu.needs.display,
            "settings": dict(gpu.needs.settings),
        },
        "boot": describe_report(gpu.boot_report),
        "progress": _stages(gpu.stages),
        "unload": _unload(gpu.unload_report),
    }
