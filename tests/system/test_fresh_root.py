"""On a Debian machine with nothing but python3, as root and as an ordinary user, one command does all the set-up."""

from __future__ import annotations

import json
import os
from pathlib import Path

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


@pytest.mark.parametrize("who", ["root", "user"])
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_the_demo_runs_on_a_fresh_machine_and_is_quick_the_second_time(suite: str, who: str) -> None:
    with fresh.machine(STATE, suite, who) as machine:
        first = machine.run("python3 dev.py demo", timeout=900)
        assert first.returncode == 0, first.stdout
        print(first.stdout)
        second = machine.run("python3 dev.py demo --report again.json", timeout=300)
        assert second.returncode == 0, second.stdout
        report = json.loads(machine.read("again.json"))
    assert report["seconds"] <= AGAIN, second.stdout


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
