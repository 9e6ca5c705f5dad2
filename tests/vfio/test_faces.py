"""How vGPUs are asked for and shown: which GPU serves a request, what words and parameters become, panel, checks, configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from nvcore.api.clock import SYSTEM
from nvcore.api.control import Call, Caller
from nvcore.api.errors import ConflictError, NotFoundError, NotSupportedError, NvcoreError, UsageError, WaitTimeout
from nvcore.api.identity import ChipId, GpuIdentity
from nvcore.api.offers import HostInfo
from nvcore.daemon.varlink import methods_of
from nvcore_vfio import operator, plugin
from nvcore_vfio.cli import command
from nvcore_vfio.client import VfioDriver
from nvcore_vfio.control import VgpuHandler
from nvcore_vfio.errors import NoVgpuHost, PinnedMismatch, UnknownVgpu, VgpuExists
from tests.config.spoiled import records

from .fake import FakeContext
from .test_manager import make, manager

ONE, TWO = "0000:41:00.0", "0000:c1:00.0"


class Hosts:
    """A driver with two GPUs, of which the first has room for one vGPU."""

    def __init__(self, folder: Path) -> None:
        self.contexts = [FakeContext(folder / "one", functions=1), FakeContext(folder / "two", address=TWO)]
        self.driver = VfioDriver()
        self.clients = [self.driver.probe(context) for context in self.contexts]  # type: ignore[arg-type]
        self.one, self.two = self.driver.managers[ONE], self.driver.managers[TWO]
        self.handler = VgpuHandler(self.driver)

    def ask(self, method: str, **parameters: Any) -> Any:
        answer = getattr(self.handler, method)(Call(method, parameters, Caller(0, 0, 1, True), False))
        return json.loads(json.dumps(answer))


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path)


def test_a_request_goes_to_the_gpu_that_is_named_that_declares_the_vgpu_or_that_has_room(hosts: Hosts) -> None:
    driver = hosts.driver
    assert driver.manager(TWO) is hosts.two and driver.manager(None) is hosts.one
    make(hosts.one, "a")
    assert driver.manager(None) is hosts.two  # the first has no room left
    make(hosts.two, "b")
    assert driver.holder("a") is hosts.one and driver.holder("b") is hosts.two
    with pytest.raises(ConflictError, match="2 GPUs have the UUID GPU-1"):
        driver.manager("GPU-1")
    hosts.contexts[1].inventory = attrs.evolve(hosts.contexts[1].inventory, uuid="GPU-2")
    assert driver.manager("GPU-1") is hosts.one and driver.manager("GPU-2") is hosts.two
    with pytest.raises(NoVgpuHost, match=r"no GPU 0000:99:00\.0 that hosts vGPUs") as caught:
        driver.manager("0000:99:00.0")
    assert caught.value.expected == f"{ONE}, {TWO}"
    while hosts.two.capacity()[0]["left"]:
        make(hosts.two)
    assert driver.manager(None) is hosts.one  # which says why there is no room
    with pytest.raises(UnknownVgpu, match="no vGPU c; expected a, b"):
        driver.holder("c")
    for client in hosts.clients:
        client.remove()
    with pytest.raises(NoVgpuHost, match="no GPU hosts vGPUs"):
        driver.manager(None)
    with pytest.raises(UnknownVgpu, match="none is declared"):
        driver.holder("a")


def test_the_control_socket_s_verbs_do_what_they_say_on_the_gpu_that_is_meant(hosts: Hosts) -> None:
    row = hosts.ask("Create", type="A100-4C", name="a", vm="web", gpu=TWO, start=False)["vgpu"]
    assert (row["name"], row["vm"], row["state"]) == ("a", "web", "stopped") and hosts.two.declares("a")
    assert hosts.ask("Create", type="A100-4C", name="b")["vgpu"]["state"] == "running" and hosts.one.declares("b")
    assert [row["name"] for row in hosts.ask("List")["vgpus"]] == ["b", "a"]
    with pytest.raises(VgpuExists, match="vGPU a exists"):
        hosts.ask("Create", type="A100-4C", name="a", gpu=ONE)  # a name is one of the host's
    assert [(row["gpu"], row["left"]) for row in hosts.ask("Types")["types"]] == [(ONE, 0), (TWO, 9)]
    assert hosts.ask("Start", name="a")["vgpu"]["state"] == "running"
    pid = 1
    assert hosts.ask("Start", name="a", pid=pid)["vgpu"]["claim_pid"] == pid
    for verb in ("Stop", "Destroy"):
        with pytest.raises(NvcoreError, match="process 1"):
            hosts.ask(verb, name="a")
    assert hosts.ask("Stop", name="a", force=True)["vgpu"]["state"] == "stopped"
    hosts.ask("Start", name="a", pid=pid)
    assert hosts.ask("Destroy", name="a", force=True)["vgpu"]["state"] == "destroyed" and not hosts.two.declares("a")


def test_a_name_is_given_once_also_when_two_gpus_are_asked_at_the_same_time(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[NvcoreError] = []
    firmware = hosts.contexts[0].firmware
    assert firmware is not None
    bootload = firmware.bootload

    def meanwhile(*given: Any) -> int:  # the other requests come while this GPU is at work; the second passed the early check before it
        for other in (lambda: hosts.ask("Create", type="A100-4C", name="a", gpu=TWO), lambda: make(hosts.two, "a")):
            with pytest.raises(VgpuExists, match="a vGPU a is being created") as caught:
                other()
            refused.append(caught.value)
        return bootload(*given)

    with monkeypatch.context() as patch:
        patch.setattr(firmware, "bootload", meanwhile)
        hosts.ask("Create", type="A100-4C", name="a", gpu=ONE)
    assert [(row["gpu"], row["name"]) for row in hosts.ask("List")["vgpus"]] == [(ONE, "a")] and len(refused) == 2
    hosts.ask("Destroy", name="a")
    assert hosts.ask("Create", type="A100-4C", name="a", gpu=TWO)["vgpu"]["gpu"] == TWO


@pytest.mark.parametrize("named", ["while it waits", "while it is made"])
def test_a_name_is_given_once_also_when_nobody_waits_any_more_for_the_first_that_has_it(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    jobs: list[Callable[[], object]] = []

    def run(call: Callable[[], object], *, timeout: float) -> object:  # the GPU is busy with something else
        jobs.append(call)
        raise WaitTimeout("busy")

    monkeypatch.setattr(hosts.contexts[0], "run", run)
    with pytest.raises(WaitTimeout, match="it was not called off and goes on"):
        hosts.ask("Create", type="A100-4C", name="a", gpu=ONE)
    firmware = hosts.contexts[0].firmware
    assert firmware is not None and len(jobs) == 1
    if named == "while it waits":  # the one that comes to its turn first has the name
        assert hosts.ask("Create", type="A100-4C", name="a", gpu=TWO)["vgpu"]["state"] == "running"
        with pytest.raises(VgpuExists, match="vGPU a exists"):
            jobs[0]()
        assert "bootload" not in firmware.calls
    else:
        bootload = firmware.bootload

        def meanwhile(*given: Any) -> int:
            with pytest.raises(VgpuExists, match="a vGPU a is being created"):
                hosts.ask("Create", type="A100-4C", name="a", gpu=TWO)
            return bootload(*given)

        monkeypatch.setattr(firmware, "bootload", meanwhile)
        jobs[0]()
    first = TWO if named == "while it waits" else ONE
    assert [(row["gpu"], row["name"], row["state"]) for row in hosts.ask("List")["vgpus"]] == [(first, "a", "running")]
    monkeypatch.undo()
    hosts.ask("Destroy", name="a")
    assert hosts.ask("Create", type="A100-4C", name="a", gpu=ONE)["vgpu"]["gpu"] == ONE  # nothing holds the name any more


def test_a_client_that_leaves_is_no_host_of_vgpus_any_more(hosts: Hosts) -> None:
    make(hosts.one, "a")
    client = hosts.clients[0]
    assert client.status().text == "1 of 1 vGPUs running"
    client.remove()
    assert list(hosts.driver.managers) == [TWO] and not hosts.contexts[0].live and hosts.contexts[0].grants[0].state == "released"
    assert hosts.one.rows()[0]["state"] == "stopped" and hosts.contexts[0].subscribers == []


def test_a_gpu_whose_firmware_has_no_vgpus_is_not_probed_and_a_probe_that_fails_leaves_nothing(tmp_path: Path) -> None:
    context, driver = FakeContext(tmp_path), VfioDriver(2)
    firmware, context.firmware = context.firmware, None
    with pytest.raises(NotSupportedError, match="no vGPU operations"):
        driver.probe(context)  # type: ignore[arg-type]
    context.firmware = firmware
    assert firmware is not None
    firmware.refuse = {"upload_types"}
    with pytest.raises(NvcoreError, match="upload_types"):
        driver.probe(context)  # type: ignore[arg-type]
    assert driver.managers == {} and context.subscribers == [] and [grant.state for grant in context.grants] == ["released"]
    firmware.refuse = set()
    driver.probe(context)  # type: ignore[arg-type]
    assert driver.manager(None).capacity()[0]["left"] == 2


def test_a_vgpu_of_another_machine_type_is_not_started_and_says_both(tmp_path: Path) -> None:
    make(manager(FakeContext(tmp_path)), "one")
    path = next(tmp_path.rglob("one.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "nvcore-vgpu-9"}))
    context = FakeContext(tmp_path)
    made = manager(context)
    assert made.rows()[0]["state"] == "failed" and any("was not made again" in text for text in context.reports)
    with pytest.raises(PinnedMismatch) as caught:
        made.start("one")
    assert (caught.value.expected, caught.value.seen) == ("nvcore-vgpu-1", "nvcore-vgpu-9")


class Screen:
    """The command line's side."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any] | None]] = []
        self.shown: list[tuple[str, str, str]] = []
        self.said: list[str] = []
        self.vgpus: list[dict[str, Any]] = []
        self.gpus: dict[str, dict[str, Any]] = {}
        self.fails: NvcoreError | None = None

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        if method == "io.nvcore.Gpu.List":
            return {"gpus": [{"address": address, "source": "", "chip": "GX"} for address in self.gpus]}
        if method == "io.nvcore.Gpu.Describe":
            assert parameters is not None
            if parameters["gpu"] not in self.gpus:
                raise NotFoundError(f"no GPU {parameters['gpu']}")
            return {"gpu": self.gpus[parameters["gpu"]]}
        self.calls.append((method.removeprefix("io.nvcore.Vgpu."), parameters))
        if self.fails is not None:
            raise self.fails
        return {"vgpus": self.vgpus, "types": [], "vgpu": {}}

    def say(self, text: str) -> None:
        self.said.append(text)

    def show(self, output: str, *, schema: str, key: str, rows: object, columns: object, name: str = "name") -> None:
        self.shown.append((output, schema, key))


@pytest.mark.parametrize(
    ("words", "method", "parameters"),
    [
        ("list", "List", None),
        ("", "List", None),
        ("--json", "List", None),
        ("types -o wide", "Types", None),
        ("create --type A", "Create", {"type": "A", "gpu": None, "name": None, "vm": None, "start": True}),
        ("create --type A --gpu G --name n --vm v --no-start", "Create", {"type": "A", "gpu": "G", "name": "n", "vm": "v", "start": False}),
        ("start n", "Start", {"name": "n", "pid": None}),
        ("start n --pid 7", "Start", {"name": "n", "pid": 7}),
        ("stop n", "Stop", {"name": "n", "force": False}),
        ("destroy n --force --json", "Destroy", {"name": "n", "force": True}),
    ],
)
def test_words_of_the_command_line_are_one_call(words: str, method: str, parameters: dict[str, Any] | None) -> None:
    screen = Screen()
    assert command(words.split(), screen) == 0  # type: ignore[arg-type]
    assert screen.calls == [(method, parameters)]
    output = "json" if "--json" in words else "wide" if "wide" in words else "table"
    assert screen.shown == [(output, "nvcore.vgpu-types/1", "types") if method == "Types" else (output, "nvcore.vgpu/1", "vgpus")]


@pytest.mark.parametrize("words", ["create", "create --type A --pid 3", "--x", "start", "start n --pid x", "stop n m", "list n", "grow n"])
def test_words_that_fit_no_verb_are_a_usage_error_and_ask_nothing(words: str) -> None:
    screen = Screen()
    with pytest.raises(UsageError, match="nvcore vgpu"):
        command(words.split(), screen)  # type: ignore[arg-type]
    assert screen.calls == []


@pytest.mark.parametrize(("state", "code"), [("running", 0), ("stopped", 0), ("failed", 7), ("down", 7)])
def test_a_list_with_a_vgpu_that_is_not_as_it_should_be_is_partial(state: str, code: int) -> None:
    screen = Screen()
    screen.vgpus = [{"state": "running"}, {"state": state}]
    assert command(["list"], screen) == code  # type: ignore[arg-type]


def running(chip: str, gib: int, *, owner: str | None = None, reason: str | None = None) -> dict[str, Any]:
    function = {"kind": "vgpu", "reason": reason, "owner": owner}
    return {"state": "running", "chip": chip, "inventory": {"memory_size": gib << 30}, "functions": [function]}


WHY_NOT = {
    "a": {"state": "failed", "cause": "booter: no halt", "functions": []},
    "b": running("GX", 40, reason="GX has no SR-IOV"),
    "c": running("GX", 40),
    "d": {"state": "running", "functions": []},
    "e": running("GA100", 8, owner="vfio"),
    "f": running("GX", 40, owner="vfio"),
    "g": running("GA100", 40, owner="other"),
    "h": running("GA100", 40, owner="vfio"),
}


def test_a_gpu_that_hosts_no_vgpus_is_told_with_the_reason() -> None:
    screen = Screen()
    screen.gpus = WHY_NOT
    assert command(["types"], screen) == 0  # type: ignore[arg-type]
    assert screen.said[:2] == ["a (GX) hosts no vGPUs: it is failed: booter: no halt", "b (GX) hosts no vGPUs: GX has no SR-IOV"]
    assert "no client drives" in screen.said[2] and "no function" in screen.said[3]
    assert [text.partition("hosts no vGPUs: ")[2] for text in screen.said[4:]] == [
        "A100-4C needs a GPU with 40 GiB of memory, and this one has 8 GiB",
        "no vGPU type of GX is known",
        "the client other drives its vGPU function",
        "vfio comes to its vGPU function, or leaves it, just now: ask again",
    ]
    screen.fails = NoVgpuHost("no GPU b that hosts vGPUs", expected="x")
    with pytest.raises(NoVgpuHost, match="GPU b hosts no vGPUs; expected x; seen GX has no SR-IOV"):
        command(["create", "--type", "A", "--gpu", "b"], screen)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="no GPU nope"):
        command(["create", "--type", "A", "--gpu", "nope"], screen)  # type: ignore[arg-type]


@pytest.mark.parametrize("words", ["create --type A", "start a", "stop a", "destroy a"])
def test_an_operation_that_was_not_waited_for_says_that_it_goes_on_and_where_its_end_is_shown(words: str) -> None:
    screen = Screen()
    screen.fails = WaitTimeout("no answer to io.nvcore.Vgpu.Create", expected="within 30 s")
    with pytest.raises(WaitTimeout, match=r"within 30 s; the operation was not called off and goes on: `nvcore vgpu list`"):
        command(words.split(), screen)  # type: ignore[arg-type]


def info(**shared: Any) -> HostInfo:
    return HostInfo("0", {}, "daemon", SYSTEM, shared=shared)


def test_the_panel_shows_every_gpu_s_vgpus_with_their_place(hosts: Hosts) -> None:
    make(hosts.one, "a")
    make(hosts.two, "b")
    (panel,) = operator.nvcore_status_panels(info(driver=hosts.driver))
    rows = panel.snapshot()
    assert [(row["name"], row["place"]) for row in rows] == [("a", f"{ONE}/1"), ("b", f"{TWO}/1")]
    assert all(column[0] in row for row in rows for column in panel.columns)


def test_the_doctor_says_that_both_sides_agree_and_which_records_cannot_be_used(hosts: Hosts, tmp_path: Path) -> None:
    make(hosts.one, "a")
    (check,) = operator.nvcore_doctor_checks(info(driver=hosts.driver))
    assert [(finding.severity, finding.text) for finding in check.run()] == [
        ("ok", f"{ONE}: 1 vGPU, here and in the firmware"), ("ok", f"{TWO}: 0 vGPUs, here and in the firmware"),
    ]  # fmt: skip
    folder = next((tmp_path / "one").rglob("a.json")).parent
    (folder / "b.json").write_text(json.dumps({**json.loads((folder / "a.json").read_text()), "name": "b", "slot": 99}))
    (folder / "c.json").write_text("{")
    hosts.clients[0].remove()
    hosts.driver.probe(FakeContext(tmp_path / "one"))  # type: ignore[arg-type]
    found = list(check.run())
    assert [finding.severity for finding in found] == ["warning", "warning", "ok", "ok"]
    assert "c.json" in found[0].text and "b cannot be started: its slot 99" in found[1].text


def test_who_may_look_may_not_change_and_every_method_is_one_of_both() -> None:
    (offer,) = operator.nvcore_control_interfaces(info())
    assert offer.observe == {"List", "Types"} and offer.control == {"Create", "Start", "Stop", "Destroy"}
    assert set(methods_of(offer.text)) == offer.observe | offer.control == {name for name in vars(VgpuHandler) if name[0].isupper()}


def test_one_driver_serves_a_host_with_the_limit_that_is_configured() -> None:
    for configured, limit in ((None, None), (SimpleNamespace(vgpus_per_gpu=0), None), (SimpleNamespace(vgpus_per_gpu=3), 3)):
        host = info()
        host.config = configured
        (offer,) = plugin.nvcore_client_drivers(host)
        made = offer.open()
        assert made is plugin.driver(host) and made._limit == limit  # type: ignore[attr-defined]


@pytest.mark.parametrize(("chip", "wanted"), [("GA100", (True, 16)), ("GH100", (False, 0))])
def test_only_a_chip_that_can_host_vgpus_is_booted_for_them(chip: str, wanted: tuple[bool, int]) -> None:
    (offer,) = plugin.nvcore_client_drivers(info())
    needs = offer.needs(GpuIdentity(ONE, "fake:", ChipId(chip, "", ""), 0, ""))
    assert (needs.vgpu_host, needs.virtual_functions) == wanted


VALUES = ("0", "3", "-1", "true", "1.0", '"3"', "[]", "{}", "0x7f", "9" * 40, "nan", "1979-05-27")


def test_two_thousand_sections_of_any_bytes_or_values_are_a_record_or_a_named_error() -> None:
    (section,) = operator.nvcore_config_sections(info())
    made = records(section, lambda chooser: f"[plugins.vfio]\nvgpus_per_gpu = {chooser.choice(VALUES)}\n".encode())
    assert all(type(record.vgpus_per_gpu) is int and record.vgpus_per_gpu >= 0 for record in made)
    assert 100 < len(made) < 1900
