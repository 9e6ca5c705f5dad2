"""docs/software-gpu.md is true: its commands are run, with a client of ours in QEMU's place, and its Python too; what it names exists, and
what exists of commands, options, keys and chips is named."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nvcore.api.command import CommandIO
from nvcore.api.errors import NvcoreError, UsageError
from nvcore_softgpu import cli
from nvcore_softgpu.bus import make_card
from nvcore_softgpu.chips import CHIPS
from nvcore_softgpu.device import SoftDevice
from nvcore_softgpu.faults import ArmedFaults
from nvcore_softgpu.gsp.versions import VERSIONS
from nvcore_softgpu.serve import report
from nvcore_softgpu.sources import parse_source
from tests.cli.test_operators_page import FENCE, Command, check, commands
from tests.daemon.running import NVCORE, clean
from tests.softgpu.wire_kit import Wire

PAGE = (Path(__file__).parents[2] / "docs" / "software-gpu.md").read_text()
BLOCKS = [(match[1], match[2]) for match in FENCE.finditer(PAGE)]
NAMED = re.findall(r"`([^`\n]+)`", FENCE.sub("", PAGE))
LINES = [command.line.removesuffix(" &") for command in commands("console", BLOCKS)]
IO: Any = CommandIO  # none of the calls below gets as far as printing


def option_table() -> set[str]:
    """The options in the table of `serve`."""
    section = PAGE.partition("\n## Serve it")[2].partition("\n## ")[0]
    return set(re.findall(r"--[a-z]+", "".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `--"))))


def offered(*words: str) -> set[str]:
    """The options of a verb, from its own answer to one that it does not have."""
    with pytest.raises(UsageError, match="unknown option") as refused:
        cli.command([*words, "--none-such"], IO)
    return {word for word in str(refused.value.expected).split(", ") if word.startswith("--")}


def test_the_session_on_the_page_goes_as_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "nvcore").write_text(f'#!/bin/sh\nexec {shlex.join(NVCORE)} "$@"\n')
    (tmp_path / "nvcore").chmod(0o755)
    env = clean(HOME=str(tmp_path), PATH=f"{tmp_path}:{os.environ['PATH']}")
    for command in commands("console", BLOCKS):
        if command.line.endswith(" &"):
            serve(command, tmp_path, env)
            continue
        done = subprocess.run(["sh", "-c", command.line], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
        check(command, done)
    assert (tmp_path / "report.json").exists()


def serve(command: Command, folder: Path, env: dict[str, str]) -> None:
    """Run the server in the background, be its client in QEMU's place, and see it end."""
    words = shlex.split(command.line.removesuffix(" &"))
    process = subprocess.Popen(words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        said = "".join(process.stdout.readline() for _ in command.prints)
        assert said.splitlines() == command.prints
        wire = Wire(str(folder / words[words.index("--socket") + 1]))
        wire.hello()
        assert wire.read32(0) == parse_source("softgpu:ga100").chip.boot0
        wire.close()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def test_every_verb_of_the_command_stands_on_the_page_and_no_other() -> None:
    named = {line.split()[2] for line in [*LINES, *NAMED] if line.startswith("nvcore softgpu ")}
    assert named == set(cli.VERBS)


def test_the_options_on_the_page_are_those_of_the_commands() -> None:
    assert option_table() - {"--fault"} == offered("serve")
    with pytest.raises(NvcoreError, match="no fault named"):
        cli.command(["serve", "--chip=ga100", "--vram=1G", "--socket=s", "--fault=none-such"], IO)
    fetch = subprocess.run([*NVCORE, "firmware", "fetch", "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    known = offered("serve") | offered("firmware", "images") | {"--fault", "--gpu", *re.findall(r"--[a-z]+", fetch)}
    assert {word for text in [*LINES, *NAMED] for word in re.findall(r"(?<!\S)--[a-z-]+", text)} <= known


def test_the_keys_of_a_source_are_those_on_the_page() -> None:
    with pytest.raises(UsageError) as refused:
        parse_source("softgpu:ga100?none-such=1")
    sentence = PAGE.partition("\nKeys: ")[2].partition("\n\n")[0]
    named = {word.partition("=")[0] for word in re.findall(r"`([^`]+)`", sentence)}
    assert named == {word.partition("=")[0] for word in str(refused.value.expected).split(", ")}
    sizes = re.search(r"\((\d+G)\s+or\s+(\d+G)\s+unless said\)", sentence)
    assert sizes and [f"{chip.default_vram >> 30}G" for chip in CHIPS] == list(sizes.groups())


def test_chips_and_releases_are_those_that_the_model_plays() -> None:
    (line,) = (line for line in PAGE.splitlines() if line.startswith("Two chips: "))
    assert {chip.name.lower() for chip in CHIPS} == set(re.findall(r"`(\w+)`", line))
    assert set(VERSIONS) == set(re.findall(r"\d+\.\d+(?:\.\d+)?", line))


def test_every_key_of_the_report_is_explained() -> None:
    card = make_card("softgpu:ga100?vram=512M")
    device = SoftDevice(card, "softgpu:ga100?vram=512M")
    try:
        seen = report(device)
    finally:
        device.close()
    section = PAGE.partition("\n## Read the report")[2].partition("\n## ")[0]
    rows = {word for line in section.splitlines() if line.startswith("| `") for word in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert rows == (set(seen) - {"schema"}) | {"messages", "problems"}
    assert set(re.findall(r"`((?:rows|violations|messages)_\w+)`", section)) <= set(seen["counters"])
    assert {name for name in seen["counters"] if name.startswith("rows_")} <= set(re.findall(r"`(\w+)`", section))


def test_the_faults_on_the_page_can_be_armed() -> None:
    faults = [word for text in [*LINES, *NAMED] for word in re.findall(r"--fault (\S+)", text)]
    faults = [fault for fault in faults if not fault.startswith("NAME") and not fault.endswith(":soon")]
    assert len(faults) == 3
    for fault in faults:
        assert ArmedFaults().arm(fault) == fault.partition(":")[0]


def block_of_python() -> dict[str, Any]:
    (text,) = (text for kind, text in BLOCKS if kind == "python")
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(text, "software-gpu.md", "exec"), names)
    return names


def test_the_tests_on_the_page_are_those_that_are_run_here() -> None:
    tests = {name for name in block_of_python() if name.startswith("test_")}
    assert tests == {"test_a_driver_of_your_own", "test_a_plugin_on_a_booted_gpu"}


def test_the_first_test_on_the_page_passes() -> None:
    block_of_python()["test_a_driver_of_your_own"]()


def test_the_second_test_on_the_page_passes(nvcore_host: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block_of_python()["test_a_plugin_on_a_booted_gpu"](nvcore_host, tmp_path, monkeypatch)


def test_every_block_is_run() -> None:
    assert {kind for kind, _ in BLOCKS} == {"console", "python"}
