"""Every noun and verb that a running daemon answers: exit codes, streams, formats, and JSON that fits its schema."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from nvcore.cli.args import Arguments
from nvcore.cli.context import Context
from nvcore.cli.main import main
from nvcore.cli.status import _tables
from tests.daemon.running import BARE, GPU0, GPU1, NVCORE, SET, Running, images

SCHEMAS = {path.name: path for room in ("nvcore.cli", "nvcore_vfio") for path in (files(room) / "schemas").iterdir()}
A100, H100 = "0000:41:00.0", "0000:c1:00.0"
VGPU = ("vgpu", "create", "--type", "A100-4C", "--vm", "vm")


def fits(document: dict[str, Any], schema: str) -> None:
    rules = json.loads(SCHEMAS[f"{schema.replace('/', '.')}.json"].read_text())
    jsonschema.Draft202012Validator.check_schema(rules)
    jsonschema.validate(document, rules)
    assert document["schema"] == schema


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def host(firmware: Path) -> Iterator[Running]:
    gpus = [word for gpu in (GPU0, GPU1) for word in ("--gpu", f"{gpu}&firmware={firmware}")]
    made = Running(*SET, *gpus, firmware=firmware, config="[plugins]\ndeny = ['drm*']\n")
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture(scope="module")
def nobody() -> Iterator[Running]:
    """A place without a daemon."""
    made = Running(*BARE)
    made.log.write_text("")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        (("status",), "nvcore.status/1"),
        (("gpus",), "nvcore.gpus/1"),
        (("gpus", "list"), "nvcore.gpus/1"),
        (("gpus", "show", A100), "nvcore.gpu/1"),
        (("events",), "nvcore.events/1"),
        (("doctor",), "nvcore.doctor/1"),
        (("devices",), "nvcore.devices/1"),
        (("vgpu", "list"), "nvcore.vgpu/1"),
        (("vgpu", "types"), "nvcore.vgpu-types/1"),
        (("plugins",), "nvcore.plugins/1"),
        (("plugins", "doctor"), "nvcore.plugins/1"),
        (("plugins", "show", "vfio"), "nvcore.plugins/1"),
    ],
)
def test_a_healthy_host_answers_0_in_every_format_and_its_json_fits(host: Running, words: tuple[str, ...], schema: str) -> None:
    fits(host.json(*words), schema)
    assert host.run(*words, "--json").stdout.startswith("{")
    for output in ("table", "wide", "jsonl"):
        done = host.run(*words, "-o", output)
        assert (done.stdout or words[0] in ("devices", "vgpu")) and "\x1b" not in done.stdout
        if output == "jsonl":
            assert all(isinstance(json.loads(line), dict) for line in done.stdout.splitlines())
    if words != ("status",):
        host.run(*words, "-o", "name")


def test_every_command_says_how_it_is_used(nobody: Running) -> None:
    for noun in ("run", "status", "gpus", "events", "doctor", "dump", "stop", "devices", "plugins", "config", "explain"):
        for flag in ("--help", "-h"):
            done = nobody.run(noun, flag)
            assert done.stdout.startswith(f"usage: nvcore {noun}") and done.stderr == ""
    for noun in ("vgpu", "firmware", "softgpu"):
        assert f"nvcore {noun}" in nobody.run(noun, "--help").stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("gpus", "show"), 2, "GPU is missing (NVC-1001)\n  expected: nvcore gpus show GPU\n"),
        (("gpus", "retry"), 2, "GPU is missing"),
        (("gpus", "retry", ""), 2, "a word is empty"),
        (("dump", ""), 2, "a word is empty"),
        (("plugins", "show", ""), 2, "a word is empty"),
        (("vgpu", "create", "--type", "A100-4C", "--name", ""), 2, "bad name (NVC-1001)\n  expected: text that is not empty\n"),
        (("vgpu", "create", "--type", "A100-4C", "--gpu", "nonexistent"), 3, "no GPU 'nonexistent'"),
        (("plugins", "stop"), 2, "NAME is missing"),
        (("gpus", "shew", A100), 2, "no verb 'shew'"),
        (("gpus", "show", "0000:99:00.0"), 3, "no GPU"),
        (("gpus", "show", "0000:41:00.1"), 3, f"did you mean {A100}?"),
        (("gpus", "show", "x"), 3, "nvcore gpus lists them"),
        (("gpus", "reset", "x"), 3, "no GPU"),
        (("gpus", "retry", A100), 1, "NVC-"),
        (("gpus", "list", A100), 2, "too many words"),
        (("events", "--after", "soon"), 2, "no sequence number"),
        (("events", "--after", "-1"), 2, "no sequence number"),
        (("events", "--kind", "stat"), 2, "bad kinds"),
        (("events", "--gpu", "0000:99:00.0"), 3, "no GPU"),
        (("events", "--follow", "--kind", "stat"), 2, "bad kinds"),
        (("events", "--gpu", ""), 2, "--gpu needs a value"),
        (("events", "-o", "yaml"), 2, "no output format"),
        (("status", "--color", "red"), 2, "has no meaning"),
        (("status", "--watch=0"), 2, "has no meaning"),
        (("status", "--watch=soon"), 2, "has no meaning"),
        (("status", "-o", "name"), 2, "has no names"),
        (("status", "x"), 2, "too many words"),
        (("doctor", "--all"), 2, "unknown option"),
        (("dump", "a", "b"), 2, "too many words"),
        (("plugins", "stop", "nobody"), 3, "no plugin"),
        (("plugins", "show", "nobody"), 3, "no plugin"),
        (("plugins", "show", "vifo"), 3, "did you mean vfio?"),
        (("vgpu", "destroy", "nobody"), 3, "NVC-"),
        (("vgpu", "stop", "nobody"), 3, "NVC-"),
        (("vgpu", "create", "--type", "L40S-8Q"), None, "NVC-"),
        (("vgpu", "create"), 2, "--type"),
        (("vgpu", "list", "-o", "yaml"), 2, "no output format"),
        (("explain", "NVC-9999"), 3, "no page"),
        (("--timeout", "0", "gpus"), 2, "no time-out"),
        (("stop", "now"), 2, "too many words"),
    ],
)
def test_what_cannot_be_done_ends_with_its_code_and_says_why(host: Running, words: tuple[str, ...], code: int | None, said: str) -> None:
    done = host.run(*words, code=code)
    assert done.returncode != 0 and done.stdout == "" and done.stderr.startswith("error:") and said in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("gpus",), ("gpus", "show", A100), ("gpus", "retry", A100), ("gpus", "reset", A100), ("events",), ("events", "--follow"), ("dump",),
        ("stop",), ("plugins", "stop", "vfio"), ("vgpu", "list"), ("vgpu", "types"), (*VGPU,), ("vgpu", "destroy", "x"),
    ],
)  # fmt: skip
def test_without_a_daemon_it_is_5_and_nothing_is_written(nobody: Running, words: tuple[str, ...]) -> None:
    done = nobody.run(*words, code=5)
    assert done.stdout == "" and "nvcore run" in done.stderr and "NVC-8001" in done.stderr
    assert not nobody.state.exists() and not nobody.socket.exists()


def test_without_a_daemon_status_and_doctor_show_what_they_can(nobody: Running) -> None:
    shown = nobody.run("status", code=5)
    assert "no daemon at" in shown.stdout and "fw_gsp" in shown.stdout and "nvcore run" in shown.stdout
    document = nobody.json("status", code=5)
    fits(document, "nvcore.status/1")
    assert document["error"]["code"] == "NVC-8001"
    fits(nobody.json("doctor", code=5), "nvcore.doctor/1")
    nobody.run("plugins", "list", "--only", "vfio")
    fits(nobody.json("devices"), "nvcore.devices/1")
    for words in (("config", "show"), ("config", "check", *BARE), ("explain", "NVC-8001"), ("softgpu", "faults")):
        nobody.run(*words)


def test_a_vgpu_lives_through_its_verbs(host: Running) -> None:
    host.run(*VGPU, "--name", "one")
    (row,) = host.json("vgpu", "list")["vgpus"]
    assert (row["name"], row["state"], row["gpu"]) == ("one", "running", A100)
    fits(host.json("vgpu", "list"), "nvcore.vgpu/1")
    fits(host.json("vgpu", "types"), "nvcore.vgpu-types/1")
    assert host.run(*VGPU, "--name", "one", code=1).stderr.startswith("error:")
    assert host.run("vgpu", "list", "-o", "name").stdout == "one\n"
    assert "one" in host.run("status").stdout
    host.run("vgpu", "stop", "one")
    assert host.json("vgpu", "list")["vgpus"][0]["state"] == "stopped"
    host.run("vgpu", "start", "one")
    assert host.json("vgpu", "types")["types"][0]["type"] == "A100-4C"
    host.run("vgpu", "destroy", "one")
    assert host.json("vgpu", "list")["vgpus"] == []


def test_a_gpu_is_reset_and_its_vgpus_are_there_again(host: Running) -> None:
    host.run(*VGPU, "--name", "kept")
    before = host.json("gpus", "show", A100)["gpu"]["generation"]
    host.run("gpus", "reset", A100)
    after = host.json("gpus", "show", A100)["gpu"]
    assert after["generation"] > before and after["state"] == "running"
    assert "570.144" in host.run("gpus", "show", A100).stdout and "books" in host.run("gpus", "show", A100).stdout
    (row,) = host.json("vgpu", "list")["vgpus"]
    assert row["state"] in ("running", "stopped", "failed") and row["name"] == "kept"
    host.run("vgpu", "destroy", "kept", "--force")
    uuid = after["uuid"]
    assert host.json("gpus", "show", uuid)["gpu"]["address"] == A100


def test_events_are_filtered_and_followed(host: Running, firmware: Path) -> None:
    rows = host.json("events", "--gpu", A100)["events"]
    assert rows and {row["gpu"] for row in rows} == {A100}
    assert {row["kind"] for row in host.json("events", "--kind", "boot,grant")["events"]} == {"boot", "grant"}
    early = host.json("events", "--gpu", f"{GPU0}&firmware={firmware}")["events"]
    assert {row["gpu"] for row in early} == {A100}, "a source names it as well"
    last = host.json("events")["events"][-1]["sequence"]
    assert host.json("events", "--after", str(last))["events"] == []
    command = [*NVCORE, "events", "--follow", "--after", str(last), "-o", "jsonl"]
    follower = subprocess.Popen(command, env=host.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        time.sleep(0.2)
        host.run(*VGPU, "--name", "seen")
        assert follower.stdout is not None
        began = time.monotonic()
        texts = []
        while not any("seen" in text for text in texts):
            texts.append(json.loads(follower.stdout.readline())["text"])
        assert time.monotonic() - began < 0.9  # at once, not at the next look at the reader
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 130
        assert follower.stderr is not None and follower.stderr.read() == ""
    finally:
        follower.kill()
        follower.wait(10)
        follower.communicate()
        host.run("vgpu", "destroy", "seen", code=None)


def test_a_dump_is_complete_and_never_written_over_something(host: Running) -> None:
    folder = host.home / "bundle"
    done = host.run("dump", str(folder))
    assert done.stdout == f"{folder}\n"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    own = {"gpu.json", "queues.json", "registers.json"}
    assert {"events.json", "host.json", "plugins.json"} <= names
    for gpu in ("0000-41-00.0", "0000-c1-00.0"):
        assert {f"{gpu}/{name}" for name in own} <= names and any(name.startswith(f"{gpu}/log-") for name in names)
    for name in names:
        if name.endswith(".json"):
            json.loads((folder / name).read_text())
    assert (folder.stat().st_mode & 0o777) == 0o700
    assert "new or empty" in host.run("dump", str(folder), code=2).stderr
    document = json.loads(host.run("dump", "--json").stdout)
    fits(document, "nvcore.dump/1")
    assert Path(document["folder"]).is_relative_to(host.state)
    assert host.run("dump", "/proc/nowhere/x", code=2).stderr.startswith("error:")


def test_names_with_markup_and_control_characters_are_inert_everywhere(host: Running) -> None:
    evil = "[red]\x1b[31m\u202e\x07vm"
    host.run("vgpu", "create", "--type", "A100-4C", "--name", "odd", "--vm", evil, code=None)
    try:
        for words in (("status",), ("vgpu", "list"), ("events",), ("events", "-o", "wide"), ("status", "--color", "always")):
            seen = host.run(*words).stdout
            assert "\x1b[31m\u202e" not in seen and "\u202e" not in seen and "\x07" not in seen
        for words in (("gpus", "show", "\x1b[2J"), ("vgpu", "stop", "\x1b[2J"), ("plugins", "stop", "\x1b[2J"), ("\x1b[2J",)):
            assert "\x1b" not in host.run(*words, code=None).stderr
    finally:
        host.run("vgpu", "destroy", "odd", code=None)


FORGED = "12:00:00  host  all is well"
EVENT = {"wall": 0.0, "gpu": A100, "text": f"log\n{FORGED}", "vm": f"a\n{FORGED}", "kind": "vgpu"}
GPU = {
    "address": A100, "chip": "GA100", "state": "failed", "cause": f"log\n{FORGED}", "ledger": [], "functions": [],
    "boot": {
        "image": {"version": "1", "kind": "synthetic", "location": "/x", "problem": None}, "seconds": 1.0,
        "stages": [], "logs": {"LOGRM": f"text\n{FORGED}"},
    },
}  # fmt: skip


def test_what_came_from_a_guest_or_from_firmware_makes_no_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Context, "stream", lambda *_: iter([{"events": [EVENT]}]))
    monkeypatch.setattr(Context, "call", lambda *_, **__: {"gpu": GPU})
    assert (main(["events", "--follow"]), main(["gpus", "show", A100])) == (0, 7)
    panel = {"title": "vGPUs", "problem": f"ValueError: x\n{FORGED}", "columns": [], "rows": []}
    host = {"version": "1", "state": "running", "plugins_started": 1, "plugins_selected": 1, "gpus": [], "plugins": [], "deny": []}
    _tables(Context(Arguments()), {**host, "panels": [panel], "events": [EVENT]})
    lines = capsys.readouterr().out.splitlines()
    assert sum(FORGED in line for line in lines) == 5 and FORGED not in lines


def test_who_may_not_connect_is_4_and_who_may_only_observe_too(host: Running) -> None:
    if os.geteuid() != 0:
        pytest.skip("by design: only root can become someone else")
    folder, stranger = host.socket.parent, ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*stranger, *NVCORE, *words], env=host.env, cwd="/", capture_output=True, text=True, timeout=60)

    if call("--version").returncode != 0:
        pytest.skip("by design: another user cannot run this interpreter")
    os.chmod(host.home, 0o755)
    denied = call("gpus")
    assert denied.returncode == 4 and "group nvcore" in denied.stderr
    os.chmod(folder / "nvcore.sock", 0o666)
    try:
        assert call("gpus").returncode == 0 and call("doctor").returncode == 0
        for words in (("gpus", "reset", A100), ("stop",), ("dump",), ("plugins", "stop", "vfio"), VGPU):
            done = call(*words)
            assert done.returncode == 4 and "changes things" in done.stderr and "uid 65534" in done.stderr
    finally:
        os.chmod(folder / "nvcore.sock", 0o660)
        os.chmod(host.home, 0o700)
    assert "denied" in host.log.read_text()


def test_a_plugin_is_stopped_its_clients_leave_and_the_rest_runs(firmware: Path) -> None:
    host = Running(*SET, "--gpu", f"{GPU0}&firmware={firmware}", firmware=firmware)
    try:
        host.start()
        host.run("plugins", "stop", "vfio")
        row = next(row for row in host.json("plugins")["plugins"] if row["name"] == "vfio")
        assert (row["state"], row["reason"]) == ("disabled", "stopped by the operator")
        gpu = host.json("gpus", "show", A100)["gpu"]
        assert gpu["state"] == "running" and all(function["owner"] is None for function in gpu["functions"])
        assert host.run("plugins", "stop", "vfio", code=3).stderr.startswith("error:")
        assert "plugin vfio was stopped" in host.run("vgpu", "list", code=3).stderr
        status = host.run("status").stdout
        assert "plugins 2/3" in status and "plugin vfio disabled: stopped by the operator" in status and "restart the daemon" in status
        host.run("stop")
        assert host.wait() == 0
    finally:
        host.close()


@pytest.mark.parametrize("name", ["softgpu", "fw_gsp"])
def test_what_a_gpu_runs_on_is_not_stopped_from_under_it(host: Running, name: str) -> None:
    said = host.run("plugins", "stop", name, code=1).stderr
    assert f"plugin {name} cannot be stopped: GPU {A100} is running on it (NVC-1005)" in said and f"-p no:{name}" in said
    assert all(row["state"] == "started" for row in host.json("plugins")["plugins"] if row["selected_by"])
    host.run("gpus", "reset", A100)


NO_VGPUS = {
    A100: "firmware 535.113.01 is driven without its vGPU tasks here",
    H100: "no selected client has use for vGPUs of GH100",
}


def test_a_gpu_that_publishes_no_vgpu_function_shows_the_reason(firmware: Path) -> None:
    gpus = (f'source = "{GPU0}&firmware={firmware}"\nfirmware = "535.113.01"', f'source = "{GPU1}&firmware={firmware}"')
    host = Running(*SET, firmware=firmware, config="".join(f"[[gpu]]\n{gpu}\n" for gpu in gpus))
    try:
        host.start()
        for name, reason in NO_VGPUS.items():
            gpu = host.json("gpus", "show", name)["gpu"]
            assert gpu["state"] == "running"
            function = next(one for one in gpu["functions"] if one["kind"] == "vgpu")
            assert (function["published"], function["owner"], function["reason"]) == (False, None, reason)
            assert "gpus reset" not in str(function["remedy"]), "the client is selected: to reset changes nothing"
            assert reason in " ".join(host.run("gpus", "show", name).stdout.split()), "on the screen too"
            assert "hosts no vGPUs" in host.run(*VGPU, "--gpu", name, code=3).stderr
    finally:
        host.close()


def test_a_reader_that_leaves_early_ends_it_quietly(host: Running) -> None:
    for words in (("status",), ("events",), ("gpus", "-o", "json"), ("status", "--watch=0.1")):
        command = " ".join(f"'{word}'" for word in (*NVCORE, *words))
        script = f"({command}; echo $? >{host.home}/code) 2>{host.home}/err | head -1"
        done = subprocess.run(["sh", "-c", script], env=host.env, capture_output=True, text=True, timeout=60)
        assert len(done.stdout.splitlines()) == 1 and (host.home / "err").read_text() == ""
        assert (host.home / "code").read_text().strip() in ("0", "141")


def test_a_follower_of_events_ends_with_its_reader_also_where_nothing_happens(host: Running) -> None:
    follower = subprocess.Popen([*NVCORE, "events", "--follow"], env=host.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert follower.stdout is not None and follower.stderr is not None
        assert follower.stdout.readline()
        follower.stdout.close()
        assert follower.wait(5) == 141 and follower.stderr.read() == ""
    finally:
        follower.kill()
        follower.wait(10)
        follower.stderr.close()


@pytest.mark.parametrize("words", [("status",), ("gpus", "-o", "json"), ("events",), ("events", "--follow"), ("--help",)])
def test_output_that_cannot_be_written_is_told_and_is_1(host: Running, words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*NVCORE, *words], env=host.env, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("error: the output cannot be written") and "No space left" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_status_again_and_again_on_a_pipe_is_one_screen_or_one_object_each_time(host: Running) -> None:
    for output, marker in (("table", "GPU  BDF"), ("json", '"schema"'), ("jsonl", '"schema"')):
        command = [*NVCORE, "status", "--watch=0.1", "-o", output]
        watching = subprocess.Popen(command, env=host.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert watching.stdout is not None and watching.stderr is not None
        seen = 0
        while seen < 3:
            line = watching.stdout.readline()
            assert line and "\x1b" not in line
            seen += marker in line
            if output != "table":
                fits(json.loads(line), "nvcore.status/1")
        watching.send_signal(signal.SIGINT)
        rest = watching.communicate(timeout=10)
        assert watching.returncode == 130 and rest[1] == ""
