"""Every set is a host: started from wheels alone it says READY, answers, boots a GPU where it has one, and ends in order."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.running import GPU0, Running

from .conftest import SETS, Clean, Environments
from .test_sets import PLUGINS

ISOLATED = ("-I", "-m", "nvcore")


@pytest.fixture
def started() -> Iterator[Callable[..., Running]]:
    """Starts the host of a clean environment and waits until it said READY."""
    made: list[Running] = []

    def start(clean: Clean, *words: str, firmware: Path | None = None) -> Running:
        made.append(Running(*words, firmware=firmware, command=(str(clean.folder / "bin/python"), *ISOLATED)))
        return made[-1].start()

    yield start
    for one in made:
        one.close()


def ask(clean: Clean, host: Running, *words: str) -> subprocess.CompletedProcess[str]:
    """One command of the same environment, asked of the running host."""
    command = [str(clean.folder / "bin/python"), *ISOLATED, *words]
    done = subprocess.run(command, cwd=host.home, env=host.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{host.log.read_text()}"
    return done


def ended_in_order(host: Running) -> None:
    """Exit code 0; STOPPING was said and after READY; nothing stays where others would look for a host; no plugin complained."""
    assert host.wait() == 0, host.log.read_text()
    host.manager.wait("STOPPING=1", host.process)
    said = [word for message in host.manager.said for word in message.split("\n")]
    assert said.index("READY=1") < said.index("STOPPING=1")
    assert not host.socket.exists()
    log = host.log.read_text()
    assert "nvcore: ready, " in log and log.rstrip().endswith("nvcore: stopping"), log


@pytest.mark.parametrize("name", SETS)
def test_a_set_runs_to_ready_with_all_its_plugins_and_stops_in_order(
    environments: Environments, started: Callable[..., Running], tmp_path: Path, name: str
) -> None:
    clean, words = environments[name], list[str]()
    if "softgpu" in PLUGINS[name]:
        assert clean.python("-m", "nvcore", "softgpu", "firmware", str(tmp_path)).returncode == 0
        words = ["--gpu", f"{GPU0}&firmware={tmp_path / 'nvidia'}"]
    host = started(clean, *words, firmware=tmp_path / "nvidia")
    plugins = json.loads(ask(clean, host, "plugins", "list", "-o", "json").stdout)["plugins"]
    assert {row["name"]: row["state"] for row in plugins} == dict.fromkeys(PLUGINS[name], "started")
    if words:
        assert [gpu["state"] for gpu in json.loads(ask(clean, host, "gpus", "-o", "json").stdout)["gpus"]] == ["running"]
    ask(clean, host, "stop")
    ended_in_order(host)


ALONE = {"--no-plugins": set[str](), **{f"--only {name}": {name} for name in sorted(PLUGINS["all"])}}


@pytest.mark.parametrize("words", ALONE)
def test_each_plugin_is_a_host_s_only_one_where_it_is_selected_alone(
    environments: Environments, started: Callable[..., Running], words: str
) -> None:
    clean = environments["all"]
    host = started(clean, *words.split())
    plugins = json.loads(ask(clean, host, "plugins", "list", "-o", "json").stdout)["plugins"]
    expected = {name: "started" if name in ALONE[words] else "disabled" for name in PLUGINS["all"]}
    assert {row["name"]: row["state"] for row in plugins} == expected
    host.process.send_signal(signal.SIGTERM)
    ended_in_order(host)
