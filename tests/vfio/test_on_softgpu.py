"""The client on a real core and firmware backend, before a software GPU: what the firmware keeps, the core's books keep too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nvcore_softgpu")

from nvcore.api.control import Call, Caller
from nvcore.api.errors import NvcoreError
from nvcore.api.needs import BootNeeds
from nvcore.api.offers import BusOffer, ClientOffer, FirmwareOffer, HostInfo
from nvcore.host import Host
from nvcore_fw_gsp.backend import GspBackend
from nvcore_fw_gsp.queue.errors import CallRefused
from nvcore_fw_gsp.session.rm import Rm
from nvcore_vfio import plugin
from nvcore_vfio.client import VfioDriver
from nvcore_vfio.control import VgpuHandler
from nvcore_vfio.errors import BringUpFailed, NoFirmware, NoVgpuHost
from nvcore_vfio.manager import Manager
from nvcore_vfio.recovery import Recovery
from tests.boots.rig import FINAL, Slot, _KeptBus, until

NEEDS = BootNeeds(vgpu_host=True, virtual_functions=16)
CLEANUP = 0x20804008


class Rig:
    def __init__(self, card: Slot, folder: Path) -> None:
        self.card, self.driver = card, VfioDriver(None, folder / "clients" / "vfio")
        root = card.images / "nvidia"
        backend = GspBackend(lambda: [str(root if root.is_dir() else card.images)])
        self.host = Host(
            [card.source],
            buses=[BusOffer("slot", "", ("softgpu",), lambda config: _KeptBus(card.bus))],
            backends=[FirmwareOffer("gsp-rm", "", ("GA100",), (), lambda: backend)],
            clients=[ClientOffer("vfio", "", ("vgpu",), lambda identity: NEEDS, lambda: self.driver)],
            clock=card.clock,
            state_dir=folder,
            config=card.settings(1.0),
        )
        self.host.start()
        until(lambda: self.gpu.state.name in FINAL, "the GPU comes up")
        assert self.gpu.state.name == "running", self.gpu.state.cause

    @property
    def gpu(self) -> Any:
        return self.host.gpus[0]

    @property
    def manager(self) -> Manager:
        return next(iter(self.driver.managers.values()))

    def ask(self, method: str, **parameters: Any) -> Any:
        return getattr(VgpuHandler(self.driver), method)(Call(method, parameters, Caller(0, 0, 1, True), False))

    def states(self) -> dict[str, str]:
        return {row["name"]: row["state"] for row in self.driver.rows()}

    def tasks(self) -> dict[int, str]:
        return {task["gfid"]: task["state"] for task in self.card.inspector.view()["gsp"]["vgpus"]}

    def quarantined(self) -> dict[str, int]:
        return {row.kind: row.quarantined for row in self.gpu.hardware.ledger.rows() if row.quarantined}

    def doctor(self) -> list[str]:
        return [finding.text for finding in self.host.doctor() if finding.severity not in ("ok", "note")]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    card = Slot("ga100", "570.144", vram="40G")
    made = Rig(card, tmp_path)
    until(lambda: bool(made.driver.managers), "the client has it")
    try:
        yield made
    finally:
        assert made.host.stop(20.0) == []
        card.close()


def test_what_the_firmware_keeps_is_in_quarantine_until_the_gpu_is_reset(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    made, control = rig.manager, Rm.control
    for name in ("one", "two"):
        made.create("A100-4C", name=name, vm=None, start=True)

    def refuse(self: Rm, client: int, target: int, command: int, params: bytes | bytearray, what: str) -> bytes:
        if command == CLEANUP:
            raise CallRefused(f"the firmware refused {what}", 0x40)
        return control(self, client, target, command, params, what)

    with monkeypatch.context() as patch:
        patch.setattr(Rm, "control", refuse)
        assert "refused" in (made.destroy("one")["reason"] or "")
    assert rig.tasks() == {1: "stopped", 2: "configured"}
    assert set(rig.quarantined()) == {"vram", "channels", "functions"} and made.pool.kept.keys() == {1}
    assert any("quarantined until the next reset" in text for text in rig.doctor())
    assert made.create("A100-4C", name="three", vm=None, start=True)["function"] == 3

    rig.card.inspector.arm("gsp-halt")
    with pytest.raises(NvcoreError):
        made.firmware_tasks()
    until(lambda: rig.gpu.generation == 2 and rig.gpu.state.name == "running", "the GPU is reset")
    assert rig.tasks() == {2: "configured", 3: "configured"}
    assert rig.quarantined() == {} and made.pool.kept == {} and rig.doctor() == []
    assert made.capacity()[0]["left"] == 8
    assert made.create("A100-4C", name="one", vm=None, start=True)["function"] == 1


def test_what_a_gpu_s_client_stored_is_found_by_a_host_in_which_that_gpu_is_not_up(rig: Rig, tmp_path: Path) -> None:
    row = rig.manager.create("A100-4C", name="one", vm=None, start=True)
    other = plugin.driver(HostInfo("0", {}, "daemon", rig.card.clock, state_dir=tmp_path / "plugins" / "vfio"))
    (down,) = other.rows()
    assert {**row, "state": "down"}.keys() == down.keys()
    assert (down["name"], down["gpu"], down["uuid"], down["state"]) == ("one", row["gpu"], row["uuid"], "down")


def test_a_task_that_crashes_at_its_start_is_told_at_once_and_the_next_vgpu_does_not_wait(rig: Rig) -> None:
    made = rig.manager
    rig.card.inspector.arm("vgpu-crash")
    with pytest.raises(BringUpFailed, match=r"crashed during the negotiation.*NVC-2215.*nothing is declared") as caught:  # 120 s otherwise
        made.create("A100-4C", name="one", vm=None, start=True)
    assert "stop the vGPU" not in str(caught.value)
    assert made.create("A100-4C", name="two", vm=None, start=True)["state"] == "running"
    assert [entry["name"] for entry in made.rows()] == ["two"] and rig.quarantined() == {} and rig.doctor() == []
    made.create("A100-4C", name="three", vm=None, start=False)
    rig.card.inspector.arm("vgpu-crash")
    with pytest.raises(BringUpFailed, match="nvcore vgpu start tries again"):
        made.start("three")
    row = next(row for row in made.rows() if row["name"] == "three")
    assert (row["state"], row["reason"][:48]) == ("failed", "the vGPU task of function 2 crashed during the n")
    assert made.start("three")["state"] == "running"


def refused_behind_a_reset(rig: Rig, call: Callable[[], object]) -> BaseException | None:
    """What a call raises that is made while the life-cycle thread is busy, and a reset of the GPU is the next that it does."""
    busy, go_on, waiting = threading.Event(), threading.Event(), rig.gpu.life._jobs
    rig.gpu.life.post(lambda: (busy.set(), go_on.wait(10)), "another operation that takes long")
    assert busy.wait(10)
    with ThreadPoolExecutor(2) as pool:
        try:
            reset = pool.submit(rig.host.reset, rig.gpu.name)
            until(lambda: waiting.qsize() == 1, "the reset waits")
            asked = pool.submit(call)
            until(lambda: waiting.qsize() == 2, "the call waits behind it")
        finally:
            go_on.set()
        reset.result(20)
        return asked.exception(20)


@pytest.mark.parametrize(
    ("method", "parameters"), [("Destroy", {"name": "one"}), ("Stop", {"name": "one"}), ("Create", {"type": "A100-4C", "name": "two"})]
)
def test_what_waited_behind_a_reset_is_refused_and_changes_nothing(
    rig: Rig, tmp_path: Path, method: str, parameters: dict[str, str]
) -> None:
    rig.ask("Create", type="A100-4C", name="one")
    refused = refused_behind_a_reset(rig, lambda: rig.ask(method, **parameters))
    assert isinstance(refused, NoFirmware) and "was taken down before this came to its turn; nothing was done" in str(refused)
    assert rig.states() == {"one": "running"} and rig.tasks() == {1: "configured"}
    assert [path.name for path in tmp_path.glob("clients/vfio/*/*")] == ["one.json"]
    rig.ask(method, **parameters)  # and works when it is asked again
    assert rig.doctor() == []


def test_vgpus_of_a_gpu_that_runs_on_a_firmware_without_them_are_not_said_to_wait_for_it(tmp_path: Path) -> None:
    card = Slot("ga100", "570.144", vram="40G")
    try:
        rig = Rig(card, tmp_path)
        rig.ask("Create", type="A100-4C", name="one")
        assert rig.host.stop(20.0) == []
        card.version = "535.113.01"
        rig = Rig(card, tmp_path)
        (row,) = rig.driver.rows()
        assert (row["state"], row["reason"].split(";")[0]) == ("down", "its GPU hosts no vGPUs now")
        with pytest.raises(NoFirmware) as refused:
            rig.ask("Start", name="one")
        assert "nvcore gpus show 0000:41:00.0" in str(refused.value) and "retry" not in str(refused.value)
        assert rig.host.stop(20.0) == []
    finally:
        card.close()


@pytest.mark.parametrize("misses", ["quiesce", "resume"])
def test_a_client_that_the_core_gave_up_hosts_nothing_and_its_vgpus_wait_for_a_reset(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, misses: str
) -> None:
    for name in ("one", "two"):
        rig.ask("Create", type="A100-4C", name=name)

    def fail(self: Recovery, what: str) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Recovery, misses, fail)
        rig.card.inspector.arm("gsp-halt")
        with pytest.raises(NvcoreError):
            rig.manager.firmware_tasks()
        until(lambda: rig.gpu.generation == 2 and rig.gpu.state.name == "running", "the GPU is reset")
    assert rig.driver.managers == {} and rig.states() == {"one": "down", "two": "down"} and rig.ask("Types") == {"types": []}
    with pytest.raises(NoVgpuHost):
        rig.ask("Create", type="A100-4C", name="three")
    with pytest.raises(NoFirmware, match=r"vGPU one of GPU 0000:41:00\.0 cannot be started"):
        rig.ask("Start", name="one")
    rig.ask("Destroy", name="two")
    rig.host.reset(rig.gpu.name)
    assert rig.states() == {"one": "running"} and rig.tasks() == {1: "configured"} and rig.doctor() == []
