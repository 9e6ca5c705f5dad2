"""The post-mortem bundle: boot report, firmware logs, queues, ledger, registers, events, written into one folder.

Owns nothing; reads, and asks only the session's diagnostics family, which works on a dead firmware. Any thread that may sleep. A part that
cannot be had is replaced by the reason, so that a dump of a broken GPU never fails as a whole. Imported on use.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nvcore.api.errors import NvcoreError
from nvcore.api.families.diagnostics import DiagnosticsFamily
from nvcore.hostlib.describe import describe_event, describe_gpu

if TYPE_CHECKING:
    from nvcore.gpu.life import Gpu
    from nvcore.host import Host

__all__ = ["write_bundle"]


def write_bundle(host: Host, folder: Path) -> list[Path]:
    """Write the bundle into `folder` (made if need be); the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [
        _write(folder / "host.json", host.describe()),
        _write(folder / "events.json", [describe_event(event) for event in host.events.since()]),
    ]
    for gpu in host.gpus:
        home = folder / gpu.name.replace(":", "-").replace("/", "-")
        home.mkdir(exist_ok=True)
        written.append(_write(home / "gpu.json", describe_gpu(gpu)))
        written += _diagnostics(gpu, home)
    return written


def _diagnostics(gpu: Gpu, home: Path) -> list[Path]:
    hardware = gpu.hardware
    family = hardware.session.family("diagnostics") if hardware is not None else None
    if family is None:
        return [_write(home / "diagnostics.json", {"absent": "no session with a diagnostics family"})]
    diagnostics = cast(DiagnosticsFamily, family)
    written = [
        _write(home / "queues.json", _or_reason(diagnostics.queues)),
        _write(home / "registers.json", _or_reason(lambda: {name: f"{value:#010x}" for name, value in diagnostics.registers().items()})),
    ]
    try:
        for name, data in diagnostics.logs().items():
            path = home / f"log-{''.join(c if c.isalnum() else '_' for c in name)}.bin"
            path.write_bytes(data)
            written.append(path)
    except NvcoreError as error:
        written.append(_write(home / "logs.json", {"absent": str(error)}))
    return written


def _or_reason(read: Callable[[], Any]) -> Any:
    try:
        return dict(read())
    except NvcoreError as error:
        return {"absent": str(error)}


def _write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, default=str) + "\n", encoding="utf-8")
    return path
