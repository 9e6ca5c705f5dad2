"""docs/operators.md is true: every command block is run, every command, exit code and schema of the program stands there.

`console` blocks are one session, in order, in an empty folder; `console install` blocks one in a folder with our wheels; `console systemd`
blocks need a service manager and are only read. Below a command stands what it prints, in order: words may be further apart, `…` stands for
anything, `[exit N]` for another exit code than 0.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest

from nvcore.cli.nouns import NOUNS
from tests.daemon.running import NVCORE, Running

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operators.md").read_text()
FENCE = re.compile(r"^```([a-z ]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match[1], match[2]) for match in FENCE.finditer(PAGE)]


@dataclass
class Command:
    """One command line, what it prints and how it ends."""

    line: str
    code: int = 0
    prints: list[str] = field(default_factory=list)


def commands(kind: str, blocks: Sequence[tuple[str, str]] = BLOCKS) -> list[Command]:
    found: list[Command] = []
    for which, text in blocks:
        for line in text.splitlines() if which == kind else ():
            if line.startswith("$ "):
                found.append(Command(line[2:]))
            elif line.startswith("[exit "):
                found[-1].code = int(line[6:-1])
            else:
                found[-1].prints.append(line)
    return found


def pattern(lines: list[str]) -> str:
    """A regular expression for the lines, in order; other lines may stand between them only where a line is `…`."""
    parts = []
    for line in lines:
        if line == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            words = (re.escape(word).replace("…", ".*?") for word in line.split())
            parts.append(r"[ ]*" + r"\s*".join(words) + r"[^\n]*\n")
    return "".join(parts)


def check(command: Command, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == command.code, f"$ {command.line}\n{done.stdout}{done.stderr}"
    if command.prints:
        assert re.match(pattern(command.prints), done.stdout), f"$ {command.line}\n{done.stdout}\nexpected {command.prints}"


@pytest.fixture
def host() -> Iterator[Running]:
    made = Running("--config", "host.toml")
    made.log.write_text("")
    made.env |= {"NVCORE_FIRMWARE": str(made.home / "images" / "nvidia"), "PATH": f"{made.home / 'bin'}:{os.environ['PATH']}"}
    (made.home / "bin").mkdir()
    (made.home / "bin" / "nvcore").write_text(f"#!/bin/sh\nexec {' '.join(NVCORE)} \"$@\"\n")
    (made.home / "bin" / "nvcore").chmod(0o755)
    yield made
    made.close()


def test_the_session_on_the_page_goes_as_the_page_says(host: Running) -> None:
    for kind, text in BLOCKS:
        if kind == "toml":
            (host.home / text.partition("\n")[0].removeprefix("# file: ")).write_text(text)
    for command in commands("console"):
        if command.line.endswith("&"):
            assert command.line.split()[:-1] == ["nvcore", "run", *host.words]
            host.start()
            continue
        done = subprocess.run(
            ["sh", "-c", command.line], cwd=host.home, env=host.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        check(command, done)
    assert host.wait() == 0


def test_the_installation_on_the_page_goes_as_the_page_says(tmp_path: Path) -> None:
    if "NVCORE_TEST_WHEELS" not in os.environ:
        pytest.skip("run through `python3 dev.py test`, which builds the wheels")
    (tmp_path / "dist").symlink_to(os.environ["NVCORE_TEST_WHEELS"])
    house = f"PIP_NO_INDEX=1 PIP_FIND_LINKS={os.environ['NVCORE_TEST_WHEELHOUSE']} PIP_DISABLE_PIP_VERSION_CHECK=1"
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    env = {"PATH": path, "HOME": str(tmp_path), "LANG": "C.UTF-8", "XDG_RUNTIME_DIR": str(tmp_path)}
    typed = commands("console install")
    assert typed
    for command in typed:
        line = command.line.replace("$PIP", f"env {house} {sys.executable} {os.environ['NVCORE_TEST_PIP']}")
        done = subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
        check(command, done)


def test_no_installation_on_the_page_takes_what_an_index_has_under_our_names() -> None:
    typed = [command.line for command in commands("console install") if " install " in command.line]
    assert len(typed) == 2 and any("--upgrade" in line for line in typed)
    for line in typed:
        assert " --find-links dist " in line and line.endswith(f"=={version('nvcore')}'")


def test_every_block_is_run_or_says_why_not() -> None:
    kinds = {kind for kind, _ in BLOCKS}
    assert kinds == {"console", "console install", "console systemd", "toml"}
    assert {command.line.split()[0] for command in commands("console systemd")} == {"install", "systemctl", "journalctl"}


def test_the_unit_file_is_where_the_page_looks_for_it() -> None:
    (line,) = (command.line for command in commands("console systemd") if command.line.startswith("install"))
    program = re.search(r"-c '(.*?)'", line)
    assert program
    done = subprocess.run([sys.executable, "-I", "-c", program[1]], capture_output=True, text=True, timeout=60, check=True)
    assert Path(done.stdout.strip()).name == "nvcore.service" and Path(done.stdout.strip()).is_file()


def test_every_noun_code_and_schema_stands_on_the_page() -> None:
    for noun in (*NOUNS, "vgpu", "firmware", "softgpu"):
        assert re.search(rf"^\| `{noun}[ `]", PAGE, re.MULTILINE), noun
    listed = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE) for code in row.split(",")}
    assert listed == {0, 1, 2, 3, 4, 5, 6, 7, 78, 130, 141}
    schemas = {path.stem.replace(".1", "/1") for path in (ROOT / "nvcore" / "cli" / "schemas").glob("*.json")}
    assert schemas == set(re.findall(r"nvcore\.[a-z]+/1", PAGE))


def test_every_picture_and_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!https:)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
