"""Formats judged by their owners: the control socket by systemd's varlinkctl, the service unit by systemd-analyze."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import nvcore.daemon

if TYPE_CHECKING:
    from devtools.lab import Lab

HERE = Path(nvcore.daemon.__file__).parent
INTERFACES = ("io.nvcore", "io.nvcore.Event", "io.nvcore.Gpu", "io.nvcore.Host", "io.nvcore.Plugin", "io.nvcore.Vgpu")


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A daemon without GPUs, with every plugin."""
    folder = tmp_path_factory.mktemp("d")
    path = folder / "n.sock"
    env = {**os.environ, "NVCORE_SOCKET": str(path), "STATE_DIRECTORY": str(folder / "state")}
    daemon = subprocess.Popen([sys.executable, "-I", "-m", "nvcore", "run"], env=env, stderr=subprocess.PIPE, text=True)
    assert daemon.stderr is not None
    line = daemon.stderr.readline()
    assert "nvcore: ready" in line, line + daemon.stderr.read()
    yield path
    daemon.terminate()
    assert daemon.wait(20) == 0
    daemon.stderr.close()


def varlinkctl(lab: Lab, *words: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*lab.command("varlinkctl"), *words], capture_output=True, text=True, timeout=timeout, check=False)


def test_varlinkctl_finds_and_introspects_every_interface(lab: Lab, socket: Path) -> None:
    listed = varlinkctl(lab, "list-interfaces", f"unix:{socket}")
    assert set(INTERFACES) <= set(listed.stdout.split()), listed.stderr
    for name in INTERFACES:
        shown = varlinkctl(lab, "introspect", f"unix:{socket}", name)
        assert shown.returncode == 0 and f"interface {name}" in shown.stdout, shown.stderr


def test_varlinkctl_takes_the_interface_files_as_valid(lab: Lab) -> None:
    files = sorted(HERE.glob("varlinks/*.varlink"))
    assert len(files) >= 5
    for path in files:
        judged = varlinkctl(lab, "validate-idl", str(path))
        assert judged.returncode == 0, judged.stderr


def test_varlinkctl_calls_and_reads_errors(lab: Lab, socket: Path) -> None:
    done = varlinkctl(lab, "call", "--json=short", f"unix:{socket}", "io.nvcore.Host.Describe", "{}")
    assert json.loads(done.stdout)["state"] == "running", done.stderr
    refused = varlinkctl(lab, "call", f"unix:{socket}", "io.nvcore.Gpu.Retry", '{"gpu":"nowhere"}')
    assert refused.returncode != 0 and "io.nvcore.NotFound" in refused.stderr


def test_varlinkctl_follows_a_stream_until_it_leaves(lab: Lab, socket: Path) -> None:
    command = [*lab.command("varlinkctl"), "call", "--more", f"unix:{socket}", "io.nvcore.Event.Watch", "{}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        first = reader.stdout.readline()
        time.sleep(1.5)
        assert reader.poll() is None, "the stream goes on"
        reader.kill()
    assert "events" in first


def test_systemd_takes_the_unit_as_it_is(lab: Lab, tmp_path: Path) -> None:
    unit = tmp_path / "nvcore.service"
    text = (HERE / "systemd" / "nvcore.service").read_text()
    unit.write_text(text.replace("/opt/nvcore/bin/nvcore run", f"{sys.executable} -m nvcore run"))
    judged = subprocess.run([*lab.command("systemd-analyze"), "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in (judged.stderr + judged.stdout).splitlines() if "nvcore.service" in line]
    assert judged.returncode == 0 and not complaints, judged.stderr
    assert "SuccessExitStatus=7" in text and "RestartPreventExitStatus=78" in text
