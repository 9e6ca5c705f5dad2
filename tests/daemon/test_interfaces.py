"""The control socket as others meet it: interface files that parse, the varlink package as a judge, answers of the declared types, fuzz."""

from __future__ import annotations

import json
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nvcore.api.control import Call, Caller
from nvcore.api.offers import CheckOffer, Finding, PanelOffer
from nvcore.daemon.interfaces import core_interfaces, panels
from nvcore.events import EventLog
from tests.daemon.running import Running

varlink = pytest.importorskip("varlink")
scanner = pytest.importorskip("varlink.scanner")

CORE = ("io.nvcore", "io.nvcore.Event", "io.nvcore.Gpu", "io.nvcore.Host", "io.nvcore.Plugin", "org.varlink.service")
A100 = "0000:41:00.0"
VARLINKS = files("nvcore.daemon") / "varlinks"


@pytest.fixture(scope="module")
def texts(host: Running) -> dict[str, str]:
    """Every interface that the daemon serves, and its description."""
    with varlink.Client(f"unix:{host.socket}") as peer, peer.open("org.varlink.service") as service:
        return {name: service.GetInterfaceDescription(name)["description"] for name in service.GetInfo()["interfaces"]}


def test_the_daemon_serves_what_the_repository_says(texts: dict[str, str]) -> None:
    assert set(texts) == {*CORE, "io.nvcore.Vgpu"} and next(iter(texts)) == "org.varlink.service"
    for name in CORE:
        assert texts[name] == (VARLINKS / f"{name}.varlink").read_text()
    assert {path.name.removesuffix(".varlink") for path in VARLINKS.iterdir()} == set(CORE)


def test_every_interface_parses_and_has_members_with_a_word_on_them(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        interface = scanner.Interface(text)
        assert interface.name == name and interface.members
        assert text.startswith("#")


def test_varlinkctl_reads_them(host: Running) -> None:
    tool = shutil.which("varlinkctl")
    if tool is None:
        pytest.skip("by design: this machine's systemd has no varlinkctl")
    for words in (["info"], ["list-interfaces"], ["introspect"]):
        done = subprocess.run([tool, words[0], str(host.socket), *(["io.nvcore.Gpu"] if words[0] == "introspect" else [])], timeout=30)
        assert done.returncode == 0


def matches(value: Any, kind: Any, interface: Any, where: str) -> None:
    """Whether a value is of a declared type, as the varlink package parsed it; every key declared, every declared key there."""
    name = type(kind).__name__
    if name == "_Maybe":
        if value is not None:
            matches(value, kind.element_type, interface, where)
    elif name == "_Array":
        assert isinstance(value, list), where
        for at, one in enumerate(value):
            matches(one, kind.element_type, interface, f"{where}[{at}]")
    elif name == "_Dict":
        assert isinstance(value, dict), where
        for key, one in value.items():
            matches(one, kind.element_type, interface, f"{where}[{key}]")
    elif name == "_Struct":
        assert isinstance(value, dict), where
        assert set(value) <= set(kind.fields), f"{where}: undeclared {set(value) - set(kind.fields)}"
        for key, inner in kind.fields.items():
            assert key in value or type(inner).__name__ == "_Maybe", f"{where}: {key} is missing"
            matches(value.get(key), inner, interface, f"{where}.{key}")
    elif name == "_Enum":
        assert value in kind.fields, f"{where}: {value!r}"
    elif name == "_CustomType":
        matches(value, interface.members[kind.name].type, interface, where)
    elif name == "_Object":
        assert isinstance(value, dict), where
    else:  # a plain type stands as its empty value: "", 0, 0.0, False, {}
        assert name in ("bool", "int", "float", "str", "dict"), f"{where}: what is {kind!r}"
        wanted = (int, float) if name == "float" else (type(kind),)
        assert isinstance(value, wanted) and (name == "bool" or not isinstance(value, bool)), f"{where}: {value!r} is no {name}"


VGPU = {"type": "A100-4C", "name": "typed", "vm": "vm"}
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("org.varlink.service", "GetInfo", {}),
    ("org.varlink.service", "GetInterfaceDescription", {"interface": "io.nvcore"}),
    ("io.nvcore.Host", "Describe", {}),
    ("io.nvcore.Vgpu", "Create", VGPU),
    ("io.nvcore.Vgpu", "List", {}),
    ("io.nvcore.Vgpu", "Types", {}),
    ("io.nvcore.Host", "Describe", {}),  # with a vGPU on the panel
    ("io.nvcore.Vgpu", "Stop", {"name": "typed"}),
    ("io.nvcore.Vgpu", "List", {}),
    ("io.nvcore.Vgpu", "Start", {"name": "typed"}),
    ("io.nvcore.Vgpu", "Destroy", {"name": "typed"}),
    ("io.nvcore.Host", "Doctor", {}),
    ("io.nvcore.Host", "Dump", {}),
    ("io.nvcore.Gpu", "List", {}),
    ("io.nvcore.Gpu", "Describe", {"gpu": A100}),
    ("io.nvcore.Gpu", "Reset", {"gpu": A100}),
    ("io.nvcore.Plugin", "List", {}),
    ("io.nvcore.Event", "Watch", {}),
    ("io.nvcore.Event", "Watch", {"after": 3, "kinds": ["state"], "gpu": A100}),
]


def ask(path: Path, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(str(path))
        link.sendall(json.dumps({"method": method, "parameters": parameters}).encode() + b"\0")
        data = b""
        while not data.endswith(b"\0"):
            part = link.recv(65536)
            assert part
            data += part
        return json.loads(data[:-1])  # type: ignore[no-any-return]


def test_every_method_answers_what_its_interface_says(host: Running, texts: dict[str, str]) -> None:
    for name, method, parameters in CALLS:
        interface = scanner.Interface(texts[name])
        declared = interface.members[method]
        assert set(parameters) <= set(declared.in_type.fields), f"{name}.{method}"
        answer = ask(host.socket, f"{name}.{method}", parameters)
        assert "error" not in answer, f"{name}.{method}: {answer}"
        matches(answer["parameters"], declared.out_type, interface, f"{name}.{method}")
    asked = {(name, method) for name, method, _ in CALLS}
    for name, text in texts.items():
        for method in re.findall(r"^method (\w+)", text, re.MULTILINE):
            assert (name, method) in asked or (name, method) in NOT_HERE, f"{name}.{method} is not tested"


NOT_HERE = {("io.nvcore.Host", "Stop"), ("io.nvcore.Plugin", "Stop"), ("io.nvcore.Gpu", "Retry")}  # each has a test of its own elsewhere


@pytest.mark.parametrize(
    ("method", "parameters", "error", "field"),
    [
        ("io.nvcore.Gpu.Describe", {}, "Invalid", "gpu"),
        ("io.nvcore.Gpu.Describe", {"gpu": 7}, "Invalid", "gpu"),
        ("io.nvcore.Gpu.Describe", {"gpu": ""}, "Invalid", "gpu"),
        ("io.nvcore.Gpu.Describe", {"gpu": "0000:99:00.0"}, "NotFound", None),
        ("io.nvcore.Gpu.Retry", {"gpu": A100}, "Conflict", None),
        ("io.nvcore.Plugin.Stop", {"name": "nobody"}, "NotFound", None),
        ("io.nvcore.Event.Watch", {"after": -1}, "Invalid", "after"),
        ("io.nvcore.Event.Watch", {"after": True}, "Invalid", "after"),
        ("io.nvcore.Event.Watch", {"kinds": "state"}, "Invalid", "kinds"),
        ("io.nvcore.Event.Watch", {"kinds": [1]}, "Invalid", "kinds"),
        ("io.nvcore.Event.Watch", {"gpu": []}, "Invalid", "gpu"),
        ("io.nvcore.Host.Dump", {"folder": "relative"}, "Invalid", None),
        ("io.nvcore.Host.Dump", {"folder": {}}, "Invalid", "folder"),
        ("io.nvcore.Vgpu.Create", {}, "Invalid", "type"),
        ("io.nvcore.Vgpu.Create", {"type": "A100-4C", "start": "no"}, "Invalid", "start"),
        ("io.nvcore.Vgpu.Start", {"name": "x", "pid": "1"}, None, None),
    ],
)
def test_errors_are_declared_and_complete(
    host: Running, texts: dict[str, str], method: str, parameters: dict[str, Any], error: str | None, field: str | None
) -> None:
    answer = ask(host.socket, method, parameters)
    name = answer["error"].removeprefix("io.nvcore.")
    assert error in (None, name)
    interface = scanner.Interface(texts["io.nvcore"])
    matches(answer["parameters"], interface.members[name].type, interface, name)
    if field is not None:
        assert answer["parameters"]["field"] == field


def test_the_varlink_package_works_with_every_interface(host: Running, texts: dict[str, str]) -> None:
    with varlink.Client(f"unix:{host.socket}") as peer:
        for name in texts:
            if name not in ("io.nvcore", "org.varlink.service"):
                with peer.open(name) as link:
                    assert link._interface.name == name
        with peer.open("io.nvcore.Gpu") as gpus:
            assert [row["chip"] for row in gpus.List()["gpus"]] == ["GA100", "GH100"]
            with pytest.raises(varlink.VarlinkError) as caught:
                gpus.Describe("nowhere")
            assert caught.value.error() == "io.nvcore.NotFound"
        with peer.open("io.nvcore.Host") as whole:
            assert whole.Describe()["state"] == "running" and whole.Doctor()["healthy"]
        with peer.open("io.nvcore.Event") as events:
            first = next(iter(events.Watch(_more=True)))
            assert first["events"][0]["sequence"] == 1


def test_events_come_at_once_and_a_watcher_that_leaves_is_let_go(host: Running) -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(0.8)
        link.connect(str(host.socket))
        link.sendall(b'{"method":"io.nvcore.Event.Watch","more":true,"parameters":{"after":1000000}}\0')
        assert json.loads(link.recv(65536)[:-1]) == {"parameters": {"events": []}, "continues": True}
        with pytest.raises(TimeoutError):
            link.recv(1)  # nothing is said where nothing happens


def test_who_watches_a_gpu_before_it_has_an_address_hears_of_it_under_its_address_too() -> None:
    log = EventLog()
    gpu = SimpleNamespace(name="soft:a", source="soft:a")
    daemon: Any = SimpleNamespace(state="running", host=SimpleNamespace(events=log, gpu=lambda name: gpu))
    (event,) = [offer for offer in core_interfaces(daemon) if offer.name == "io.nvcore.Event"]
    told: Any = event.handler
    answers = told.Watch(Call("Watch", {"gpu": "soft:a"}, Caller(0, 0, 0, True), True))
    log.publish("state", "found", gpu="soft:a")
    log.publish("state", "found", gpu="soft:b")
    assert [row["text"] for row in next(answers)["events"]] == ["found"]
    gpu.name = "0000:41:00.0"
    log.publish("state", "booting", gpu="0000:41:00.0")
    assert next(filter(None, islice(answers, 3)))["events"][0]["text"] == "booting"
    answers.close()


def snapshot_that_exits() -> Any:
    sys.exit(3)


@pytest.mark.parametrize(
    ("columns", "snapshot", "words"),
    [
        ((("name", "NAME", "left"),), lambda: 1 // 0, "ZeroDivisionError"),
        ((("name", "NAME", "left"),), snapshot_that_exits, "SystemExit"),
        ((("name", "NAME", "left"),), lambda: None, "TypeError"),
        ((("name", "NAME", "left"),), lambda: ["a row"], "ValueError"),
        ((("name", "NAME", "left"),), lambda: [{"name": {1, 2}}], "TypeError"),
        ((("name", "NAME", "left"),), lambda: [{"name": float("nan")}], "ValueError"),
        ((("name", "NAME"),), lambda: [], "ValueError"),
    ],
)
def test_a_panel_that_cannot_be_shown_says_so_and_the_others_are_shown(columns: Any, snapshot: Any, words: str) -> None:
    good = PanelOffer("good", "", "toy/1", (("name", "NAME", "left"),), 2, lambda: [{"name": "a", "since": (1, 2)}])
    offers = [good, PanelOffer("bad", "", "toy/1", columns, 1, snapshot)]
    host: Any = SimpleNamespace(collect=lambda hook: offers)
    bad, shown = json.loads(json.dumps(panels(host)))
    assert words in bad["problem"] and bad["rows"] == []
    assert shown["problem"] is None and shown["rows"] == [{"name": "a", "since": [1, 2]}]


@pytest.mark.parametrize("run", [lambda: 1 // 0, snapshot_that_exits, lambda: ["no finding"], lambda: [Finding("ok", 1 + 2j)]])  # type: ignore[arg-type]
def test_a_check_that_fails_is_a_finding_and_the_others_run(run: Any) -> None:
    offers = [CheckOffer("bad", "", run, plugin="toy"), CheckOffer("good", "", lambda: [Finding("ok", "well")], plugin="toy")]
    daemon: Any = SimpleNamespace(
        host=SimpleNamespace(doctor=list), plugin_host=SimpleNamespace(plugins=[], collect=lambda hook: offers), state="running"
    )
    (host,) = [offer for offer in core_interfaces(daemon) if offer.name == "io.nvcore.Host"]
    told: Any = host.handler
    answer = json.loads(json.dumps(told.Doctor(Call("Doctor", {}, Caller(0, 0, 0, True), False))))
    found = {row["check"]: row for row in answer["findings"]}
    assert not answer["healthy"] and "check bad failed" in found["bad"]["text"] and found["bad"]["code"] == "NVC-1112"
    assert found["good"]["text"] == "well" and found["plugins"]["severity"] == "ok"


SEEDS = [
    {"method": "io.nvcore.Host.Describe", "parameters": {}},
    {"method": "io.nvcore.Host.Doctor"},
    {"method": "io.nvcore.Gpu.Describe", "parameters": {"gpu": A100}},
    {"method": "io.nvcore.Gpu.Reset", "parameters": {"gpu": "0000:99:00.0"}},
    {"method": "io.nvcore.Plugin.List", "parameters": {}, "oneway": True},
    {"method": "io.nvcore.Plugin.Stop", "parameters": {"name": "nobody"}},
    {"method": "io.nvcore.Event.Watch", "parameters": {"after": 2, "kinds": ["state"], "gpu": A100}},
    {"method": "io.nvcore.Vgpu.Create", "parameters": {"type": "L40S-8Q", "vm": "a", "start": False}},
    {"method": "io.nvcore.Vgpu.Start", "parameters": {"name": "nobody", "pid": 1}},
    {"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": "io.nvcore"}},
]
MUTATIONS = 2400


def mutations(seed: int) -> Iterator[bytes]:
    """Valid requests with something changed: values, types, keys, bytes, framing. Stopping and dumping are not asked by chance."""
    dice = random.Random(seed)
    values = [None, True, -1, 2**70, 1e400, "", "x" * 3000, [], {}, [[]] * 40, {"a": {"b": []}}, "\0", "\ud800", "../../x"]
    for _ in range(MUTATIONS):
        request: dict[str, Any] = json.loads(json.dumps(dice.choice(SEEDS)))
        how = dice.randrange(6)
        if how == 0:
            request[dice.choice(["method", "parameters", "more", "oneway", "x"])] = dice.choice(values)
        elif how == 1 and isinstance(request.get("parameters"), dict) and request["parameters"]:
            request["parameters"][dice.choice(list(request["parameters"]))] = dice.choice(values)
        elif how == 2:
            request["method"] = request["method"][: dice.randrange(len(request["method"]))] + dice.choice(["", ".", "Stopp", "é"])
        data = json.dumps(request).encode() + b"\0"
        if how == 3:
            data = data[: dice.randrange(len(data))] + b"\0"
        elif how == 4:
            at = dice.randrange(len(data) - 1)
            data = data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
        elif how == 5:
            data = data[:-1] + dice.choice([b"\0\0", b"", b"\0{", b"\n\0"])
        yield data


def test_mutated_requests_get_declared_answers_or_an_end_and_never_a_hang(host: Running, texts: dict[str, str]) -> None:
    declared = {f"{name}.{error}" for name, text in texts.items() for error in re.findall(r"^error (\w+)", text, re.MULTILINE)}
    before = host.json("gpus")
    count = 0
    for data in mutations(20261125):
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(20)
            link.connect(str(host.socket))
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            answer = b""
            while part := link.recv(1 << 20):
                answer += part
        for message in answer.split(b"\0")[:-1]:
            document = json.loads(message)
            assert set(document) <= {"parameters", "error", "continues"}
            assert "error" not in document or document["error"] in declared, (data, document)
            if document.get("error") == "io.nvcore.Failed":
                assert document["parameters"]["code"] != "NVC-1012", (data, document)  # a handler that broke
        count += 1
    assert count >= 2000
    assert host.json("gpus") | {"generated_at": ""} == before | {"generated_at": ""}
    threads = Path(f"/proc/{host.process.pid}/status").read_text()
    assert int(re.findall(r"Threads:\s+(\d+)", threads)[0]) < 40
