"""`docs/plugin-authors.md`: every block runs, and the plugin that its blocks make up passes the contract tests."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nvcore.api.errors import UsageError
from nvcore.api.hooks import SPECIFICATIONS
from nvcore.testing.contracts import CLAUSES, check_client, check_plugin_module
from nvcore.testing.host import until

from .clean import Clean
from .page import PAGE, Block, blocks, write

BLOCKS = blocks()
SNIPPETS = [block for block in BLOCKS if block.language == "python" and block.file is None]
FILES = [block for block in BLOCKS if block.file is not None]
MINIMAL = FILES[: [block.file for block in FILES].index("tests/test_scratchpad.py") + 1]


def named(block: Block) -> str:
    return f"line-{block.line}"


def test_no_block_escapes_the_tests() -> None:
    """What is neither a file, a command nor a piece of Python is a picture."""
    languages = {"python", "toml", "console", ""}
    assert {block.language for block in BLOCKS} <= languages
    assert all(block.file for block in BLOCKS if block.language == "toml")
    assert not any(line.startswith(("$ ", ">>> ")) for block in BLOCKS if block.language == "" for line in block.text.splitlines())
    assert PAGE.read_text().count("\n```") % 2 == 0 and len(SNIPPETS) >= 5


@pytest.mark.parametrize("block", SNIPPETS, ids=named)
def test_a_snippet_runs_and_holds_what_it_asserts(block: Block) -> None:
    assert re.search(r"^assert ", block.text, re.MULTILINE), "a snippet that asserts nothing shows nothing"
    exec(compile(block.text, f"{PAGE.name}:{block.line}", "exec"), {"__name__": "snippet"})


@pytest.mark.parametrize("block", [block for block in FILES if block.language == "python"], ids=lambda block: block.file)
def test_a_file_compiles(block: Block) -> None:
    compile(block.text, f"{PAGE.name}:{block.line}", "exec")


def test_configuration_and_metadata_are_toml() -> None:
    whole = "".join(block.text for block in FILES if block.file == "pyproject.toml")
    points = tomllib.loads(whole)["project"]["entry-points"]
    assert list(points) == ["nvcore.client.v1", "nvcore.operator.v1", "nvcore.command.v1"]
    for block in FILES:
        if block.language == "toml" and block.file != "pyproject.toml":
            tomllib.loads(block.text)


def test_every_hook_and_every_way_to_check_is_named() -> None:
    text = PAGE.read_text()
    hooks = [name for spec in SPECIFICATIONS.values() for name in vars(spec) if name.startswith("nvcore_")]
    assert [name for name in hooks if name not in text and name.replace("nvcore_", "…_") not in text] == []
    assert {"module", "client", "backend"} == {name.split("-")[0] for name in CLAUSES}
    assert all(word in text for word in ("check_plugin_module", "check_client", "check_backend", "CLAUSES"))


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes the plugin of the page importable, from some of its files."""

    def make(files: list[Block]) -> Path:
        for block in files:
            write(block, tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "scratchpad"]:
        del sys.modules[name]


def test_the_first_client_of_the_page_alone_passes_the_contract(plugin: Any) -> None:
    plugin(MINIMAL)
    module = importlib.import_module("scratchpad.plugin")
    (offer,) = check_plugin_module(module)["nvcore_client_drivers"]
    for share in (True, False):
        written: list[str] = []

        def use(pad: Any, written: list[str] = written) -> None:
            pad.write(0, b"works")
            assert pad.read(0, 5) == b"works"
            written.append(pad.gpu)

        check_client(offer, use=use, share=share)
        assert written == ["0000:f0:00.0", "0000:f1:00.0"] * 4  # at first, after a fault of the grant and of the GPU, taken again


def test_the_whole_plugin_passes_too(plugin: Any) -> None:
    plugin(FILES)
    client, operator = (importlib.import_module(f"scratchpad.{name}") for name in ("plugin", "operator"))
    offers = check_plugin_module(client, operator, config=operator.Config(size=0x5000))
    assert {hook: len(group) for hook, group in offers.items()} == dict.fromkeys(offers, 1) and len(offers) == 6
    check_client(offers["nvcore_client_drivers"][0], use=lambda pad: pad.write(0x4000, b"works"))


class FakeIO:
    """The command line's side, for a command."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []

        self.output, self.called = "", dict[str, Any]()

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        self.called[method.removeprefix("org.example.Scratchpad.")] = parameters
        return {"pads": [{"gpu": "0000:f0:00.0", "bytes": 4096}]}

    def show(self, output: str, **given: Any) -> None:
        self.output, self.shown = output, [{key: row[key] for key, _, _ in given["columns"]} for row in given["rows"]]


def test_the_command_shows_what_the_daemon_answers(plugin: Any) -> None:
    plugin(FILES)
    command, io = importlib.import_module("scratchpad.cli").command, FakeIO()
    assert command([], io) == command(["list"], io) == 0 and io.shown == [{"gpu": "0000:f0:00.0", "bytes": 4096}]
    assert io.called == {"List": None} and io.output == "table"
    for words in (["-o", "json"], ["--json"], ["list", "-o", "json"], ["list", "--json"], ["-ojson"]):
        io.output = ""
        assert command(words, io) == 0 and io.output == "json", words
    assert command(["clear", "0000:f0:00.0"], io) == 0 and io.called["Clear"] == {"gpu": "0000:f0:00.0"}
    for wrong in (["drop"], ["list", "more"], ["clear"], ["--colour"]):
        with pytest.raises(UsageError, match=r"nvcore scratchpad: .* see `nvcore scratchpad --help`"):
            command(wrong, io)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["clear", "--help"]], ids=" ".join)
def test_the_command_has_a_page(words: list[str], plugin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    plugin(FILES)
    with pytest.raises(SystemExit) as left:
        importlib.import_module("scratchpad.cli").command(words, FakeIO())
    assert left.value.code == 0 and "usage: nvcore scratchpad" in capsys.readouterr().out


class Reader(Clean):
    """Somebody who does what the page says, from top to bottom."""

    def __init__(self, folder: Path, base: Clean) -> None:
        super().__init__(folder)
        self._base = base
        self.home = folder / "home"
        self.home.mkdir()
        self.daemon: subprocess.Popen[str] | None = None

    def write(self, block: Block) -> None:
        """A file of the page."""
        write(block, self.home)

    def type(self, line: str) -> tuple[int, str]:
        """A command of the page: status, and what it said."""
        while match := re.match(r"([A-Z_]+)=(\S+) ", line):
            self.env[match[1]] = match[2].replace("$PWD", str(self.home))
            line = line[match.end() :]
        program, *words = shlex.split(line)
        if program == "pip":
            return self._pip_line(words)
        if line in ("python3 -m venv env", ". env/bin/activate"):  # a copy of one that has what all of these tests need
            if not self.python.exists():
                self.copy(self._base)
            return 0, ""
        if program == "pytest":
            return self._said(self.run("-m", "pytest", "-p", "no:cacheprovider", *words, cwd=self.home))
        assert program == "nvcore", line
        if words[0] == "run":
            self.daemon = self.start("-m", "nvcore", *words, cwd=self.home)
            self.started(self.daemon)
            until(lambda: " running " in self.type("nvcore gpus")[1], "the GPU runs", 30.0)
            return 0, ""
        return self._said(self.run("-m", "nvcore", *words, cwd=self.home))

    def _pip_line(self, words: list[str]) -> tuple[int, str]:
        if words[0] == "wheel":
            assert words == ["wheel", "--no-deps", "--wheel-dir", "dist", "."]
            self.build(self.home, into=self.home / "dist")
        elif words[1] == "--find-links":
            assert words[:3] == ["install", "--find-links", "/path/to/nvcore/dist"]
            self.install(*words[3:])
        else:
            assert words[:2] == ["install", "--no-deps"]
            again = words[2] == "--force-reinstall"
            self.install("--no-deps", self.home / words[-1], again=again)
        return 0, ""

    @staticmethod
    def _said(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
        return done.returncode, done.stdout + done.stderr

    def close(self) -> str:
        """End the daemon, if one was started; what it said when it did not end well."""
        status, said = self.stop(self.daemon) if self.daemon is not None else (0, "")
        return said if status else ""


def test_the_page_can_be_followed_from_top_to_bottom(tmp_path: Path, base: Clean) -> None:
    reader, said = Reader(tmp_path, base), dict[str, str]()
    try:
        for block in BLOCKS:
            if block.file is not None:
                reader.write(block)
            for line in block.text.splitlines() if block.language == "console" else ():
                assert line.startswith("$ "), line
                status, said[line] = reader.type(line[2:])
                assert status == 0, f"{line}: {status}: {said[line]}"
    finally:
        problem = reader.close()
    assert problem == ""
    assert "selected" in said["$ nvcore plugins list"] and "registered" in said["$ nvcore plugins doctor"]
    assert "registered" in said["$ nvcore plugins doctor --installed"]
    assert re.search(r"^0000:c1:00.0 .* GA100 .* running ", said["$ nvcore gpus"], re.MULTILINE), said["$ nvcore gpus"]
    for line in ("$ nvcore scratchpad list", "$ nvcore scratchpad clear 0000:c1:00.0"):
        assert re.fullmatch(r"GPU +BYTES\n0000:c1:00.0 +1048576\n", said[line]), said[line]
    assert json.loads(said["$ nvcore scratchpad --json"])["pads"] == [{"gpu": "0000:c1:00.0", "bytes": 1048576}]
    assert "list,clear" in said["$ nvcore scratchpad --help"]
    assert "the pad on 0000:c1:00.0 works" in said["$ nvcore doctor"]
    assert re.search(r"PAD ON +BYTES +STATE\s+0000:c1:00.0 +1048576 +\S running", said["$ nvcore status"]), said["$ nvcore status"]
    assert "state: started" in said["$ nvcore plugins show scratchpad"]
    status, text = reader.type("pytest tests")
    assert status == 0 and "7 passed" in text, text


def test_modules_of_the_page_are_gone_again() -> None:
    assert not any(isinstance(module, ModuleType) and name == "scratchpad" for name, module in sys.modules.items())
