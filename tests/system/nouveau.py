"""A guest that loads Linux's own nouveau on a software GPU, and what its log must say.

Nothing of ours runs inside the guest but an init script of busybox commands.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from devtools.lab import Lab
    from devtools.lab.guest import Guest

FIRMWARE = {
    "ga100": (r"ga100/gsp/.*{version}\.bin", r"ga100/acr/bl\.bin"),
    "gh100": (r"gh100/gsp/.*{version}\.bin",),
}
TROUBLE = re.compile(
    r"WARNING:|BUG:|Call Trace|\bOops\b|nouveau [0-9a-f:.]+:.*(?:timeout|failed|error|stalled|mbox|-\d+$)|msg fn:", re.IGNORECASE
)
HARMLESS = re.compile(
    r"Cannot find any crtc or sizes|No compatible format found|error recovery"
    r"|failed to load \S*570\.144"  # the older firmware is found after the newer was looked for
    r"|suspend debug: Waiting"
)

_INIT = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
load() {{ for module in {modules}; do insmod $module 2>/dev/null; done; }}
load
echo "guest: loaded $(ls /dev/dri | grep -c renderD) render node"
{script}
echo "guest: end"
{end}
"""


def build_initrd(lab: Lab, path: Path, *, chip: str, version: str, script: str = "", end: str = "echo b > /proc/sysrq-trigger") -> Path:
    """An initial root file system that loads nouveau with the firmware of one version, runs `script`, and ends."""
    from devtools.lab.initramfs import Archive

    archive = Archive()
    modules = archive.modules(lab, "nouveau")
    archive.tree(lab.firmware, "lib/firmware/nvidia", [pattern.format(version=re.escape(version)) for pattern in FIRMWARE[chip]])
    archive.base(lab, _INIT.format(modules=" ".join(modules), script=script, end=end))
    archive.write(path)
    return path


class Served:
    """A running `nvcore softgpu serve`: its socket, and the report that it writes when its client has left."""

    def __init__(self, process: subprocess.Popen[str], socket: Path, report: Path) -> None:
        self._process, self.socket, self._report = process, socket, report

    def report(self, timeout: float = 60) -> dict[str, Any]:
        """What the model saw, after the guest ended."""
        output, _ = self._process.communicate(timeout=timeout)
        assert self._process.returncode == 0, output
        return json.loads(self._report.read_text())  # type: ignore[no-any-return]


@contextmanager
def served(folder: Path, chip: str, *, vram: str = "4G", faults: Sequence[str] = ()) -> Iterator[Served]:
    """The software GPU in a process of its own, as an operator would start it."""
    socket, report = folder / "gpu.sock", folder / "report.json"
    command = [sys.executable, "-I", "-m", "nvcore", "softgpu", "serve", "--chip", chip, "--vram", vram, "--socket", str(socket), "--once"]
    command += ["--report", str(report), *(word for fault in faults for word in ("--fault", fault))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        while True:
            line = process.stdout.readline()
            assert line, f"the server ended with {process.wait()}"
            if str(socket) in line:
                break
        yield Served(process, socket, report)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stdout.close()


@contextmanager
def guest(lab: Lab, initrd: Path, socket: Path, *, append: str = "", log: Path | None = None) -> Iterator[Guest]:
    """The guest with the GPU at 0000:01:00.0."""
    from devtools.lab.guest import Guest, vfio_user_device

    with Guest(lab, initrd, arguments=vfio_user_device(socket), append=append, log=log) as machine:
        yield machine


def trouble(lines: Sequence[str]) -> list[str]:
    """Lines that a healthy probe does not have."""
    return [line for line in lines if TROUBLE.search(line) and not HARMLESS.search(line)]
