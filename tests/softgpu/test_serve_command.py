"""`nvcore softgpu serve` in a process of its own: what it prints is true, it ends in order, and it keeps what the model saw."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.softgpu.wire_kit import Wire

SERVE = [sys.executable, "-P", "-m", "nvcore", "softgpu", "serve"]


@contextmanager
def serving(socket: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The process and the lines that it printed before it served."""
    command = [*SERVE, "--chip", "ga100", "--vram", "1G", "--socket", str(socket), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        lines = []
        while not lines or not lines[-1].endswith("…\n"):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        yield process, lines
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def test_the_line_that_it_prints_names_its_socket_and_shared_memory(tmp_path: Path) -> None:
    with serving(tmp_path / "gpu") as (_, lines):
        words = shlex.split("".join(lines[1:]).replace("\\\n", " "))
        device = json.loads(words[words.index("-device", words.index("-device") + 1) + 1])
        assert device["socket"] == {"type": "unix", "path": str(tmp_path / "gpu")}
        memory = re.search(r"size=(\w+),share=on", words[words.index("-object") + 1])
        assert memory is not None and memory[1] == words[words.index("-m") + 1], "the VM's memory and the shared memory are one size"


def test_once_it_ends_with_its_client_and_reports(tmp_path: Path) -> None:
    with serving(tmp_path / "gpu", "--once", "--report", str(tmp_path / "report")) as (process, _):
        wire = Wire(str(tmp_path / "gpu"))
        wire.hello()
        assert wire.read32(0) == 0x170000A1
        wire.close()
        assert process.wait(20) == 0
    report = json.loads((tmp_path / "report").read_text())
    assert (report["violations"], report["problems"], report["messages"]) == ([], [], 2)
    assert not (tmp_path / "gpu").exists()


@pytest.mark.parametrize("connected", [False, True])
def test_a_signal_ends_it_in_order(tmp_path: Path, connected: bool) -> None:
    with serving(tmp_path / "gpu", "--report", str(tmp_path / "report")) as (process, _):
        wire = Wire(str(tmp_path / "gpu"))
        wire.hello()
        if not connected:
            wire.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        wire.close()
    assert json.loads((tmp_path / "report").read_text())["schema"] == "nvcore.softgpu-report/1"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--chip", "ga100"], 2, "serve needs --vram"),
        (["--chip", "ga101", "--vram", "1G", "--socket", "s"], 3, "name one of ga100, gh100"),
        (["--chip", "ga100", "--vram", "much", "--socket", "s"], 2, "vram=much is not a size"),
        (["--chip", "ga100", "--vram", "1G", "--socket", "none/s"], 2, "no socket can be made at none/s"),
        (["--chip", "ga100", "--vram", "1G", "--socket", "s", "--report", "none/r"], 2, "no folder for the report"),
        (["--chip", "ga100", "--vram", "1G", "--socket", "s", "--fault", "booter-mailbox:zz"], 2, "argument of fault booter-mailbox"),
    ],
)
def test_what_it_cannot_serve_it_says_at_once(tmp_path: Path, words: list[str], code: int, says: str) -> None:
    done = subprocess.run([*SERVE, *words], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr and "Traceback" not in done.stderr
