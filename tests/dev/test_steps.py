"""dev.py's steps: a failure shows the end of its log and where the rest is; what is made is made again only when its content changed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from devtools import environments, layout, say

    for module in (environments, layout, say):
        monkeypatch.setattr(module, "STATE", tmp_path)
    return tmp_path


def test_a_failed_step_shows_the_end_of_its_log_and_its_path(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from devtools.say import Failed, step

    program = "import sys; [print('line', n, file=sys.stderr) for n in range(50)]; sys.exit(3)"
    with pytest.raises(Failed) as caught, step("break something") as this:
        this.run([sys.executable, "-c", program])
    said = str(caught.value)
    assert "break something" in said and "ended with 3" in said
    assert "line 49" in said and "line 20" not in said
    assert str(next((state / "log").glob("*.log"))) in said
    assert "✗ break something" in capsys.readouterr().out


def test_a_good_step_is_one_line_with_its_seconds(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from devtools.say import step

    with step("do something") as this:
        assert this.run([sys.executable, "-c", "print('quiet')"]) == "quiet\n"
        this.note = "3 things"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("  ✓ do something (3 things)  ") and line.endswith(" s")


def test_a_command_that_hangs_ends_as_a_failure(state: Path) -> None:
    from devtools.say import Failed, step

    with pytest.raises(Failed, match="timed out"), step("hang") as this:
        this.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.5)


def test_children_see_no_other_pythons_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    from devtools.say import clean_environment

    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PIP_CERT", "/kept")
    env = clean_environment(ADDED="1")
    assert "PYTHONPATH" not in env and "PIP_TARGET" not in env
    assert env["PIP_CERT"] == "/kept" and env["ADDED"] == "1" and env["PYTHONNOUSERSITE"] == "1"


def test_an_environment_is_made_once_for_each_content(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from devtools import environments

    filled: list[Path] = []

    def fill(folder: Path, requirements: list[str], house: Path, own: Path | None) -> None:
        folder.mkdir(parents=True)
        (folder / ".ready").touch()
        filled.append(folder)

    monkeypatch.setattr(environments, "_fill", fill)
    own = state / "own"
    own.mkdir()
    (own / "nvcore-0.1.0-py3-none-any.whl").write_bytes(b"one")
    first = environments.environment("demo", ["nvcore"], house=state / "house", own=own)
    assert environments.environment("demo", ["nvcore"], house=state / "house", own=own) == first
    (own / "nvcore-0.1.0-py3-none-any.whl").write_bytes(b"two")
    second = environments.environment("demo", ["nvcore"], house=state / "house", own=own)
    third = environments.environment("demo", ["nvcore", "rich"], house=state / "house", own=own)
    assert filled == [first, second, third] and len({first, second, third}) == 3


def test_old_environments_go_and_the_newest_stay(state: Path) -> None:
    from devtools import environments

    folders = [state / "env" / f"demo-{n:016d}" for n in range(6)]
    for age, folder in enumerate(folders):
        folder.mkdir(parents=True)
        os.utime(folder, (age, age))
    other = state / "env" / "build-0000000000000000"
    other.mkdir()
    environments._forget_old(folders[5])
    assert [f.exists() for f in folders] == [False, False, False, True, True, True] and other.exists()
