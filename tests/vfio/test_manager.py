"""vGPUs are declared, started, stopped, made again; whatever fails, the books balance."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nvcore.api.errors import FormatError, NvcoreError, UsageError, WaitTimeout
from nvcore.api.events import Fault, Rung, VgpuPluginEvent
from nvcore_vfio.declared import Declared, check_name
from nvcore_vfio.errors import BringUpFailed, NoCapacity, PinnedMismatch, UnknownVgpu, VgpuExists, VgpuInUse
from nvcore_vfio.manager import Manager
from nvcore_vfio.placement import room
from nvcore_vfio.types import TYPES, channels_per_vgpu, misfit, no_types, types_for

from .fake import MIB, FakeContext, FakeVgpu

KIND = TYPES[0]


def manager(context: FakeContext, limit: int | None = None) -> Manager:
    made = Manager(context, limit, nullcontext)  # type: ignore[arg-type]
    made.begin()
    return made


def make(made: Manager, name: str | None = None, vm: str | None = None, start: bool = True) -> dict[str, Any]:
    return made.create("A100-4C", name=name, vm=vm, start=start)


def test_a_created_vgpu_has_its_own_memory_channels_and_function(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    first, second = make(made, "one", vm="web"), make(made, "two")
    assert (first["state"], second["state"]) == ("running", "running")
    assert {first["slot"], second["slot"]} == {0, 1} and {first["function"], second["function"]} == {1, 2}
    specs = context.firmware.tasks  # type: ignore[union-attr]
    assert specs[1].framebuffer[0].size == 3776 * MIB
    assert specs[1].heap.start == specs[1].framebuffer[0].end and specs[1].heap.size == 64 * MIB  # whole segments
    assert all(piece.start % (64 * MIB) == 0 for spec in specs.values() for piece in (*spec.framebuffer, spec.heap))
    assert [grant.scrubbed for grant in context.live] == [[*specs[n].framebuffer, specs[n].heap] for n in (1, 2)]


def test_channels_are_split_in_powers_of_two_from_the_top_down(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    assert not any(grant.request.power_of_two_channels for grant in context.grants)  # of all together
    runs = [tuple(make(made)["channels"]) for _ in range(10)]
    assert runs == [(2048 - 128 * (n + 1), 128) for n in range(10)]
    assert all(grant.request.power_of_two_channels for grant in context.live)
    assert all(grant.request.top_down for grant in context.grants)
    assert channels_per_vgpu(10) == 128 and channels_per_vgpu(1) == 2048 and channels_per_vgpu(32) == 64


def test_list_and_create_agree_about_room_down_to_the_last_slot(tmp_path: Path) -> None:
    made = manager(FakeContext(tmp_path))
    for left in range(10, 0, -1):
        assert made.capacity()[0]["left"] == left
        make(made)
    assert made.capacity()[0]["left"] == 0
    with pytest.raises(NoCapacity, match="all 10 slots") as caught:
        make(made)
    assert caught.value.remedy == "destroy a vGPU"


def test_one_bad_function_is_left_out_with_its_reason_and_spoils_nothing(tmp_path: Path) -> None:
    context = FakeContext(tmp_path, functions=3)
    context.unreadable = {1}
    made = manager(context)
    assert made.capacity()[0]["left"] == 2
    assert [make(made)["function"] for _ in range(2)] == [2, 3]
    assert "VF 1 does not answer" in (made.capacity()[0]["reason"] or "")
    with pytest.raises(NoCapacity) as caught:
        make(made)
    assert caught.value.remedy == "destroy a vGPU, or nvcore gpus reset GPU, for what cannot be used"


def test_another_size_does_not_mix_in_equal_size_mode() -> None:
    here = room(KIND, places=[(0, 1)], sizes={8}, pool=10, functions=16, unusable={}, kept={})
    assert here.left == 0 and "one size" in (here.reason or "") and "destroy those first" in here.remedy


@pytest.mark.parametrize(("chip", "gib", "kinds"), [("GA100", 40, ["A100-4C"]), ("GA100", 39, []), ("GH100", 80, [])])
def test_a_type_is_one_of_its_chip_and_of_memory_that_is_large_enough(chip: str, gib: int, kinds: list[str]) -> None:
    assert [kind.name for kind in types_for(chip, gib << 30)] == kinds
    assert (misfit(KIND, chip, gib << 30) is None) == ("A100-4C" in kinds) and (no_types(chip, gib << 30) is None) == bool(kinds)


def test_a_gpu_that_no_type_fits_is_told_with_what_is_needed_and_what_it_has(tmp_path: Path) -> None:
    assert no_types("GA100", (40 << 30) - 1) == "A100-4C needs a GPU with 40 GiB of memory, and this one has 39.9 GiB"  # never "40"
    assert no_types("GH100", 80 << 30) == "no vGPU type of GH100 is known"
    assert misfit(KIND, "GH100", 80 << 30) == "A100-4C is a type of GA100, and the GPU is a GH100"
    made = manager(FakeContext(tmp_path, memory=8 << 30))
    assert made.capacity() == []
    with pytest.raises(NoCapacity, match="needs a GPU with 40 GiB of memory, and this one has 8 GiB") as caught:
        make(made)
    assert "destroy" not in (caught.value.remedy or "") and "nvcore vgpu types" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("places", "unread", "kept", "remedy"),
    [
        ([], 0, {1: "x"}, "nvcore gpus reset GPU, for what cannot be used"),
        ([(0, 1)], 1, {}, "mend the records that cannot be read (`nvcore doctor` names them)"),
        ([(0, 1)], 0, {}, "destroy a vGPU"),
        ([(0, 1)], 0, {1: "x"}, "destroy a vGPU, or nvcore gpus reset GPU, for what cannot be used"),
    ],
)
def test_what_helps_is_what_keeps_the_room(
    places: list[tuple[int | None, int | None]], unread: int, kept: dict[int, str], remedy: str
) -> None:
    here = room(KIND, places=places, sizes=(), pool=1, functions=1, unusable={}, kept=kept, unread=unread)
    assert (here.left, here.remedy) == (0, remedy)


def test_a_pool_of_none_says_that_there_is_no_memory(tmp_path: Path) -> None:
    made = manager(FakeContext(tmp_path, functions=0))
    assert made.capacity()[0] | {"bring_up": ""} == {
        "type": "A100-4C", "left": 0, "reason": "no memory is set aside for vGPUs", "bring_up": "",
    }  # fmt: skip
    with pytest.raises(NoCapacity, match="set aside") as caught:
        make(made)
    assert "destroy" not in (caught.value.remedy or "")


@pytest.mark.parametrize("call", ["bootload", "configure"])
def test_a_refused_bring_up_gives_everything_back_and_declares_nothing(tmp_path: Path, call: str) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    make(made, "stays")
    context.firmware.refuse = {call}  # type: ignore[union-attr]
    with pytest.raises(BringUpFailed, match=call) as caught:
        make(made, "fails")
    assert "nothing is declared" in (caught.value.remedy or "")
    assert [row["name"] for row in made.rows()] == ["stays"]
    assert len(context.live) == 1 and context.leases == 1 and set(context.firmware.tasks) == {1}  # type: ignore[union-attr]
    assert [path.stem for path in tmp_path.rglob("*.json")] == ["stays"]


@pytest.mark.parametrize("call", ["shutdown", "cleanup"])
def test_a_step_down_that_fails_is_told_and_the_others_still_run(tmp_path: Path, call: str) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    make(made, "one")
    context.firmware.refuse = {call}  # type: ignore[union-attr]
    assert call in (made.stop("one")["reason"] or "")
    assert {"shutdown", "cleanup"} <= set(context.firmware.calls)  # type: ignore[union-attr]
    assert not context.live and not context.leases


def test_the_order_up_and_down_is_the_documented_one(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    make(made, "one")
    made.stop("one")
    assert context.firmware.calls == ["upload_types", "bootload", "configure", "shutdown", "cleanup"]  # type: ignore[union-attr]


def test_declared_vgpus_are_made_again_after_a_restart_in_their_old_places(tmp_path: Path) -> None:
    before = manager(FakeContext(tmp_path))
    rows = [make(before, name) for name in ("one", "two", "three")]
    before.destroy("two")
    before.stop("three")
    after = manager(FakeContext(tmp_path))
    now = {row["name"]: row for row in after.rows()}
    assert set(now) == {"one", "three"}
    assert (now["one"]["state"], now["three"]["state"]) == ("running", "stopped")
    for row in (rows[0], rows[2]):
        assert {key: now[row["name"]][key] for key in ("uuid", "slot", "function", "machine")} == {
            key: row[key] for key in ("uuid", "slot", "function", "machine")
        }


def test_a_vgpu_pinned_to_another_firmware_is_not_started_and_says_why(tmp_path: Path) -> None:
    make(manager(FakeContext(tmp_path)), "one")
    path = next(tmp_path.rglob("one.json"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "firmware": "535.113.01"}))
    context = FakeContext(tmp_path)
    after = manager(context)
    row = after.rows()[0]
    assert row["state"] == "failed" and "535.113.01" in row["reason"] and "570.144" in row["reason"]
    assert not context.live
    with pytest.raises(PinnedMismatch):
        after.start("one")


def test_a_claim_that_outlives_its_process_goes_at_the_next_start_with_an_event(tmp_path: Path) -> None:
    made = manager(FakeContext(tmp_path))
    make(made, "one", vm="web")
    with subprocess.Popen(["sleep", "60"]) as holder:
        made.start("one", pid=holder.pid)
        with pytest.raises(VgpuInUse, match=f"process {holder.pid}"):
            made.stop("one")
        with pytest.raises(VgpuInUse):
            made.destroy("one")
        with pytest.raises(VgpuInUse):
            made.start("one", pid=os.getpid())
        holder.kill()
        holder.wait()
    context = FakeContext(tmp_path)
    after = manager(context)
    assert after.rows()[0]["claim_pid"] is None
    assert any("stale" in text for text in context.reports)
    after.destroy("one")


def test_a_number_used_again_by_another_process_is_not_the_claim(tmp_path: Path) -> None:
    made = manager(FakeContext(tmp_path))
    make(made, "one")
    made.start("one", pid=os.getpid())
    path = next(tmp_path.rglob("one.json"))
    record = json.loads(path.read_text())
    record["claim"]["started"] -= 1
    path.write_text(json.dumps(record))
    assert manager(FakeContext(tmp_path)).rows()[0]["claim_pid"] is None


def test_force_takes_a_held_vgpu_down(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    make(made, "one")
    made.start("one", pid=os.getpid())
    made.destroy("one", force=True)
    assert not made.rows() and not context.live


def test_foreign_and_damaged_files_are_named_and_left_alone(tmp_path: Path) -> None:
    make(manager(FakeContext(tmp_path)), "good")
    folder = next(tmp_path.rglob("good.json")).parent
    (folder / "notes.txt").write_text("x")
    (folder / "sub").mkdir()
    (folder / "bad.json").write_text("{")
    (folder / "other.json").write_text((folder / "good.json").read_text())
    context = FakeContext(tmp_path)
    after = manager(context)
    assert [row["name"] for row in after.rows()] == ["good"]
    assert sorted(Path(error.where or "").name for error in after.damaged) == ["bad.json", "other.json"]
    assert (folder / "bad.json").read_text() == "{"


@pytest.mark.parametrize("name", ["", "a/b", "../x", "x" * 64, "a b", "-x", "a\n", "\x1b[31m", "ä"])
def test_names_that_are_unsafe_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


@settings(max_examples=80)
@given(
    st.one_of(
        st.text(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda x: st.dictionaries(
                st.sampled_from(
                    [
                        "schema",
                        "name",
                        "uuid",
                        "type",
                        "slot",
                        "function",
                        "machine",
                        "firmware",
                        "vm",
                        "autostart",
                        "claim",
                        "pid",
                        "started",
                    ]
                ),
                x,
            ),
        ).map(json.dumps),
    )
)
def test_arbitrary_records_raise_only_the_declared_error(text: str) -> None:
    try:
        Declared.parse(text, "here")
    except FormatError as error:
        assert error.where == "here"


def test_taken_unknown_and_wrong_names_are_told_apart(tmp_path: Path) -> None:
    made = manager(FakeContext(tmp_path))
    make(made, "one")
    with pytest.raises(VgpuExists):
        make(made, "one")
    with pytest.raises(UnknownVgpu, match="one"):
        made.stop("two")
    with pytest.raises(UsageError):
        made.start("one", pid=2**22 + 1)


def test_after_a_gpu_reset_every_running_vgpu_comes_back_in_its_old_place(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    make(made, "one")
    make(made, "two")
    old = dict(context.firmware.tasks)  # type: ignore[union-attr]
    made.recovery.on_fault(Fault(Rung.GPU, "firmware-halt", "NVC-2003", "0000:41:00.0", 1))
    assert {row["state"] for row in made.rows()} == {"suspended"}
    made.recovery.quiesce("gpu-reset")
    context.firmware = FakeVgpu()
    made.recovery.resume("lost")
    assert context.firmware.tasks == old
    assert {row["state"] for row in made.rows()} == {"running"}
    assert context.leases == 2


def test_a_task_that_crashed_fails_its_vgpu_alone_and_a_stop_makes_the_slot_usable_again(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    make(made, "one", vm="web")
    make(made, "two")
    for told in context.subscribers:
        told(VgpuPluginEvent(1, "guest driver loaded"))
        told(VgpuPluginEvent(1, "crashed"))
        told(VgpuPluginEvent(9, "crashed"))
    assert {row["name"]: row["state"] for row in made.rows()} == {"one": "failed", "two": "running"}
    assert sum("crashed" in text for text in context.reports) == 1
    made.stop("one")
    assert made.start("one")["state"] == "running"
    made.end()
    assert context.subscribers == []


def test_one_vgpu_that_does_not_come_back_is_failed_and_the_other_runs(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    make(made, "one")
    make(made, "two")
    made.recovery.quiesce("gpu-reset")

    class Once(FakeVgpu):
        def bootload(self, tenant: object, spec: Any, heap: object) -> int:
            self.refuse = {"bootload"} if spec.function == 1 else set()
            return super().bootload(tenant, spec, heap)

    context.firmware = Once()
    made.recovery.resume("lost")
    assert {row["name"]: row["state"] for row in made.rows()} == {"one": "failed", "two": "running"}
    assert len(context.live) == 1 and context.leases == 1


def test_a_dead_firmware_is_not_asked_when_everything_goes(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    make(made, "one")
    context.firmware = None
    made.end()
    assert not context.live and not context.leases and context.grants[0].state == "released"


class LifeCycle(RuleBasedStateMachine):
    """Any order of operations, with refusals, crashes and resets: what the firmware has, what is granted or in quarantine, and what is
    shown, are the same set."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.context = FakeContext(Path(self.folder.name), functions=5)
        self.made = manager(self.context, 4)
        self.names: set[str] = set()
        self.crashed: set[str] = set()

    @rule(name=st.sampled_from("abcdef"), start=st.booleans(), refuse=st.sampled_from([None, None, "bootload", "configure"]))
    def create(self, name: str, start: bool, refuse: str | None) -> None:
        self.context.firmware.refuse = {refuse} if refuse else set()  # type: ignore[union-attr]
        try:
            offered = self.made.capacity()[0]["left"]
            make(self.made, name, start=start)
            assert name not in self.names and offered and not (start and refuse)
            self.names.add(name)
        except (VgpuExists, NoCapacity, BringUpFailed) as error:
            assert {VgpuExists: name in self.names, NoCapacity: not offered, BringUpFailed: bool(start and refuse)}[type(error)]
        self.context.firmware.refuse = set()  # type: ignore[union-attr]

    @precondition(lambda self: self.names)
    @rule(data=st.data(), verb=st.sampled_from(["start", "stop", "destroy"]), refuse=st.sampled_from([None, None, "shutdown", "cleanup"]))
    def act(self, data: st.DataObject, verb: str, refuse: str | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.names)))
        self.context.firmware.refuse = {refuse} if refuse else set()  # type: ignore[union-attr]
        try:
            getattr(self.made, verb)(name)
            if verb == "destroy":
                self.names.discard(name)
        except NoCapacity:
            assert verb == "start" and self.made.pool.kept
        self.crashed.discard(name)
        self.context.firmware.refuse = set()  # type: ignore[union-attr]

    @precondition(lambda self: self.made.functions_running())
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        function = data.draw(st.sampled_from(sorted(self.made.functions_running())))
        self.crashed |= {row["name"] for row in self.made.rows() if row["function"] == function}
        for told in self.context.subscribers:
            told(VgpuPluginEvent(function, "crashed"))

    @rule()
    def reset(self) -> None:
        self.made.recovery.quiesce("gpu-reset")
        self.context.firmware = FakeVgpu()
        self.made.recovery.resume("lost")
        assert not self.made.pool.kept and self.made.capacity()[0]["left"] == 4 - len(self.names)

    @rule()
    def restart(self) -> None:
        self.made.end()
        assert not self.context.live
        self.crashed.clear()
        self.context = FakeContext(Path(self.folder.name), functions=5)
        self.made = manager(self.context, 4)

    @invariant()
    def books_balance(self) -> None:
        rows = self.made.rows()
        started = self.made.functions_running()
        assert {row["name"] for row in rows} == self.names
        assert not self.crashed & {row["name"] for row in rows if row["state"] != "failed"}
        assert {row["function"] for row in rows if row["state"] == "running"} <= started
        assert started | self.made.pool.kept.keys() == set(self.context.firmware.tasks)  # type: ignore[union-attr]
        assert not started & self.made.pool.kept.keys()
        assert len(self.context.live) == self.context.leases == len(started)
        assert len({row["slot"] for row in rows}) == len({row["function"] for row in rows}) == len(rows)

    def teardown(self) -> None:
        self.folder.cleanup()


LifeCycle.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestLifeCycle = LifeCycle.TestCase


def test_every_error_of_this_plugin_is_an_nvcore_error_with_its_own_code() -> None:
    import nvcore_vfio.errors as errors

    kinds = [getattr(errors, name) for name in errors.__all__ if name not in ("taken", "told")]
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes) and all(code.startswith("NVC-3") for code in codes)
    assert all(issubclass(kind, NvcoreError) for kind in kinds)


def test_every_operation_is_told_with_the_vm_it_is_for(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    told: list[tuple[str, str | None, str | None]] = []
    context.report = lambda kind, text, *, vm=None, action=None, code=None: told.append((text, vm, action))  # type: ignore[method-assign]
    made = manager(context)
    make(made, "one", vm="web")
    make(made, "two", start=False)
    made.stop("one")
    made.stop("one", force=True)
    made.destroy("one")
    made.destroy("two", force=True)
    assert told == [
        ("one (A100-4C) created", "web", "started"), ("two (A100-4C) created", None, "declared"), ("one stopped", "web", None),
        ("one stopped", "web", "forced"), ("one destroyed", "web", None), ("two destroyed", None, "forced"),
    ]  # fmt: skip


def test_a_problem_on_the_way_down_is_told_though_everything_came_back(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    make(made, "one")
    context.firmware.refuse = {"shutdown"}  # type: ignore[union-attr]
    made.stop("one")
    assert any(text.startswith("one was taken down with a problem: shutdown refused") for text in context.reports)


def test_an_answer_that_does_not_come_says_of_which_gpu(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)

    def late(call: object, *, timeout: float) -> object:
        raise WaitTimeout("late", expected=f"within {timeout:g} s", seen="nothing")

    context.run = late  # type: ignore[method-assign,assignment]
    with pytest.raises(WaitTimeout, match=r"0000:41:00\.0.*within 180 s.*goes on: `nvcore vgpu list` shows how it ended"):
        make(made, "one")
    with pytest.raises(WaitTimeout, match="within 10 s") as caught:  # the doctor's question, which changes nothing
        made.firmware_tasks()
    assert "nvcore doctor again" in (caught.value.remedy or "")


def test_the_firmware_is_told_the_type_in_its_own_words(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    manager(context)
    (spec,) = context.firmware.types  # type: ignore[union-attr]
    assert (spec.type_id, spec.name, spec.max_instances, spec.profile_size) == (468, "A100-4C", 10, 4 << 30)
    assert (spec.framebuffer, spec.mappable, spec.reserved, spec.bar1_size) == (3776 * MIB, 3776 * MIB, 320 * MIB, 4096 * MIB)
    assert spec.extra == {"gsp_heap_size": 40 * MIB}


def test_one_that_is_started_is_started_again_and_one_that_is_stopped_is_not(tmp_path: Path) -> None:
    made = manager(FakeContext(tmp_path))
    make(made, "one", start=False)
    assert manager(FakeContext(tmp_path)).rows()[0]["state"] == "stopped"
    made.start("one")
    again = manager(FakeContext(tmp_path))
    assert again.rows()[0]["state"] == "running"
    again.stop("one")
    assert manager(FakeContext(tmp_path)).rows()[0]["state"] == "stopped"


def test_of_two_steps_down_that_fail_the_first_is_the_cause(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    made = manager(context)
    make(made, "one")
    context.firmware.refuse = {"shutdown", "cleanup"}  # type: ignore[union-attr]
    assert "shutdown refused" in (made.stop("one")["reason"] or "")


def test_a_type_that_no_release_knows_says_where_the_types_are_listed(tmp_path: Path) -> None:
    with pytest.raises(NvcoreError, match=r"no vGPU type 'X'; expected A100-4C; seen X; nvcore vgpu types lists"):
        manager(FakeContext(tmp_path)).create("X", name=None, vm=None, start=False)
