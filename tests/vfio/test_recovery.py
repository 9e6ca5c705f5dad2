"""Crashes, faults and resets: one that failed stays failed until somebody starts it; the others come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nvcore.api.events import Fault, Rung, VgpuPluginEvent
from nvcore_vfio.client import VfioClient, VfioDriver
from nvcore_vfio.errors import BringUpFailed
from nvcore_vfio.manager import Manager

from .fake import GPU, FakeContext, FakeVgpu
from .test_manager import make, manager


def states(made: Manager) -> dict[str, str]:
    return {row["name"]: row["state"] for row in made.rows()}


def two(folder: Path) -> tuple[FakeContext, Manager]:
    context = FakeContext(folder)
    made = manager(context)
    make(made, "one")
    make(made, "two")
    return context, made


def crash(context: FakeContext, function: int) -> None:
    for told in context.subscribers:
        told(VgpuPluginEvent(function, "crashed"))


def test_one_that_crashed_stays_failed_when_the_gpu_goes_on_with_its_memory(tmp_path: Path) -> None:
    context, made = two(tmp_path)
    crash(context, 1)
    made.recovery.quiesce("channel-fault")
    assert states(made) == {"one": "failed", "two": "suspended"}
    made.recovery.resume("kept")
    assert states(made) == {"one": "failed", "two": "running"}
    assert len(context.live) == context.leases == 2 and made.pool.kept == {}  # it keeps what it has until somebody looks
    made.recovery.quiesce("channel-fault")
    crash(context, 2)
    made.recovery.resume("kept")
    assert states(made)["two"] == "failed"


def test_one_that_crashed_stays_failed_over_a_reset_and_has_nothing_then(tmp_path: Path) -> None:
    context, made = two(tmp_path)
    crash(context, 1)
    made.recovery.on_fault(Fault(Rung.GPU, "firmware-halt", "NVC-2003", GPU.address, 1))
    made.recovery.quiesce("gpu-reset")
    context.firmware = FakeVgpu()
    made.recovery.resume("lost")
    assert states(made) == {"one": "failed", "two": "running"}
    assert context.firmware.calls == ["upload_types", "bootload", "configure"]  # of the other one
    assert set(context.firmware.tasks) == {2} and len(context.live) == context.leases == 1
    assert "crashed" in made.rows()[0]["reason"]


def test_a_start_of_one_that_crashed_takes_it_down_first(tmp_path: Path) -> None:
    context, made = two(tmp_path)
    crash(context, 1)
    context.firmware.calls.clear()  # type: ignore[union-attr]
    assert made.start("one")["state"] == "running"
    assert context.firmware.calls == ["shutdown", "cleanup", "bootload", "configure"]  # type: ignore[union-attr]
    assert len(context.live) == context.leases == 2


def test_a_task_that_crashes_while_it_is_brought_up_is_no_running_vgpu(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)

    class Crashing(FakeVgpu):
        def configure(self, task: int, spec: Any) -> str:
            crash(context, 1)
            return super().configure(task, spec)

    context.firmware = Crashing()
    made = manager(context)
    with pytest.raises(BringUpFailed, match="crashed"):
        make(made, "one")
    assert not context.live and context.firmware.tasks == {}
    make(made, "two", start=False)
    with pytest.raises(BringUpFailed, match="crashed") as caught:
        made.start("two")
    assert "nvcore vgpu start" in (caught.value.remedy or "") and "nothing is declared" not in (caught.value.remedy or "")


@pytest.mark.parametrize("verb", ["destroy", "stop"])
def test_a_crash_that_is_told_late_is_not_that_of_the_next_task_on_its_function(tmp_path: Path, verb: str) -> None:
    context, made = two(tmp_path)
    on_its_way = list(context.subscribers)
    for name in ("one", "two"):
        getattr(made, verb)(name)
        made.start(name) if verb == "stop" else make(made, name)
    for told in on_its_way:
        told(VgpuPluginEvent(1, "crashed"))
    assert states(made) == {"one": "running", "two": "running"}
    crash(context, 1)
    assert states(made) == {"one": "failed", "two": "running"}


def test_a_crash_before_a_reset_that_is_told_late_is_not_that_of_the_task_after_it(tmp_path: Path) -> None:
    context, made = two(tmp_path)
    on_its_way = list(context.subscribers)
    made.recovery.quiesce("gpu-reset")
    context.firmware = FakeVgpu()
    made.recovery.resume("lost")
    for told in on_its_way:
        told(VgpuPluginEvent(1, "crashed"))
    assert states(made) == {"one": "running", "two": "running"} and len(context.subscribers) == 2


def test_the_types_are_told_again_to_a_firmware_that_was_started_anew(tmp_path: Path) -> None:
    context, made = two(tmp_path)
    told = context.firmware.types  # type: ignore[union-attr]
    made.recovery.quiesce("gpu-reset")
    context.firmware = FakeVgpu()
    made.recovery.resume("lost")
    assert context.firmware.calls[0] == "upload_types" and context.firmware.types == told != []


def test_types_that_are_refused_after_a_reset_fail_every_vgpu_with_the_reason_and_not_the_client(tmp_path: Path) -> None:
    context, made = two(tmp_path)
    made.recovery.quiesce("gpu-reset")
    context.firmware = FakeVgpu()
    context.firmware.refuse = {"upload_types"}
    made.recovery.resume("lost")
    assert states(made) == {"one": "failed", "two": "failed"} and not context.live
    assert all("upload_types refused" in row["reason"] for row in made.rows())


def test_the_reset_of_one_grant_brings_up_its_vgpu_alone(tmp_path: Path) -> None:
    context, made = two(tmp_path)
    hit = context.live[0]
    made.recovery.on_fault(Fault(Rung.GRANT, "channel-stuck", "NVC-5011", GPU.address, 1, grant=hit.name))
    made.recovery.quiesce("grant-reset")
    assert set(states(made).values()) == {"suspended"}
    firmware = context.firmware
    assert firmware is not None
    del firmware.tasks[1]  # went with its grant's root
    firmware.calls.clear()
    made.recovery.resume("lost")
    assert states(made) == {"one": "running", "two": "running"} and firmware.calls == ["bootload", "configure"]


@pytest.mark.parametrize("rung", Rung)
def test_a_fault_marks_the_vgpus_that_it_hits_and_no_other(tmp_path: Path, rung: Rung) -> None:
    context, made = two(tmp_path)
    client = VfioClient(VfioDriver(), made)
    client.on_fault(Fault(rung, "something", "NVC-5011", GPU.address, 1, grant=context.live[1].name))
    hit = {Rung.GRANT: {"two"}, Rung.GPU: {"one", "two"}, Rung.LOST: {"one", "two"}}.get(rung, set())
    assert states(made) == {name: "suspended" if name in hit else "running" for name in ("one", "two")}
    assert {row["reason"] for row in made.rows() if row["name"] in hit} <= {"something"}
    client.quiesce("gpu-reset", 0.0, 1)
    assert set(states(made).values()) == {"suspended"}
    client.resume("kept", 1)
    assert set(states(made).values()) == {"running"}


def test_a_grant_s_reset_without_a_fault_of_a_vgpu_is_nobody_s_of_them(tmp_path: Path) -> None:
    context, made = two(tmp_path)
    assert context.firmware is not None
    context.firmware.calls.clear()
    made.recovery.quiesce("grant-reset")
    made.recovery.resume("lost")
    assert set(states(made).values()) == {"running"} and context.firmware.calls == []


@pytest.mark.parametrize(
    ("call", "asked"), [("bootload", ["bootload"]), ("configure", ["bootload", "configure", "shutdown", "cleanup"])]
)
def test_what_does_not_come_back_is_told_with_its_cause_and_has_nothing(tmp_path: Path, call: str, asked: list[str]) -> None:
    context, made = two(tmp_path)
    made.recovery.quiesce("gpu-reset")
    context.firmware = FakeVgpu()
    context.firmware.refuse = {call}
    made.recovery.resume("lost")
    assert states(made) == {"one": "failed", "two": "failed"} and not context.live and not context.leases
    assert all(f"{call} refused" in row["reason"] for row in made.rows())
    assert context.firmware.calls == ["upload_types", *asked, *asked]  # and nothing of the tasks that went with their firmware
    assert [text.partition(":")[0] for text in context.reports[-2:]] == ["one did not come back", "two did not come back"]
