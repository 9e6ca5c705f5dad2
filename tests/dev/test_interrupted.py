"""What is killed, full, hung or run twice: nothing keeps running, nothing half made is taken for whole, and what to do is said."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT = 20.0
PROGRAM = """\
import pathlib, time
pathlib.Path("up").touch()
try:
    time.sleep(60)
finally:
    time.sleep(0.5)
    pathlib.Path("down").touch()
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from devtools import environments, layout, pips, say

    for module in (environments, layout, pips, say):
        monkeypatch.setattr(module, "STATE", tmp_path / "state")
    return tmp_path / "state"


def until(claim: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not claim():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def dev(body: str, folder: Path) -> subprocess.Popen[str]:
    """dev.py in a process of its own, its command `bench` replaced by this body, which may write the file `folder / "pid"`."""
    script = f"""\
        import sys, types, pathlib, subprocess
        sys.path.insert(0, {str(CHECKOUT)!r})
        import dev
        folder = pathlib.Path({str(folder)!r})
        def main(argv):
            {body}
        module = sys.modules["devtools.bench"] = types.ModuleType("devtools.bench")
        module.main = main
        sys.exit(dev.main(["bench"]))
    """
    (folder / "script.py").write_text(textwrap.dedent(script))
    env = {**os.environ, "NVCORE_DEV_STATE": str(folder / "state")}
    command = [sys.executable, "-B", folder / "script.py"]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_terminated_dev_leaves_nothing_running(tmp_path: Path) -> None:
    started = "subprocess.run(['sh', '-c', f'echo $$ > {folder}/new; mv {folder}/new {folder}/pid; exec sleep 60'])"
    with dev(started, tmp_path) as process:
        until((tmp_path / "pid").exists, "the command has started a program")
        pid = int((tmp_path / "pid").read_text())
        process.terminate()
        _, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, errors) == (143, "terminated\n")
    assert not alive(pid)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_state_folder_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path, number: int) -> None:
    with dev(f"raise OSError({number}, 'no', '/there/.nvcore')", tmp_path) as process:
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert "/there/.nvcore" in errors and "NVCORE_DEV_STATE=FOLDER" in errors and "Traceback" not in errors


ALONE = "from devtools.say import supervised; return supervised([sys.executable, 'program.py'], cwd=folder, env={})"
BESIDE = """\
from devtools.say import beside, supervised
            with beside([sys.executable, 'program.py'], cwd=folder, env={}, log=folder / 'log/said') as ended:
                return supervised([sys.executable, '-c', 'import time; time.sleep(60)'], cwd=folder, env={}) or ended()
"""


@pytest.mark.parametrize("body", [ALONE, BESIDE], ids=["alone", "beside"])
def test_the_tests_are_interrupted_too_and_take_down_what_they_started(body: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with dev(body, tmp_path) as process:
        until((tmp_path / "up").exists, "the program runs")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT)
    assert process.returncode == 143 and (tmp_path / "down").exists()


def test_what_runs_beside_has_its_words_in_a_log_and_its_status_is_told(tmp_path: Path) -> None:
    from devtools.say import beside

    program = [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"]
    with beside(program, cwd=tmp_path, env={}, log=tmp_path / "log/said") as ended:
        assert ended() == 3
    assert sorted((tmp_path / "log/said").read_text().split()) == ["err", "out"]


def test_an_interrupted_demo_leaves_no_vgpus_to_the_next_and_keeps_its_images(tmp_path: Path) -> None:
    from devtools.demo import FETCHED, emptied

    kept = {FETCHED / "nvidia/ga100/gsp/gsp-570.144.bin", Path("state/lock")}
    for name in (*kept, "state/clients/vfio/0000-41-00.0/web-01.json", "state/gpus/a.json", "synthetic/x", "demo.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    emptied(tmp_path)
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()} == kept
    assert (emptied(tmp_path / "first") / "state").is_dir()


def test_the_demo_runs_in_a_folder_of_any_name(tmp_path: Path) -> None:
    from devtools.demo import Demo, configuration

    images = tmp_path / 'of "mine" & co, 100% #1'
    written = tomllib.loads(configuration(Demo(tmp_path, tmp_path, tmp_path), images, "570.144", second=True).read_text())
    assert written["plugins"]["fw_gsp"]["firmware_dir"] == [str(images)]
    for gpu in written["gpu"]:
        values = dict(item.split("=") for item in gpu["source"].partition("?")[2].split("&"))
        assert unquote(values["firmware"]) == str(images)


@pytest.mark.parametrize(
    ("script", "error"),
    [("import time; time.sleep(60)", "did not end within 0.5 s"), ("print('no')", "printed no JSON"), ("print(7)", None)],
)
def test_a_measurement_that_hangs_or_breaks_is_told_and_costs_no_other_its_figures(
    script: str, error: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from devtools import bench

    monkeypatch.setattr(bench, "_LIMIT", 0.5 if error and "0.5" in error else LIMIT)
    found, good = bench._measure([sys.executable, "-c", script], {})
    assert good == (error is None)
    assert found == 7 if error is None else error in found["error"]


def test_an_environment_that_is_in_use_is_not_changed_under_its_user(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from devtools import environments, layout

    own, folder, done = tmp_path / "own", tmp_path / "env", threading.Event()
    (folder / "bin").mkdir(parents=True)
    own.mkdir()
    (own / "nvcore-0.1.0-py3-none-any.whl").write_bytes(b"one")
    monkeypatch.setattr(environments, "pip_command", lambda *words: ["true"])

    def change() -> None:
        environments.refreshed(folder, own)
        done.set()

    with layout.locked("the tests", "tests", shared=True):
        thread = threading.Thread(target=change)
        thread.start()
        with layout.locked("other tests", "tests", shared=True):  # a second user is no hindrance
            assert not done.wait(0.3)
    assert done.wait(LIMIT)
    thread.join()
    with layout.locked("the tests", "tests", shared=True):
        environments.refreshed(folder, own)  # the same wheels: nothing to wait for


def test_what_a_step_needs_is_said_when_it_fails(state: Path) -> None:
    from devtools.say import Failed, step

    with pytest.raises(Failed, match="look at the network"), step("fetch") as this:
        this.remedy = "look at the network"
        this.run(["false"])


def test_the_lab_lies_where_everything_else_does(tmp_path: Path) -> None:
    code = "from devtools.lab.build import HOME; print(HOME)"
    env = {**os.environ, "NVCORE_DEV_STATE": str(tmp_path), "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-B", "-c", code]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=LIMIT)
    assert Path(done.stdout.strip()) == tmp_path / "lab"


def test_a_state_folder_named_by_a_relative_path_is_one_place_for_all_children(tmp_path: Path) -> None:
    child = "from devtools.layout import STATE; print(STATE)"
    code = f"import subprocess, sys; from devtools.say import clean_environment as clean; env = clean(PYTHONPATH={str(CHECKOUT)!r}); "
    code += f"subprocess.run([sys.executable, '-B', '-c', {child!r}], env=env, cwd='/', check=True)"
    env = {**os.environ, "NVCORE_DEV_STATE": "here", "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-B", "-c", code]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=LIMIT)
    assert Path(done.stdout.strip()) == tmp_path / "here"


def package(folder: Path) -> Path:
    """A Debian package of two files."""
    tree = folder / "tree"
    for name in ("DEBIAN/control", "usr/lib/one/file", "usr/lib/two/file"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    (tree / "DEBIAN/control").write_text("Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n")
    subprocess.run(["dpkg-deb", "-b", tree, folder / "x.deb"], check=True, capture_output=True, timeout=LIMIT)
    return folder / "x.deb"


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="by design: the lab is made of Debian packages")
def test_a_package_of_which_a_part_cannot_be_written_makes_no_lab(tmp_path: Path) -> None:
    from devtools.lab.aptstate import AptError
    from devtools.lab.build import _unpack

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    _unpack(package(tmp_path), whole, ("*/one/*", "*/no-such-part/*"))
    assert [path.name for path in whole.glob("usr/lib/*")] == ["one"]
    (broken / "usr/lib").mkdir(parents=True)
    (broken / "usr/lib/one").touch()  # as little of a folder as a full disk gives
    with pytest.raises(AptError, match="cannot be unpacked"):
        _unpack(package(tmp_path), broken, ("*/one/*",))


def test_a_lock_that_is_taken_says_that_it_waits(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from devtools.layout import locked

    with locked("first"), open(state / "lock") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    holder = open(state / "lock", "w")  # noqa: SIM115 (closed by the timer)
    fcntl.flock(holder, fcntl.LOCK_EX)
    threading.Timer(0.2, holder.close).start()
    with locked("the second"):
        assert "waiting: another dev.py is busy (the second comes next)" in capsys.readouterr().out
