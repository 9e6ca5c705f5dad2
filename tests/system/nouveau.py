"""A guest that loads Linux's own nouveau on a software GPU, and what its log must say.

Nothing of ours runs inside the guest but an init script of busybox commands.
"""

from __future__ import annotations

import json
import re
import shlex
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
WARNING = 4
"""The kernel's level of warnings (include/linux/kern_levels.h); lower levels are worse."""

START = "guest: modules are loaded from here on"

EXPECTED: dict[str, str] = {
    r"nouveau \S+ \[drm\] No compatible format found$": "the GPU has no display engine: there is no plane for a console",
}
"""Lines of warning level or worse that a healthy guest prints, by regular expression, each with its reason."""

_INIT = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
load() {{ for module in {modules}; do insmod $module 2>/dev/null; done; }}
echo "<6>{start}" > /dev/kmsg
load
echo "guest: loaded $(ls /dev/dri | grep -c renderD) render node"
{script}
dmesg -r
echo "guest: end"
{end}
"""


def build_initrd(lab: Lab, path: Path, *, chip: str, version: str, script: str = "", end: str = "echo b > /proc/sysrq-trigger") -> Path:
    """An initial root file system that loads nouveau with the firmware of one version, runs `script`, and ends."""
    from devtools.lab.initramfs import Archive

    archive = Archive()
    modules = archive.modules(lab, "nouveau")
    archive.tree(lab.firmware, "lib/firmware/nvidia", [pattern.format(version=re.escape(version)) for pattern in FIRMWARE[chip]])
    archive.base(lab, _INIT.format(modules=" ".join(modules), start=START, script=script, end=end))
    archive.write(path)
    return path


class Served:
    """A running `nvcore softgpu serve`: the QEMU arguments that it printed, and the report that it writes when its client has left."""

    def __init__(self, process: subprocess.Popen[str], arguments: list[str], report: Path) -> None:
        self._process, self.arguments, self._report = process, arguments, report

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
        said = ""
        while not said.endswith("…\n"):
            line = process.stdout.readline()
            assert line, f"the server ended with {process.wait()}: {said}"
            said += line
        yield Served(process, qemu_arguments(said), report)
    except Exception as error:
        error.add_note(_seen(process, report))
        raise
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stdout.close()


def _seen(process: subprocess.Popen[str], report: Path) -> str:
    """What the model says of a run that failed: its guest is gone by now, so the server ends by itself."""
    try:
        output, _ = process.communicate(timeout=20)
        seen = json.loads(report.read_text())
    except (subprocess.TimeoutExpired, OSError, ValueError) as problem:
        return f"the software GPU left no report: {problem}"
    told = {key: seen[key] for key in ("violations", "problems", "unknown_registers", "unknown_controls", "faults", "counters")}
    return f"the software GPU: {output.strip()}\n{json.dumps(told)}\nits firmware: {json.dumps(seen['view']['gsp'])}"


def qemu_arguments(said: str) -> list[str]:
    """The arguments of the QEMU command that the server prints, as a shell would read it."""
    command = shlex.split(said[said.index("qemu-system-x86_64") :].replace("\\\n", " "))
    assert (command[0], command[-1]) == ("qemu-system-x86_64", "…")
    return command[1:-1]


@contextmanager
def guest(lab: Lab, initrd: Path, gpu: Served, *, append: str = "", log: Path | None = None) -> Iterator[Guest]:
    """The guest with the GPU, attached as the server says."""
    from devtools.lab.guest import Guest

    with Guest(lab, initrd, arguments=gpu.arguments, append=append, log=log) as machine:
        yield machine


def kernel_log(lines: Sequence[str]) -> list[tuple[int, str]]:
    """(level, text) of each line of the kernel's own log, which the guest prints with levels at its end."""
    found = [re.match(r"<(\d+)>(.*)", line) for line in lines]
    return [(int(match[1]) & 7, match[2]) for match in found if match]


def trouble(lines: Sequence[str]) -> list[str]:
    """Warnings and worse, whoever printed them, that a healthy guest does not have in its kernel's log once modules are loaded."""
    log = kernel_log(lines)
    start = [number for number, (_, text) in enumerate(log) if START in text]
    assert len(start) == 1, "the guest printed its kernel's log, from before the modules on"
    return [text for level, text in log[start[0] :] if level <= WARNING and not any(re.search(known, text) for known in EXPECTED)]


def kernel_version(lines: Sequence[str]) -> tuple[int, int]:
    """Major and minor version of the guest's kernel, from its own first line."""
    match = re.search(r"Linux version (\d+)\.(\d+)", "\n".join(lines))
    assert match is not None
    return int(match[1]), int(match[2])
