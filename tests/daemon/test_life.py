"""The daemon's life as a service manager and an operator see it: READY last, STOPPING first, signals, exit codes, what survives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nvcore.api.errors import UnreachableError
from nvcore.daemon.run import _STOP_LIMIT
from nvcore.daemon.varlink import call
from tests.daemon.running import BARE, GPU0, GPU1, SET, Running
from tests.plugins.building import plugin

Daemons = Callable[..., Running]


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(str(path))
        except OSError:
            return False
    return True


def test_ready_comes_when_the_socket_answers_and_stopping_before_anything_else_goes(daemon: Daemons) -> None:
    host = daemon(*BARE).start()
    assert answers(host.socket) and host.run("plugins", "list").stdout
    told = [message.split("\n") for message in host.manager.said]
    assert told[0][0].startswith("EXTEND_TIMEOUT_USEC=") and told[-1][0] == "READY=1" and told[-1][1].startswith("STATUS=")
    host.process.send_signal(signal.SIGTERM)
    assert host.manager.wait("STOPPING=1", host.process)
    (stopping,) = (message.split("\n") for message in host.manager.said if "STOPPING=1" in message)
    key, _, microseconds = stopping[1].partition("=")  # in one message: with STOPPING the clock of the stop begins to run
    assert key == "EXTEND_TIMEOUT_USEC" and int(microseconds) >= (_STOP_LIMIT + 10) * 1e6
    assert host.wait() == 0 and not host.socket.exists()
    assert [line for line in host.log.read_text().splitlines() if "nvcore:" in line][-1] == "nvcore: stopping"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(daemon: Daemons, number: int) -> None:
    host = daemon(*SET, "--gpu", GPU0).start()
    assert host.signal(number) == 0
    assert not host.socket.exists() and "Traceback" not in host.log.read_text()


def booting(host: Running) -> dict[str, Any]:
    """What the daemon says of itself as soon as its GPU boots; asked without a process of its own, which may be slow to start."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(UnreachableError):
            found = call(str(host.socket), "io.nvcore.Host.Describe", {}, timeout=30)
            if found["gpus"] and found["gpus"][0]["state"] == "booting":
                return found
        time.sleep(0.01)
    raise AssertionError(host.log.read_text())


def test_a_stop_is_heard_while_a_gpu_still_boots(daemon: Daemons, firmware: Path) -> None:
    slow = f"{GPU0}&firmware={firmware}&fault=gfw-never"
    host = daemon(*SET, "--gpu", slow).start(ready=False)
    document = booting(host)
    assert (document["state"], document["partial"]) == ("starting", False)
    host.process.send_signal(signal.SIGTERM)
    assert host.manager.wait("STOPPING=1", host.process) and not any("READY=1" in said for said in host.manager.said)
    assert host.wait() == 7 and not host.socket.exists()


def test_what_does_not_end_within_the_limit_of_a_stop_is_abandoned_and_named(daemon: Daemons, firmware: Path) -> None:
    script = "import sys, nvcore.daemon.run as run; from nvcore.cli.main import main; run._STOP_LIMIT = 1; sys.exit(main(sys.argv[1:]))"
    slow = f"{GPU0}&firmware={firmware}&fault=gfw-never"
    config = "[host]\ntime_scale = 10\n"  # the boot alone takes 40 s
    host = daemon(*SET, "--gpu", slow, command=(sys.executable, "-I", "-c", script), config=config).start(ready=False)
    booting(host)
    host.process.send_signal(signal.SIGTERM)
    assert host.wait(20) == 7 and "nvcore: abandoned, it did not end: unload of 0000:41:00.0" in host.log.read_text()
    assert not host.socket.exists()


def test_the_stop_command_returns_when_the_next_daemon_may_start(daemon: Daemons) -> None:
    host = daemon(*BARE).start()
    for _ in range(3):
        host.run("stop")
        host.manager.close()
        old = host.process
        host.start()
        assert old.wait(30) == 0
    host.run("stop")
    assert host.wait() == 0
    host.run("stop", code=5)


def test_killed_and_started_again_it_makes_the_declared_vgpus_again(daemon: Daemons, firmware: Path) -> None:
    host = daemon(*SET, "--gpu", f"{GPU0}&firmware={firmware}").start()
    host.run("vgpu", "create", "--type", "A100-4C", "--name", "web-01", "--vm", "web-01")
    (before,) = host.json("vgpu", "list")["vgpus"]
    assert host.signal(signal.SIGKILL) == -signal.SIGKILL
    assert host.socket.exists() and not answers(host.socket)
    host.run("gpus", code=5)
    host.manager.close()
    host.start()
    (after,) = host.json("vgpu", "list")["vgpus"]
    assert after["state"] == "running"
    assert {key: after[key] for key in ("name", "uuid", "machine", "type", "vm")} == {
        key: before[key] for key in ("name", "uuid", "machine", "type", "vm")
    }
    host.run("vgpu", "destroy", "web-01")
    assert host.json("vgpu", "list")["vgpus"] == []
    assert host.signal(signal.SIGTERM) == 0


def test_a_second_daemon_on_one_state_directory_or_one_socket_is_refused(daemon: Daemons) -> None:
    first = daemon(*BARE).start()
    second = daemon(*BARE)
    second.env["STATE_DIRECTORY"] = str(first.state)
    second.start(ready=False)
    assert second.wait() == 1 and "another daemon uses this state directory" in second.log.read_text()
    third = daemon(*BARE)
    third.env["NVCORE_SOCKET"] = str(first.socket)
    third.start(ready=False)
    assert third.wait() == 1 and "served by another process" in third.log.read_text()
    assert answers(first.socket) and first.signal(signal.SIGTERM) == 0
    with open(first.state / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released


def test_a_file_in_the_way_of_the_socket_is_left_alone_and_named(daemon: Daemons) -> None:
    host = daemon(*BARE)
    host.socket.parent.mkdir()
    host.socket.write_text("precious")
    host.start(ready=False)
    assert host.wait() == 1 and str(host.socket) in host.log.read_text() and host.socket.read_text() == "precious"


@pytest.mark.parametrize("place", ["state", "socket"])
def test_a_folder_that_cannot_be_made_is_named_with_what_to_set(daemon: Daemons, place: str) -> None:
    host = daemon(*BARE)
    (host.home / "file").write_text("")
    variables = {"state": ("STATE_DIRECTORY", "[host] state_dir"), "socket": ("NVCORE_SOCKET", "expected: a folder that exists")}
    variable, setting = variables[place]
    host.env[variable] = str(host.home / "file" / "below")
    host.start(ready=False)
    log = (host.wait(), host.log.read_text())
    assert log[0] == 2 and "Traceback" not in log[1] and f"{host.home}/file/below" in log[1] and setting in log[1]
    assert "Not a directory" in log[1]


def test_run_says_of_each_gpu_that_failed_why(daemon: Daemons, firmware: Path) -> None:
    bad = f"{GPU1}&firmware={firmware}&fault=bad-signature"
    host = daemon(*SET, "--gpu", GPU0, "--gpu", bad, "--gpu", "pci:0000:99:00.0").start()
    said = [line for line in host.log.read_text().splitlines() if line.startswith("nvcore: ")]
    assert [line.split(": ")[1] for line in said[:2]] == ["0000:c1:00.0 failed", "pci:0000:99:00.0 failed"]
    assert said[1].endswith("(NVC-1002)") and "no bus serves 'pci'" in said[1]
    assert said[2].startswith("nvcore: ready, 1 of 3 GPUs running") and said[0].count("NVC-2") == 1


def test_one_gpu_is_given_once_and_by_a_name(daemon: Daemons) -> None:
    host = daemon()
    twice = host.run("run", "--gpu", GPU0, "--gpu", GPU0, code=78).stderr
    assert f"{GPU0} is given twice" in twice and "command line" in twice
    assert "option --gpu needs a value" in host.run("run", "--gpu", "", code=2).stderr
    assert "option --gpu needs a value" in host.run("run", "--gpu=", code=2).stderr
    assert not host.state.exists() and not host.socket.exists()


def test_a_socket_path_that_is_too_long_is_refused_with_its_length(daemon: Daemons) -> None:
    host = daemon(*BARE)
    host.env["NVCORE_SOCKET"] = str(host.home / ("x" * 120))
    host.start(ready=False)
    assert host.wait() == 2 and "at most 107 bytes" in host.log.read_text()
    assert "107" in host.run("stop", code=5).stderr


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[host]\nsokket = 'x'\n", "x.toml:2"),
        ("[host\n", "x.toml:1"),
        ("[plugins.vfio]\nvgpus_per_gpu = 'many'\n", "x.toml:2"),
        ("[plugins.nobody]\nx = 1\n", "x.toml:1"),
    ],
)
def test_a_bad_configuration_is_78_with_file_and_line_and_no_state(daemon: Daemons, config: str, words: str) -> None:
    host = daemon(*BARE, config=config).start(ready=False)
    assert host.wait() == 78 and words in host.log.read_text()
    assert not host.socket.exists()
    assert not any("READY=1" in message for message in host.manager.said)


def test_a_failed_gpu_makes_it_7_at_the_end_and_not_before(daemon: Daemons) -> None:
    host = daemon(*SET, "--gpu", GPU0, "--gpu", "pci:0000:99:00.0").start()
    assert "STATUS=1 of 2 GPUs running" in host.manager.said[-1]
    good, bad = host.json("gpus", code=7)["gpus"]
    assert (good["state"], bad["state"]) == ("running", "failed") and bad["remedy"] and bad["code"]
    host.run("status", code=7)
    host.run("stop")
    assert host.wait() == 7


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of throwaway plugins that an isolated interpreter sees: an environment of its own that looks into this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(tmp_path / "env")], check=True, timeout=60)
    (folder,) = (tmp_path / "env" / "lib").glob("python3*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (folder / "parent.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in ours))
    return folder


def isolated(site: Path) -> tuple[str, ...]:
    return (str(site.parents[2] / "bin" / "python"), "-m", "nvcore")


def test_a_required_plugin_that_does_not_work_keeps_the_daemon_from_starting(daemon: Daemons, site: Path) -> None:
    plugin(site, "raises", "1 / 0")
    host = daemon(command=isolated(site), config="[plugins]\nonly = ['raises', 'vfio']\nrequired = ['raises']\n").start(ready=False)
    assert host.wait() == 78 and "required plugin raises is failed" in host.log.read_text()


INTERFACE = """
from nvcore.api import hookimpl
from nvcore.api.offers import InterfaceOffer

class Handler:
    def Hello(self, call):
        return {"text": 1 // 0 if call.optional("how") else "hello"}

@hookimpl
def nvcore_control_interfaces(host):
    text = "interface " + NAME + "\\nmethod Hello(how: ?string) -> (text: string)\\n"
    return [InterfaceOffer(NAME, "a toy", text, OBSERVE, frozenset(), Handler())]
"""


def test_an_interface_that_does_not_fit_costs_its_plugin_not_the_daemon(daemon: Daemons, site: Path) -> None:
    plugin(site, "fits", f"NAME, OBSERVE = 'org.example.Fits', frozenset({{'Hello'}}){INTERFACE}")
    plugin(site, "misfit", f"NAME, OBSERVE = 'org.example.Misfit', frozenset({{'Bye'}}){INTERFACE}")
    plugin(site, "typed", f"NAME, OBSERVE = 'org.example.Typed', 7{INTERFACE}")
    plugin(site, "thief", f"NAME, OBSERVE = 'io.nvcore.Host', frozenset({{'Hello'}}){INTERFACE}")
    host = daemon("--only", "fits,misfit,typed,thief", command=isolated(site)).start()
    rows = {row["name"]: row for row in host.json("plugins", code=7)["plugins"]}
    assert rows["fits"]["state"] == "started"
    assert all(rows[name]["state"] == "failed" and name in rows[name]["reason"].lower() for name in ("misfit", "typed"))
    assert rows["thief"]["state"] == "failed" and "served already" in rows["thief"]["reason"]
    host.run("status", code=7)


def test_a_plugin_that_is_called_like_the_core_is_stopped_without_it(daemon: Daemons, site: Path) -> None:
    plugin(site, "nvcore", f"NAME, OBSERVE = 'org.example.Fits', frozenset({{'Hello'}}){INTERFACE}")
    host = daemon("--only", "nvcore", command=isolated(site)).start()
    host.run("plugins", "stop", "nvcore")
    assert [row["state"] for row in host.json("plugins")["plugins"] if row["name"] == "nvcore"] == ["disabled"]
    host.run("stop")
    assert host.wait() == 0


def test_a_stray_distribution_in_the_folder_or_on_the_path_does_not_become_code(daemon: Daemons, tmp_path: Path) -> None:
    stray = tmp_path / "stray"
    stray.mkdir()
    plugin(stray, "stray", f"open({str(stray / 'loaded')!r}, 'w').close()")
    host = daemon(*(), command=(sys.executable, "-m", "nvcore"), PYTHONPATH=f"{stray}:{os.environ.get('PYTHONPATH', '')}")
    shutil.copytree(stray, host.home, dirs_exist_ok=True)  # the current folder of the daemon
    host.start()
    assert "stray" not in {row["name"] for row in host.json("plugins", code=None)["plugins"] if row["state"] != "found"}
    assert not (stray / "loaded").exists()
    flags = Path(f"/proc/{host.process.pid}/cmdline").read_bytes().split(b"\0")
    assert flags[1:4] == [b"-I", b"-m", b"nvcore"]


def test_run_explains_itself_and_refuses_what_it_does_not_know(daemon: Daemons) -> None:
    host = daemon()
    assert host.run("run", "--help").stdout.startswith("usage: nvcore run")
    assert "unknown option --gpus" in host.run("run", "--gpus", "x", code=2).stderr
    assert "--firmware goes with --gpu" in host.run("run", "--firmware", "570.144", code=2).stderr
    host.run("run", "now", code=2)


def test_the_log_is_inert_and_has_priorities_only_under_a_service_manager(daemon: Daemons) -> None:
    for managed in (False, True):
        host = daemon(*BARE, **({"JOURNAL_STREAM": "1:2"} if managed else {})).start()
        host.run("gpus", "reset", "x\x1b[31m", code=3)
        line = next(line for line in host.log.read_text().splitlines() if "io.nvcore.Gpu.Reset" in line)
        assert line.startswith("<6>INFO nvcore.control" if managed else "INFO nvcore.control") and "\x1b" not in line
        host.run("stop")
        assert host.wait() == 0


def test_nothing_is_left_behind(daemon: Daemons) -> None:
    host = daemon(*BARE).start()
    before = {path.name for path in host.home.iterdir()}
    assert host.signal(signal.SIGTERM) == 0
    assert {path.name for path in host.home.iterdir()} == before
    assert list((host.home / "run").iterdir()) == [] and {path.name for path in host.state.iterdir()} <= {"lock", "plugins"}
