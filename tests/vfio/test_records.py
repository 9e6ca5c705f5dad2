"""Records on disk: one that cannot be used spoils no other, keeps its name and its place, and is never overwritten."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import attrs
import pytest

from nvcore.api.errors import NotFoundError
from nvcore.testing.clock import VirtualClock
from nvcore_vfio.claims import Claim, living
from nvcore_vfio.errors import NoFirmware, NotStored, UnusableRecord, VgpuExists
from nvcore_vfio.operator import VfioConfig

from .fake import MIB, FakeContext, FakeVgpu
from .test_manager import make, manager


def changed(folder: Path, name: str, **values: Any) -> Path:
    """A record like that of "good", which is made first, with other values."""
    if not list(folder.rglob("good.json")):
        manager(made := FakeContext(folder)).create("A100-4C", name="good", vm=None, start=True)
        assert made.live
    good = next(folder.rglob("good.json"))
    path = good.with_name(f"{name}.json")
    path.write_text(json.dumps({**json.loads(good.read_text()), "name": name, "slot": 3, "function": 4, **values}))
    return path


def test_a_type_of_another_release_is_one_failed_vgpu_and_spoils_nothing(tmp_path: Path) -> None:
    path = changed(tmp_path, "newer", type="A100-8C")
    made = manager(FakeContext(tmp_path))
    rows = {row["name"]: row for row in made.rows()}
    assert (rows["good"]["state"], rows["newer"]["state"]) == ("running", "failed")
    assert "A100-8C" in rows["newer"]["reason"] and rows["newer"]["framebuffer_bytes"] is None
    assert made.capacity()[0]["left"] == 8
    assert [make(made)["function"] for _ in range(3)] == [2, 3, 5]
    with pytest.raises(UnusableRecord, match="A100-8C"):
        made.start("newer")
    assert made.stop("newer")["state"] == "failed"
    made.stop("good")
    made.destroy("newer")
    assert not path.exists() and "newer" not in {row["name"] for row in made.rows()}
    with pytest.raises(NotFoundError):
        made.create("A100-8C", name=None, vm=None, start=True)


@pytest.mark.parametrize("values", [{"slot": -5}, {"slot": 10**30}, {"function": 0}, {"function": -1}, {"function": 10**30}])
def test_a_place_that_no_gpu_has_is_a_damaged_record(tmp_path: Path, values: dict[str, int]) -> None:
    changed(tmp_path, "odd", **values)
    made = manager(FakeContext(tmp_path))
    assert [row["name"] for row in made.rows()] == ["good"] and len(made.damaged) == 1
    assert str(next(iter(values.values()))) in str(made.damaged[0].seen)


@pytest.mark.parametrize(
    ("values", "said"),
    [({"slot": 10}, "slot 10"), ({"slot": 11}, "slot 11"), ({"function": 17}, "function 17"), ({"slot": 0}, "that of good"),
     ({"function": 1}, "that of good")],
)  # fmt: skip
def test_a_place_that_this_gpu_has_not_or_that_is_taken_is_a_failed_vgpu_with_the_reason(
    tmp_path: Path, values: dict[str, int], said: str
) -> None:
    changed(tmp_path, "odd", **values)
    context = FakeContext(tmp_path)
    made = manager(context)
    rows = {row["name"]: row for row in made.rows()}
    assert rows["odd"]["state"] == "failed" and said in rows["odd"]["reason"] and rows["good"]["state"] == "running"
    with pytest.raises(UnusableRecord):
        made.start("odd")
    made.destroy("odd")
    assert made.rows()[0]["state"] == "running" and len(context.live) == 1


@pytest.mark.parametrize("text", ['{"schema": "nvcore.vgpu-declared/1", "slot": 1, "function": 2, "name": "pre', "{", "", "\xff"])
def test_a_damaged_record_keeps_its_name_and_what_can_be_read_of_its_place(tmp_path: Path, text: str) -> None:
    path = changed(tmp_path, "web")
    path.write_bytes(text.encode("latin-1"))
    made = manager(FakeContext(tmp_path))
    assert made.capacity()[0]["left"] == 8
    with pytest.raises(VgpuExists, match="web"):
        make(made, "web")
    row = make(made, "other")
    assert (row["slot"], row["function"]) == ((2, 3) if "slot" in text else (1, 2))
    assert path.read_bytes() == text.encode("latin-1")


def test_a_claim_of_a_process_that_waits_for_its_parent_is_stale(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as holder:
        claim = Claim.of(holder.pid)
        assert living(claim)
        holder.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        assert not living(claim)


def test_the_end_of_a_stale_claim_is_written_back(tmp_path: Path) -> None:
    path = changed(tmp_path, "held", claim={"pid": 2**22 + 1, "started": 1})
    manager(FakeContext(tmp_path))
    assert "claim" not in json.loads(path.read_text())


def unwritable(made: Any) -> None:
    made._store.folder.rename(made._store.folder.with_name("gone"))


def test_a_start_that_cannot_be_recorded_is_undone_and_says_so(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    make(made, "one", start=False)
    unwritable(made)
    with pytest.raises(NotStored, match="one"):
        made.start("one", pid=os.getpid())
    row = made.rows()[0]
    assert row["state"] == "failed" and "could not be written" in row["reason"] and row["claim_pid"] is None
    assert not context.live and context.firmware.tasks == {}  # type: ignore[union-attr]


def test_a_creation_that_cannot_be_recorded_is_undone(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    unwritable(made)
    with pytest.raises(NotStored):
        make(made, "one")
    assert made.rows() == [] and not context.live


def test_a_stop_that_cannot_be_recorded_is_a_stop_and_says_so(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    make(made, "one")
    unwritable(made)
    with pytest.raises(NotStored, match=r"one was stopped, but its record.*started again after a restart.*nvcore vgpu stop one"):
        made.stop("one")
    assert made.rows()[0]["state"] == "stopped" and not context.live


def test_without_a_firmware_every_operation_fails_by_name_and_leaves_nothing(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    make(made, "off", start=False)
    context.firmware = None
    for call in (lambda: make(made, "one"), lambda: made.start("off"), made.firmware_tasks):
        with pytest.raises(NoFirmware):
            call()
    assert [row["name"] for row in made.rows()] == ["off"] and not context.live
    assert [path.stem for path in tmp_path.rglob("*.json")] == ["off"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, AttributeError])
def test_whatever_interrupts_a_creation_unwinds_it(tmp_path: Path, error: type[BaseException]) -> None:
    class Interrupted(FakeVgpu):
        def configure(self, task: int, spec: Any) -> str:
            raise error

    context = FakeContext(tmp_path, firmware=Interrupted())
    made = manager(context)
    with pytest.raises(error):
        make(made, "one")
    assert made.rows() == [] and not context.live and not context.leases
    assert context.firmware.tasks == {} and made.pool.kept == {}  # type: ignore[union-attr]


def test_the_framebuffer_is_whole_segments_rounded_down(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    context.inventory = attrs.evolve(context.inventory, vmmu_segment=512 * MIB)
    make(manager(context), "one")
    spec = context.firmware.tasks[1]  # type: ignore[union-attr]
    assert [piece.size for piece in spec.framebuffer] == [3584 * MIB] and spec.heap.size == 512 * MIB


def test_a_number_of_vgpus_below_zero_is_refused() -> None:
    assert VfioConfig(0).vgpus_per_gpu == 0
    with pytest.raises(ValueError, match="vgpus_per_gpu of 0 or more, not -1"):
        VfioConfig(-1)


def test_the_time_of_a_start_is_what_the_clock_says(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    clock = VirtualClock(1000.0)
    context.clock = clock
    now = time.time()
    made = manager(context)
    first = make(made, "one")["started_at"]
    clock.advance(3600.0)
    assert make(made, "two")["started_at"] - first == pytest.approx(3600.0) and abs(first - now) < 60


@pytest.mark.parametrize(
    ("values", "said"),
    [({"schema": "nvcore.vgpu-declared/2"}, "of another kind"), ({"slot": True}, "bad slot"), ({"function": 1.0}, "bad function"),
     ({"autostart": 1}, "bad autostart"), ({"vm": 5}, "bad vm"), ({"claim": 5}, "bad claim"), ({"claim": {"pid": 1}}, "bad claim"),
     ({"claim": {"pid": True, "started": 1}}, "bad claim"), ({"name": "../x"}, "bad name")],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_a_damaged_record_that_names_it(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    path = changed(tmp_path, "odd")
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    made = manager(FakeContext(tmp_path))
    assert [(said in error.what, error.where) for error in made.damaged] == [(True, str(path))]
    path.write_text("[]")
    assert "another kind" in manager(FakeContext(tmp_path)).damaged[0].what


def test_a_record_that_cannot_be_used_is_told_once_and_not_tried(tmp_path: Path) -> None:
    changed(tmp_path, "newer", type="A100-8C")
    context = FakeContext(tmp_path)
    manager(context)
    (told,) = [text for text in context.reports if "newer" in text]
    assert told == "newer cannot be made again: its type A100-8C is not known for this GPU"


def test_a_record_is_whole_on_the_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(number: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        steps.append(path.name if path.is_dir() else f"{path.name} {json.loads(path.read_text())['name']}")
        sync(number)

    made = manager(FakeContext(tmp_path))
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", lambda self, to: (steps.append(f"{self.name} → {Path(to).name}"), replace(self, to))[1])
    make(made, "one")
    assert steps == ["one.new one", "one.new → one.json", "0000-41-00.0"]
    steps.clear()
    made.destroy("one")
    assert steps == ["0000-41-00.0"]


def test_a_vgpu_whose_record_somebody_removed_can_be_destroyed(tmp_path: Path) -> None:
    made = manager(FakeContext(tmp_path))
    make(made, "one")
    next(tmp_path.rglob("one.json")).unlink()
    assert made.destroy("one")["state"] == "destroyed" and made.rows() == []


def test_while_one_goes_up_or_down_its_state_says_so(tmp_path: Path) -> None:
    seen: list[str] = []

    class Watched(FakeVgpu):
        def _call(self, name: str) -> None:
            seen.extend(f"{name} {row['state']}" for row in made.rows())
            super()._call(name)

    context = FakeContext(tmp_path)
    made = manager(context)
    context.firmware = Watched()
    make(made, "one")
    made.stop("one")
    assert seen == ["bootload starting", "configure starting", "shutdown stopping", "cleanup stopping"]


def test_the_last_place_of_a_gpu_is_a_place(tmp_path: Path) -> None:
    changed(tmp_path, "last", slot=9, function=16)
    made = manager(FakeContext(tmp_path))
    assert {row["name"]: row["state"] for row in made.rows()} == {"good": "running", "last": "running"}


def test_records_that_are_written_and_removed_leave_no_descriptor(tmp_path: Path) -> None:
    made = manager(FakeContext(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        make(made, "one")
        made.destroy("one")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    changed(tmp_path, "bad").write_text("{")
    context = FakeContext(tmp_path)
    manager(context)
    assert [text for text in context.reports if "bad.json" in text and "no JSON" in text]


def test_a_creation_whose_record_may_not_outlive_a_power_cut_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = manager(FakeContext(tmp_path))
    monkeypatch.setattr(made._store, "_sync", lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(NotStored, match="No space"):
        make(made, "one")
    assert list(tmp_path.rglob("one.*")) == [] and made.rows() == []
