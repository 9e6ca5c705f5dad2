"""A host and its GPUs as JSON-able objects: the one place where records become dictionaries.

Owns nothing; any thread; reads what is there without asking the firmware. What is unknown is None, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from nvcore.api.events import Event
from nvcore.api.inventory import Range

if TYPE_CHECKING:
    from nvcore.gpu.clients import Attachment
    from nvcore.gpu.grants import GpuGrant
    from nvcore.gpu.life import Gpu


def plain(value: Any) -> Any:
    """A record of the API, with all that is in it, as JSON-able values: field names become keys, a Range becomes [start, size]."""
    if isinstance(value, Range):
        return [value.start, value.size]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    fields = getattr(type(value), "__attrs_attrs__", None)
    return value if fields is None else {field.name: plain(getattr(value, field.name)) for field in fields}


def describe_event(event: Event) -> dict[str, Any]:
    """An event; keys with no value are left out."""
    return {key: value for key, value in plain(event).items() if value is not None}


def _pick(value: object, **paths: str) -> dict[str, Any]:
    """Attributes of a value under other names; all None where there is no value."""
    return {name: None if value is None else plain(attrgetter(path)(value)) for name, path in paths.items()}


def _grant(grant: GpuGrant) -> dict[str, Any]:
    fields = ("name", "label", "state", "client", "function", "vm", "generation", "vram", "channels", "functions")
    return {**_pick(grant, **{field: field for field in fields}), **_pick(grant.parent, parent="name")}


def _client(attachment: Attachment) -> dict[str, Any]:
    return {**_pick(attachment, name="name", plugin="plugin", function="function.name"), **plain(attachment.status())}


def summarise_gpu(gpu: Gpu) -> dict[str, Any]:
    """One row of a list."""
    report, hardware = gpu.boot_report, gpu.hardware  # each looked at once: the GPU may be taken down meanwhile
    booted = report if report is not None and report.image.problem is None else None
    books = {row.kind: row for row in hardware.ledger.rows()} if hardware is not None else {}
    given = [grant.functions for grant in tuple(hardware.grants.values()) if grant.parent is not None] if hardware is not None else []
    return {
        "source": gpu.source,
        **_pick(gpu.identity, address="address", uuid="uuid", chip="chip.name"),
        **_pick(gpu.state, state="name", cause="cause", code="code", remedy="remedy", since="wall"),
        **_pick(booted, firmware="image.version", firmware_kind="image.kind"),
        "generation": gpu.generation,
        **_pick(books.get("vram"), vram_total="total", vram_owned="owned", vram_quarantined="quarantined"),
        **_pick(books.get("functions"), functions_total="total", functions_owned="owned"),
        "functions_used": sum(map(len, given)) if "functions" in books else None,
        "faults": {rung.value: count for rung, count in gpu.ladder.counts.items()},
        "conflicts": list(gpu.conflicts),
    }


def describe_gpu(gpu: Gpu) -> dict[str, Any]:
    """Everything that is known about a GPU."""
    hardware, report = gpu.hardware, gpu.boot_report
    return {
        **summarise_gpu(gpu),
        "inventory": {**plain(hardware.inventory), "usable_memory": hardware.inventory.usable_memory} if hardware else None,
        "ledger": plain(hardware.ledger.rows()) if hardware else [],
        "grants": [_grant(grant) for grant in tuple(hardware.grants.values())] if hardware else [],
        "functions": plain(gpu.functions),
        "clients": [_client(attachment) for attachment in tuple(gpu.attachments)],
        "needs": plain(gpu.needs),
        "boot": {**plain(report), "seconds": sum(stage.seconds for stage in report.stages)} if report else None,
        "progress": plain(gpu.stages),
        "unload": plain(gpu.unload_report),
    }
