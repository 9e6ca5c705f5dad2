"""On a Debian machine with nothing but python3, as root and as an ordinary user, one command does all the set-up."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from . import fresh

pytestmark = pytest.mark.timeout(1500)
STATE = Path(os.environ.get("NVCORE_TEST_STATE") or fresh.CHECKOUT / ".nvcore").absolute()
AGAIN = 15.0  # seconds that a second demo may take, as its own report says


@pytest.fixture(autouse=True)
def _possible() -> None:
    if "NVCORE_TEST_PIP" not in os.environ:
        pytest.skip("run through `dev.py system`, which hands in pip")
    reason = fresh.why_not()
    if reason:
        pytest.skip(reason)


GPUS = [("GA100", 40 << 30, "0000:41:00.0"), ("GH100", 80 << 30, "0000:c1:00.0")]


def judge(report: dict[str, Any], kind: str) -> None:
    """What the demo promises, read in its report: chips, memory, firmware, boot stages, vGPUs, doctor; each GPU twice on each version."""
    assert report["schema"] == "nvcore.demo/1"
    assert report["firmware"]["kind"] == kind
    runs = report["runs"]
    assert set(runs) == {"first", "again", "older", "older_again"}
    for name, run in runs.items():
        version, gpus = ("535.113.01", GPUS[:1]) if name.startswith("older") else ("570.144", GPUS)
        assert [(gpu["chip"], gpu["memory_bytes"], gpu["address"]) for gpu in run["gpus"]] == gpus
        for gpu in run["gpus"]:
            assert (gpu["state"], gpu["cause"]) == ("running", None)
            assert gpu["firmware"] == {"version": version, "kind": kind}
            assert gpu["stages"] and all(stage["outcome"] == "ok" and stage["seconds"] >= 0 for stage in gpu["stages"])
        assert run["doctor"]["clean"]
        assert run["exit"] == 0, "the daemon stopped in order: every GPU unloaded"
    for name in ("first", "again"):
        vgpus = [(vgpu["name"], vgpu["type"], vgpu["gpu"], vgpu["state"]) for vgpu in runs[name]["vgpus"]]
        assert vgpus == [(vm, "A100-4C", GPUS[0][2], "running") for vm in ("web-01", "web-02")]


@pytest.mark.parametrize("who", ["root", "user"])
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_the_demo_runs_on_a_fresh_machine_and_is_quick_the_second_time(suite: str, who: str) -> None:
    with fresh.machine(STATE, suite, who) as machine:
        first = machine.run("python3 dev.py demo --report first.json", timeout=900)
        assert first.returncode == 0, first.stdout
        print(first.stdout)
        second = machine.run("python3 dev.py demo --report again.json", timeout=300)
        assert second.returncode == 0, second.stdout
        reports = [json.loads(machine.read(name)) for name in ("first.json", "again.json")]
    for report in reports:
        judge(report, "vendor")
    assert reports[1]["seconds"] <= AGAIN, second.stdout


def test_without_a_way_to_firmware_the_demo_runs_on_synthetic_images_and_says_so() -> None:
    """What hides the archive of Debian's packages hides the images; what pip needs was fetched before."""
    with fresh.machine(STATE, "bookworm", "user") as machine:
        ready = machine.run("python3 dev.py wheels", timeout=900)
        assert ready.returncode == 0, ready.stdout
        hide = "mkdir bin; for tool in /usr/bin/*; do ln -s $tool bin/; done; rm bin/apt*; PATH=$PWD/bin:/nowhere"
        done = machine.run(f"{hide} python3 dev.py demo --report report.json", timeout=300)
        assert done.returncode == 0, done.stdout
        report = json.loads(machine.read("report.json"))
    judge(report, "synthetic")
    assert "SYNTHETIC images" in done.stdout
    assert "on SYNTHETIC firmware images" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(("suite", "who"), [("bookworm", "root"), ("trixie", "user")])
def test_the_tests_pass_on_a_fresh_machine(suite: str, who: str) -> None:
    with fresh.machine(STATE, suite, who) as machine:
        done = machine.run("python3 dev.py test", timeout=1200)
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout


def test_a_fresh_machine_is_fresh() -> None:
    with fresh.machine(STATE, "trixie", "user") as machine:
        bare = machine.run('id -u; python3 -c "import ensurepip" 2>&1 | tail -1; command -v pip make git; env | wc -l', timeout=60)
    assert "1000" in bare.stdout and "No module named" in bare.stdout, bare.stdout
    assert not any(name in bare.stdout for name in ("/pip", "/make", "/git"))
