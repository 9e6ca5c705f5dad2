"""The post-mortem bundle: boot report, firmware logs, queues, ledger, registers, events, written into one folder.

Owns nothing; reads, and asks only the session's diagnostics family, which works on a dead firmware. Any thread that may sleep. A part that
cannot be had is replaced by the reason, so that a dump of a broken GPU never fails as a whole. Imported on use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nvcore.api.errors import NvcoreError
from nvcore.api.families import DiagnosticsFamily
from nvcore.hostlib.describe import describe_event, describe_gpu

if TYPE_CHECKING:
    from nvcore.gpu.life import Gpu
    from nvcore.host import Host


def write_bundle(host: Host, folder: Path) -> list[Path]:
    """Write the bundle into `folder` (made if need be); the files."""
    written = []
    for name, value in _parts(host):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value if isinstance(value, bytes) else f"{json.dumps(value, indent=1, sort_keys=True, default=str)}\n".encode())
        written.append(path)
    return written


def _parts(host: Host) -> Iterator[tuple[str, Any]]:
    """Files by name, with the bytes or the JSON-able value of each."""
    yield "host.json", host.describe()
    yield "events.json", [describe_event(event) for event in host.events.since()]
    for gpu in host.gpus:
        home = gpu.name.replace(":", "-").replace("/", "-")
        yield f"{home}/gpu.json", describe_gpu(gpu)
        yield from ((f"{home}/{name}", value) for name, value in _diagnostics(gpu))


def _diagnostics(gpu: Gpu) -> Iterator[tuple[str, Any]]:
    hardware = gpu.hardware  # looked at once: it goes while this is written, when the GPU is taken down
    family = hardware.session.family("diagnostics") if hardware is not None else None
    if family is None:
        yield "diagnostics.json", {"absent": "no session with a diagnostics family"}
        return
    diagnostics = cast(DiagnosticsFamily, family)
    yield "queues.json", _or_reason(diagnostics.queues)
    yield "registers.json", _or_reason(lambda: {name: f"{value:#010x}" for name, value in diagnostics.registers().items()})
    try:
        for name, data in diagnostics.logs().items():
            yield f"log-{''.join(c if c.isalnum() else '_' for c in name)}.bin", data
    except NvcoreError as error:
        yield "logs.json", {"absent": str(error)}


def _or_reason(read: Callable[[], Any]) -> Any:
    try:
        return dict(read())
    except NvcoreError as error:
        return {"absent": str(error)}
