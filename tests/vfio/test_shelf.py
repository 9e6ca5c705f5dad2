"""vGPUs of a GPU that hosts none now, whatever the reason: never forgotten, never started, told with the reason, and destroyed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest

from nvcore.api.client import Client
from nvcore.api.clock import SYSTEM
from nvcore.api.control import Call, Caller
from nvcore.api.errors import NvcoreError, UsageError
from nvcore.api.offers import HostInfo
from nvcore_vfio import operator, plugin
from nvcore_vfio.client import VfioDriver
from nvcore_vfio.control import VgpuHandler
from nvcore_vfio.errors import NoFirmware, NotStored, UnknownVgpu, VgpuExists, VgpuInUse
from nvcore_vfio.manager import Manager
from nvcore_vfio.shelf import Shelf

from .fake import FakeContext, FakeVgpu
from .test_manager import make, manager

GPU, OTHER = "0000:41:00.0", "0000:c1:00.0"


class Down:
    """Two vGPUs of a GPU that does not come up: one that ran, one that was only declared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        made = manager(FakeContext(folder))
        make(made, "ran", vm="web")
        make(made, "idle", start=False)
        made.end()
        self.driver = VfioDriver(None, folder)
        self.handler = VgpuHandler(self.driver)

    def ask(self, method: str, **parameters: Any) -> Any:
        answer = getattr(self.handler, method)(Call(method, parameters, Caller(0, 0, 1, True), False))
        return json.loads(json.dumps(answer))

    def probe(self, context: type[FakeContext] = FakeContext, address: str = GPU) -> Client:
        """A GPU of these records comes up, and its client with it."""
        return self.driver.probe(context(self.folder, address=address))  # type: ignore[arg-type]

    def states(self) -> dict[str, str]:
        return {row["name"]: row["state"] for row in self.ask("List")["vgpus"]}

    def stored(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(next(self.folder.rglob(f"{name}.json")).read_text())
        return found


@pytest.fixture
def down(tmp_path: Path) -> Down:
    return Down(tmp_path)


def test_they_are_listed_as_down_with_the_reason_and_all_that_is_on_record(down: Down) -> None:
    first, second = down.ask("List")["vgpus"]
    assert (first["name"], first["gpu"], first["slot"], first["vm"], first["state"]) == ("ran", GPU, 0, "web", "down")
    assert first["framebuffer_bytes"] and first["channels"] is first["started_at"] is None
    why = "its GPU hosts no vGPUs now; nvcore gpus show 0000:41:00.0 and nvcore doctor say why"
    assert second["reason"] == why and second["gpu"] == GPU


def test_a_start_says_where_the_reason_is_told_and_not_that_the_vgpu_is_unknown(down: Down) -> None:
    with pytest.raises(NoFirmware, match=r"vGPU ran of GPU 0000:41:00\.0 cannot.*hosts no vGPUs now; nvcore gpus show .*3005"):
        down.ask("Start", name="ran")
    with pytest.raises(UnknownVgpu, match="no vGPU other; expected ran, idle"):
        down.ask("Start", name="other")
    with pytest.raises(VgpuExists, match="vGPU ran exists"):
        down.ask("Create", type="A100-4C", name="ran")


def test_one_that_is_destroyed_is_gone_and_does_not_come_back_with_its_gpu(down: Down) -> None:
    assert down.ask("Destroy", name="ran")["vgpu"]["state"] == "destroyed"
    assert down.states() == {"idle": "down"}
    down.probe()
    assert down.states() == {"idle": "stopped"}


def test_one_that_is_stopped_stays_declared_and_is_not_started_with_its_gpu(down: Down) -> None:
    assert down.ask("Stop", name="ran")["vgpu"]["state"] == "down"
    down.probe()
    assert down.states() == {"ran": "stopped", "idle": "stopped"}


def test_one_that_a_living_process_holds_is_kept_unless_forced(down: Down) -> None:
    path = next(down.folder.rglob("ran.json"))
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    path.write_text(json.dumps({**down.stored("ran"), "claim": {"pid": os.getpid(), "started": started}}))
    with pytest.raises(VgpuInUse, match="VM web"):
        down.ask("Destroy", name="ran")
    down.ask("Destroy", name="ran", force=True)
    assert down.states() == {"idle": "down"}


def test_what_is_stopped_or_destroyed_is_told_in_the_log_with_its_vm(down: Down, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    down.ask("Stop", name="ran")
    down.ask("Destroy", name="ran", force=True)
    first, second = [record.getMessage() for record in caplog.records if record.name == "nvcore.client.vfio"]
    assert first == "vGPU ran (VM web) of GPU 0000:41:00.0, which hosts none now, was stopped"
    assert second == "vGPU ran (VM web) of GPU 0000:41:00.0, which hosts none now, was destroyed by force"


def test_while_its_gpu_comes_up_nothing_is_changed_behind_its_back(down: Down) -> None:
    seen: list[object] = []

    class Watched(FakeContext):
        def subscribe_vgpu(self, callback: Any) -> Any:  # a probe that takes its time
            seen.append(down.ask("List")["vgpus"][0]["reason"])
            with pytest.raises(NoFirmware, match=r"ran of GPU .* cannot be changed now.*coming up"):
                down.ask("Destroy", name="ran")
            return super().subscribe_vgpu(callback)

    client = down.probe(Watched)
    assert seen == ["its GPU is coming up"] and down.states() == {"ran": "running", "idle": "stopped"}
    client.remove()
    assert down.states() == {"ran": "down", "idle": "down"}
    down.ask("Destroy", name="idle")
    assert down.states() == {"ran": "down"}


def test_a_client_that_could_not_begin_leaves_them_and_no_reason_that_may_be_another_one_later(down: Down) -> None:
    context = FakeContext(down.folder)
    assert context.firmware is not None
    context.firmware.refuse = {"upload_types"}
    with pytest.raises(NvcoreError):
        down.driver.probe(context)  # type: ignore[arg-type]
    row = down.ask("List")["vgpus"][0]
    assert row["state"] == "down" and row["reason"].startswith("its GPU hosts no vGPUs now; nvcore gpus show")


def test_a_record_that_cannot_be_removed_is_still_declared_and_said(down: Down, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(NotStored, match="record of vGPU ran could not be removed"):
        down.ask("Destroy", name="ran")
    assert down.states() == {"ran": "down", "idle": "down"}


def test_the_panel_and_the_doctor_show_them(down: Down) -> None:
    (next(down.folder.rglob("ran.json")).parent / "bad.json").write_text("{")
    host = HostInfo("0", {}, "daemon", SYSTEM, shared={"driver": down.driver})
    (panel,) = operator.nvcore_status_panels(host)
    rows = panel.snapshot()
    assert [(row["name"], row["state"]) for row in rows] == [("ran", "down"), ("idle", "down")]
    assert all(row["reason"] for row in rows) and "reason" in [column[0] for column in panel.columns]
    (check,) = operator.nvcore_doctor_checks(host)
    first, second = check.run()
    assert (first.severity, first.code) == ("warning", "NVC-3005") and "down: idle, ran" in first.text
    assert "nvcore vgpu destroy" in (first.remedy or "") and "bad.json" in second.text


@pytest.mark.parametrize("address", ["0000:C1:00.0", "0000:c1:00.0", "0001F000:0a:1F.7"])
def test_records_are_found_under_an_address_as_its_bus_writes_it(tmp_path: Path, address: str) -> None:
    make(manager(FakeContext(tmp_path, address=address)), "one")
    driver = VfioDriver(None, tmp_path)
    assert [(row["gpu"], row["state"]) for row in driver.rows()] == [(address, "down")]
    driver.probe(FakeContext(tmp_path, address=address))  # type: ignore[arg-type]
    assert [(row["gpu"], row["state"]) for row in driver.rows()] == [(address, "running")]


def test_a_host_without_records_has_none_and_other_folders_are_not_looked_at(tmp_path: Path) -> None:
    assert VfioDriver(None, tmp_path / "none").rows() == VfioDriver().rows() == []
    (tmp_path / "lost+found").mkdir()
    assert VfioDriver(None, tmp_path).rows() == []


def test_the_records_are_looked_for_where_the_core_gives_clients_their_folder(tmp_path: Path) -> None:
    info = HostInfo("0", {}, "daemon", SYSTEM, state_dir=tmp_path / "plugins" / "vfio")
    made = manager(FakeContext(tmp_path / "clients" / "vfio"))
    make(made, "one", start=False)
    assert [row["name"] for row in plugin.driver(info).rows()] == ["one"]


def meanwhile(monkeypatch: pytest.MonkeyPatch, method: str, *changes: Any) -> None:
    """Each time that a manager's method was asked, and had its answer ready, something else happens."""
    asked, left = getattr(Manager, method), list(changes)

    def ask(self: Manager, *arguments: Any) -> Any:
        answer = asked(self, *arguments)
        if left:
            left.pop(0)()
        return answer

    monkeypatch.setattr(Manager, method, ask)


def test_a_gpu_that_comes_up_or_goes_down_during_a_look_is_told_of_once(down: Down, monkeypatch: pytest.MonkeyPatch) -> None:
    other = down.probe(address=OTHER)
    meanwhile(monkeypatch, "rows", down.probe, other.remove)
    assert down.states() == {"ran": "down", "idle": "down"} and len(down.driver.managers) == 2
    make(down.driver.managers[OTHER], "other")
    listed = [(row["name"], row["state"]) for row in down.ask("List")["vgpus"]]
    assert listed == [("ran", "running"), ("idle", "stopped"), ("other", "running")] and list(down.driver.managers) == [GPU]


def test_a_name_stays_taken_while_its_gpu_comes_up(down: Down, monkeypatch: pytest.MonkeyPatch) -> None:
    down.probe(address=OTHER)
    meanwhile(monkeypatch, "check_free", down.probe)
    with pytest.raises(VgpuExists, match="vGPU ran"):
        down.ask("Create", type="A100-4C", name="ran", gpu=OTHER)
    assert down.states() == {"ran": "running", "idle": "stopped"}


def test_a_record_that_cannot_be_used_keeps_its_name_also_while_its_gpu_is_down(down: Down) -> None:
    next(down.folder.rglob("ran.json")).write_text("{")
    for address in (OTHER, GPU):  # the record's own GPU comes up last
        down.probe(address=address)
        with pytest.raises(VgpuExists, match="there is a record of a vGPU ran that cannot be used"):
            down.ask("Create", type="A100-4C", name="ran", gpu=OTHER)
    assert down.states() == {"idle": "stopped"}


@pytest.mark.parametrize("name", ["../0000-41-00.0/ran", "a\0b"])
def test_a_name_that_could_be_no_file_s_is_looked_for_nowhere(down: Down, name: str) -> None:
    with pytest.raises(UsageError, match="not a name for a vGPU"):
        down.ask("Create", type="A100-4C", name=name)


def test_one_whose_gpu_came_up_since_it_was_looked_for_is_neither_started_nor_changed_behind_its_back(down: Down) -> None:
    holder = down.driver.holder("idle")
    down.probe()
    for ask in (holder.start, holder.stop, holder.destroy):
        with pytest.raises(NoFirmware, match="vGPU idle"):
            ask("idle")
    assert down.states() == {"ran": "running", "idle": "stopped"}


class Slow(FakeVgpu):
    """A firmware that does not answer one call before it is let go on."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.slow, self.asked, self.go_on = name, Event(), Event()

    def _call(self, name: str) -> None:
        super()._call(name)
        if name == self.slow:
            self.asked.set()
            assert self.go_on.wait(10)


@contextmanager
def slow_probe(down: Down, name: str) -> Iterator[tuple[FakeContext, Callable[[], BaseException | None]]]:
    """The context of a probe that hangs in a call of the firmware; and what ends it: it lets it go on, and tells what it raised."""
    firmware = Slow(name)
    context = FakeContext(down.folder, firmware=firmware)
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(down.driver.probe, context)  # type: ignore[arg-type]

        def end() -> BaseException | None:
            firmware.go_on.set()
            return probe.exception(10)

        try:
            assert firmware.asked.wait(10)
            yield context, end
        finally:
            firmware.go_on.set()


def test_a_probe_that_the_core_gave_up_keeps_the_records_from_nobody(down: Down) -> None:
    stale = {**down.stored("ran"), "claim": {"pid": 1, "started": 1}}
    next(down.folder.rglob("ran.json")).write_text(json.dumps(stale))
    with slow_probe(down, "upload_types") as (context, end):
        with pytest.raises(NoFirmware, match="coming up"):
            down.ask("Destroy", name="idle")
        context.ended = True
        assert "coming up" not in down.ask("List")["vgpus"][0]["reason"]
        down.ask("Destroy", name="idle")
        assert isinstance(end(), NoFirmware)
    assert down.states() == {"ran": "down"} and [grant.state for grant in context.grants] == ["released"]
    assert context.reports == [] and down.stored("ran") == stale  # it did nothing more for what was no more its own


@pytest.mark.parametrize("further", [False, True])
def test_a_probe_that_the_core_gave_up_makes_no_further_vgpu_again_and_leaves_nothing_behind(down: Down, further: bool) -> None:
    if further:
        next(down.folder.rglob("idle.json")).write_text(json.dumps({**down.stored("idle"), "autostart": True}))
    else:
        down.ask("Destroy", name="idle")
    with slow_probe(down, "bootload") as (context, end):
        context.ended = True
        assert isinstance(end(), NoFirmware)
    assert context.firmware.calls.count("bootload") == 1 and not any("idle" in text for text in context.reports)  # type: ignore[union-attr]
    assert not context.live and down.driver.managers == {} and set(down.states().values()) == {"down"}


def test_a_probe_that_the_core_gave_up_takes_nothing_from_the_next_one_when_it_ends(down: Down) -> None:
    with slow_probe(down, "upload_types") as (first, end_first):
        first.ended = True
        with slow_probe(down, "bootload") as (second, end_second):
            assert isinstance(end_first(), NoFirmware)
            with pytest.raises(NoFirmware, match=r"ran of GPU .* cannot be changed now.*coming up"):
                down.ask("Destroy", name="ran")
            assert end_second() is None
    assert down.driver.managers[GPU].context is second and down.states() == {"ran": "running", "idle": "stopped"}


@pytest.mark.parametrize("ended", [False, True])
def test_a_probe_that_the_core_gave_up_does_not_take_the_place_of_the_one_that_came_after_it(down: Down, ended: bool) -> None:
    with slow_probe(down, "bootload") as (first, end_first):
        first.ended = ended
        second = down.probe()
        assert isinstance(end_first(), NoFirmware)
    assert down.driver.managers[GPU].context is not first and down.states() == {"ran": "running", "idle": "stopped"}
    second.remove()
    assert down.states() == {"ran": "down", "idle": "down"}


def test_while_its_gpu_goes_down_they_are_told_so_and_not_changed(down: Down, monkeypatch: pytest.MonkeyPatch) -> None:
    client, end, seen = down.probe(), Manager.end, []

    def watched(self: Manager) -> None:
        seen.append(down.ask("List")["vgpus"][0]["reason"])
        with pytest.raises(NoFirmware, match=r"ran of GPU 0000:41:00\.0 cannot be changed now; seen its GPU is going down"):
            down.ask("Stop", name="ran")
        end(self)

    monkeypatch.setattr(Manager, "end", watched)
    client.remove()
    assert seen == ["its GPU is going down"] and down.stored("ran")["autostart"]


@pytest.mark.parametrize("what", ["driver", "shelf"])
def test_threads_that_ask_first_at_the_same_time_get_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    meet, answered = Barrier(2), Event()
    real: Callable[..., object] = {"driver": VfioDriver, "shelf": Shelf}[what]

    def build(*given: object) -> object:
        if meet.wait(10) == 1:  # this thread is in the middle of it until the other has its own, and works with it
            assert answered.wait(10)
        return real(*given)

    host, driver = HostInfo("0", {}, "daemon", SYSTEM, state_dir=tmp_path / "plugins" / "vfio"), VfioDriver(None, tmp_path)
    monkeypatch.setattr("nvcore_vfio.client.VfioDriver" if what == "driver" else "nvcore_vfio.shelf.Shelf", build)

    def ask() -> object:
        found = plugin.driver(host) if what == "driver" else driver.shelf
        answered.set()
        return found

    with ThreadPoolExecutor(2) as pool:
        one, two = [job.result(20) for job in [pool.submit(ask), pool.submit(ask)]]
    assert one is two is ask()
