"""`nvcore softgpu serve`: a software GPU behind a vfio-user socket, for QEMU.

Owns the socket for as long as the command runs, and writes the report of what the model saw when it ends. The server's loop runs on the
main thread and executes the channels there, one slice between two looks at the socket; SIGTERM and SIGINT end it in order. Knows nothing
of the model's inside but the inspector.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvcore.api.errors import UsageError
from nvcore.vfio_user import DeviceServer
from nvcore_softgpu.device import SoftDevice
from nvcore_softgpu.sources import SCHEME

if TYPE_CHECKING:
    from nvcore.api.command import CommandIO

__all__ = ["report", "serve"]


def source_of(chip: str, vram: str, firmware: str | None, faults: Sequence[str]) -> str:
    """The source that the options describe."""
    from urllib.parse import quote

    keys = [f"vram={vram}", *([f"firmware={quote(firmware)}"] if firmware else []), *(f"fault={quote(fault)}" for fault in faults)]
    return f"{SCHEME}:{chip}?{'&'.join(keys)}"


def qemu_lines(path: str) -> list[str]:
    """How to attach QEMU (11.1 or later) to the socket."""
    device = f'{{"driver":"vfio-user-pci","bus":"rp0","rombar":0,"socket":{{"type":"unix","path":"{path}"}}}}'
    return [
        "qemu-system-x86_64 -M q35,memory-backend=mem -m 1536M \\",
        "  -object memory-backend-memfd,id=mem,size=1536M,share=on \\",
        "  -device pcie-root-port,id=rp0,bus=pcie.0,chassis=1 \\",
        f"  -device '{device}' …",
    ]


def serve(options: dict[str, str], faults: Sequence[str], io: CommandIO) -> int:
    """Serve until the client leaves (with --once), or until a signal."""
    from nvcore_softgpu.bus import make_card

    for name in ("--chip", "--vram", "--socket"):
        if name not in options:
            raise UsageError(f"serve needs {name}", remedy="nvcore softgpu --help")
    if "--report" in options and not Path(options["--report"]).parent.is_dir():  # said now, not when what was seen cannot be kept
        raise UsageError(f"no folder for the report {options['--report']}", remedy="name a file in a folder that exists")
    source = source_of(options["--chip"], options["--vram"], options.get("--firmware"), faults)
    card = make_card(source)
    device = SoftDevice(card, source)
    problems: list[str] = []
    try:
        server = DeviceServer(device, options["--socket"], on_problem=problems.append, work=card.turns())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.close())
        io.out(f"serving {source} at {options['--socket']}\n")
        for line in qemu_lines(options["--socket"]):
            io.out(f"{line}\n")
        io.stdout.flush()
        try:
            server.serve(once="--once" in options)
        finally:
            server.close()
        if "--report" in options:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            seen = {"generated_at": now, **report(device), "messages": server.messages, "problems": problems}
            Path(options["--report"]).write_text(json.dumps(seen, indent=1), "utf-8")
    finally:
        device.close()
    return 0


def report(device: SoftDevice) -> dict[str, Any]:
    """What the model saw: violations, what it does not know, counters, the device's own view (keys of nvcore.softgpu-report/1)."""
    model = device.model
    return {
        "schema": "nvcore.softgpu-report/1",
        "violations": [{"name": violation.name, "text": violation.text, "count": violation.count} for violation in model.violations],
        "unknown_registers": [
            {"register": f"{offset:#08x}", "write": write, "count": count}
            for (offset, write), count in sorted(model.unknown_registers.items())
        ],
        "unknown_controls": [{"command": f"{number:#010x}", "count": count} for number, count in sorted(model.unknown_controls.items())],
        "faults": model.faults_acted(),
        "counters": model.counters,
        "view": model.view(),
    }
