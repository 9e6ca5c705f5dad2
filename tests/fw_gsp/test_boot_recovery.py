"""F01: a firmware found running is told apart: ours of an earlier run, somebody else's, and this run's own failed try."""

from __future__ import annotations

import errno
import shutil

import attrs
import pytest

from nvcore.api.errors import BootError
from nvcore.api.firmware import SavedState
from nvcore_fw_gsp.backend import GspBackend
from nvcore_fw_gsp.boot import wpr

from .soft import CASES, Bench, bench, synthetic_root
from .test_queue_rings import Clock


def leave_running(gpu: Bench) -> SavedState:
    """Boot, then lose the process: the device is closed without an unload, its host memory goes."""
    gpu.open()
    saved = gpu.saved[-1]
    gpu.device.close()
    gpu.device = gpu.bus.open(gpu.source)
    return saved


@pytest.mark.parametrize(("chip", "version"), [("ga100", "570.144"), ("ga100", "535.113.01"), ("gh100", "570.144")])
def test_an_earlier_run_of_ours_is_taken_down_and_the_boot_goes_on(chip, version):
    with bench(chip, version) as gpu:
        saved = leave_running(gpu)
        session = gpu.open(saved)
        detail = next(stage.detail for stage in session.report.stages if stage.name == "wpr2-precheck")
        assert "earlier run of this host" in detail and version in detail
        assert session.unload().clean


@pytest.mark.parametrize("chip", ["ga100", "gh100"])
def test_a_foreign_firmware_is_refused_and_not_touched(chip):
    with bench(chip, "570.144") as gpu:
        leave_running(gpu)
        before = gpu.device.model.view()
        gpu.device.model.trace(True)
        with pytest.raises(BootError) as caught:
            gpu.open(None)
        assert caught.value.report.code == "NVC-2120"
        writes = [offset for (offset, write), _ in gpu.device.model.trace(False).items() if write]
        assert writes == []
        assert gpu.device.model.view() == before


def test_another_place_of_the_region_is_not_ours():
    with bench("ga100", "570.144") as gpu:
        saved = leave_running(gpu)
        other = attrs.evolve(saved, data={**saved.data, "wpr_start": 0x100000})
        with pytest.raises(BootError) as caught:
            gpu.open(other)
        assert caught.value.report.code == "NVC-2120"


REGION = (0x7F000000, 0x7FF00000)
MATCHES = [("backend", "other"), ("chip", "GA102"), ("address", "0000:42:00.0"), ("boot", "an earlier start"), ("wpr_end", 0x7FE00000)]


@pytest.mark.parametrize("region", [REGION, None])
@pytest.mark.parametrize(("field", "value"), MATCHES)
def test_a_record_of_another_gpu_start_or_place_claims_nothing(region, field, value):
    saved = wpr.saved_state("GH100", "0000:41:00.0", "570.144", region, "/images")
    assert wpr.is_ours(saved, "GH100", "0000:41:00.0", REGION)
    changed = {"backend": value} if field == "backend" else {"data": {**saved.data, field: value}}
    if field != "wpr_end" or region is not None:
        assert not wpr.is_ours(attrs.evolve(saved, **changed), "GH100", "0000:41:00.0", REGION)


def test_a_record_without_a_place_needs_to_know_the_machine_s_start(monkeypatch):
    monkeypatch.setattr(wpr, "_BOOT_ID", "/nowhere")
    for region, ours in ((REGION, True), (None, False)):
        saved = wpr.saved_state("GH100", "0000:41:00.0", "570.144", region, "/images")
        assert wpr.is_ours(saved, "GH100", "0000:41:00.0", REGION) is ours


def test_a_gh100_record_of_an_earlier_start_leaves_a_running_firmware_alone():
    with bench("gh100", "570.144") as gpu:
        gpu.open().unload()
        first, second = gpu.saved  # written before the FMC had chosen a place, and after
        assert "wpr_start" not in first.data and second.data["wpr_start"] < second.data["wpr_end"]
        leave_running(gpu)
        before = gpu.device.model.view()
        report = gpu.backend.recover(gpu.context(attrs.evolve(first, data={**first.data, "boot": "an earlier start"})))
        assert not report.clean and "its driver must unload it" in report.cause and gpu.device.model.view() == before
        assert gpu.backend.recover(gpu.context(first)).clean


def test_recover_runs_the_saved_unload_and_starts_nothing():
    with bench("ga100", "570.144") as gpu:
        saved = leave_running(gpu)
        report = gpu.backend.recover(gpu.context(saved))
        assert report.clean and "booter-unload" in [stage.name for stage in report.stages]
        assert gpu.backend.recover(gpu.context(saved)).stages[0].outcome == "skipped"
        assert gpu.open().unload().clean


def test_a_rom_that_cannot_be_read_any_more_is_the_reason_told_for_its_part_of_the_unload():
    with bench("ga100", "570.144") as gpu:
        saved = leave_running(gpu)
        gpu.inspector.arm("vbios-missing")
        report = gpu.backend.recover(gpu.context(saved))
        stage = next(stage for stage in report.stages if stage.name == "fwsec-sb")
        assert report.clean and stage.outcome == "skipped" and "all ones" in stage.detail and "this chip" not in stage.detail


def test_a_file_of_the_saved_unload_that_is_damaged_is_the_cause_told_and_a_reset_does_the_rest(tmp_path):
    shutil.copytree(synthetic_root(), tmp_path, symlinks=True, dirs_exist_ok=True)
    with bench("ga100", "570.144", root=str(tmp_path)) as gpu:
        saved = leave_running(gpu)
        (booter,) = tmp_path.glob("ga100/gsp/booter_unload-570.144.bin")
        booter.unlink()
        booter.write_bytes(b"not a container")
        report = gpu.backend.recover(gpu.context(saved))
        assert report.clean and report.cause is not None and str(booter) in report.cause
        assert [stage.outcome for stage in report.stages if stage.name in ("unload-bundle", "region-down")] == ["failed", "ok"]


def test_without_files_it_is_only_said_whether_a_firmware_is_up(tmp_path):
    with bench("ga100", "570.144") as gpu:
        saved = leave_running(gpu)
        gpu.backend = GspBackend(lambda: [str(tmp_path)])
        report = gpu.backend.recover(gpu.context(saved))
        assert not report.clean and not report.needs_reset and "nothing to unload it with" in (report.cause or "")
        gpu.inspector.arm("all-ones:0x1FA828,read")
        report = gpu.backend.recover(gpu.context(saved))
        assert not report.clean and report.needs_reset and "WPR2_ADDR_HI" in (report.cause or "")


def test_recover_of_a_foreign_firmware_says_so_and_wants_no_reset_by_us():
    with bench("ga100", "570.144") as gpu:
        leave_running(gpu)
        report = gpu.backend.recover(gpu.context(None))
        assert not report.clean and not report.needs_reset and "its driver must unload it" in report.cause


def test_the_files_of_the_saved_version_do_it_even_when_another_version_is_booted_next():
    with bench("ga100", "535.113.01") as gpu:
        saved = leave_running(gpu)
        gpu.version = "570.144"
        session = gpu.open(saved)
        assert session.image.version == "570.144" and session.unload().clean


@pytest.mark.parametrize("chip", ["ga100", "gh100"])
def test_a_region_that_stays_up_is_reset_and_if_that_fails_the_report_says_needs_reset(chip):
    with bench(chip, "570.144") as gpu:
        session = gpu.open()
        gpu.inspector.arm("wpr2-left-up")
        report = session.unload()
        assert report.clean and next(s for s in report.stages if s.name == "region-down").detail == "gone after a function reset"
        session = gpu.open()
        gpu.inspector.arm("wpr2-left-up")
        gpu.inspector.arm("wpr2-left-up")
        report = session.unload()
        assert not report.clean and report.needs_reset and report.cause
        with pytest.raises(BootError) as caught:
            gpu.open(None)
        assert caught.value.report.code == "NVC-2120"


def test_an_exchange_with_the_fsp_that_nobody_saw_end_is_followed_by_a_reset_and_a_finished_one_is_not():
    with bench("gh100", "570.144", faults=["fsp-silent"]) as gpu:
        with pytest.raises(BootError) as caught:
            gpu.open()
        down = next(stage for stage in caught.value.report.stages if stage.name == "region-down")
        assert down.detail == "gone after a function reset"  # there is no region yet, and the FSP may still make one
        gpu.inspector.disarm()
        down = next(stage for stage in gpu.open().unload().stages if stage.name == "region-down")
        assert down.detail == "no protected region"


def test_the_first_cause_stays_the_cause_when_the_unload_fails_too():
    with bench("ga100", "570.144", faults=["init-status:0x65"]) as gpu:
        gpu.inspector.arm("wpr2-left-up")
        gpu.inspector.arm("wpr2-left-up")
        with pytest.raises(BootError) as caught:
            gpu.open()
        assert caught.value.report.cause.startswith("init-done") and "0x65" in caught.value.report.cause
        assert "needs a reset" in str(caught.value)


def test_after_device_gone_the_host_s_side_is_released():
    with bench("ga100", "570.144") as gpu:
        session = gpu.open()
        tenant = session.open_tenant("t")
        session.family("memory").create_space(tenant)
        gpu.inspector.arm("device-gone")
        report = session.unload()
        assert not report.clean and report.needs_reset
        assert next(s for s in report.stages if s.name == "release-host").outcome == "ok"
        assert session.objects() == {} and session.boot.memory.buffers == {}
        assert not tenant.open


@pytest.mark.parametrize(("chip", "register"), [("ga100", 0x100C10), ("gh100", 0x100A34)])
def test_a_device_that_leaves_before_anything_was_protected_is_gone_all_the_same(chip, register):
    with bench(chip, "570.144") as gpu:
        gpu.inspector.arm(f"device-gone:{register:#x},write")
        with pytest.raises(BootError) as caught:
            gpu.open()
        report = caught.value.report
        assert report.cause.startswith("flush-page") and report.code == "NVC-5001"
        assert not report.unload.clean and report.unload.needs_reset
        assert next(stage for stage in report.stages if stage.name == "region-proof").outcome == "skipped"


def refuse(*_: object) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("chip", ["ga100", "gh100"])
def test_a_reset_that_the_system_refuses_is_told_and_the_host_s_side_is_released(chip, monkeypatch):
    with bench(chip, "570.144") as gpu:
        session = gpu.open()
        gpu.inspector.arm("wpr2-left-up")
        monkeypatch.setattr(gpu.device, "reset", refuse)
        report = session.unload()
        outcomes = {stage.name: stage.outcome for stage in report.stages}
        assert outcomes["region-down"] == "failed" and outcomes["stop-dma"] == outcomes["release-host"] == "ok"
        assert not report.clean and report.needs_reset and "Input/output error" in report.cause and "NVC-2136" in report.cause
        assert session.boot.memory.buffers == {} and not gpu.inspector.view()["bus_master"]


@pytest.mark.parametrize(("after", "clean"), [(4.9, True), (5.1, False)])
def test_after_a_reset_a_region_may_take_five_seconds_to_go(after, clean, monkeypatch):
    clock = Clock()
    with bench("ga100", "570.144", clock=clock, scale=1.0) as gpu:
        session, values = gpu.open(), gpu.card.model.registers.values
        gpu.inspector.arm("wpr2-left-up")
        monkeypatch.setattr(gpu.device, "reset", lambda: None)
        clock.on_sleep.append(lambda: values.__setitem__(0x1FA828, 0) if clock.time >= after else None)
        report = session.unload()
        assert report.clean is clean and report.needs_reset is not clean
        outcomes = {stage.name: stage.outcome for stage in report.stages}
        assert outcomes["region-down"] == outcomes["region-proof"] == ("ok" if clean else "failed")


def test_a_firmware_of_ours_that_cannot_be_taken_down_is_not_booted_over():
    with bench("ga100", "570.144") as gpu:
        saved = leave_running(gpu)
        gpu.inspector.arm("wpr2-left-up")
        gpu.inspector.arm("wpr2-left-up")
        with pytest.raises(BootError) as caught:
            gpu.open(saved)
        report = caught.value.report
        assert (report.code, report.cause.partition(":")[0]) == ("NVC-2121", "wpr2-precheck") and "could not be taken down" in report.cause
        assert gpu.inspector.view()["wpr2"]


def test_dma_that_cannot_be_stopped_is_a_device_that_needs_a_reset(monkeypatch):
    with bench("ga100", "570.144") as gpu:
        session = gpu.open()
        monkeypatch.setattr(gpu.device, "set_bus_master", refuse)
        report = session.unload()
        assert not report.clean and report.needs_reset and "Input/output error" in report.cause
        assert [stage.name for stage in report.stages if stage.outcome == "failed"] == ["stop-dma"]


@pytest.mark.parametrize(("after", "boots"), [(1.9, True), (2.1, False)])
def test_a_region_that_a_reset_has_taken_down_may_take_two_seconds_to_go(after, boots):
    clock = Clock()
    with bench("ga100", "570.144", clock=clock, scale=1.0) as gpu:
        values = gpu.card.model.registers.values
        values[0x1FA824], values[0x1FA828] = 0x7F0000, 0x7FF000
        clock.on_sleep.append(lambda: values.__setitem__(0x1FA828, 0) if clock.time >= after else None)
        if boots:
            stage = next(stage for stage in gpu.open().report.stages if stage.name == "wpr2-precheck")
            assert "went" in stage.detail
        else:
            with pytest.raises(BootError) as caught:
                gpu.open()
            assert caught.value.report.code == "NVC-2120"


def test_a_refusal_while_booting_is_a_named_state(monkeypatch):
    with bench("ga100", "570.144") as gpu:
        device = gpu.device
        monkeypatch.setattr(device, "set_bus_master", lambda enabled: refuse() if enabled else None)
        with pytest.raises(BootError) as caught:
            gpu.open()
        assert (caught.value.report.code, caught.value.report.stages[-1].outcome) == ("NVC-2136", "ok")
        failed = next(stage for stage in caught.value.report.stages if stage.outcome == "failed")
        assert failed.name == "flush-page" and "Input/output error" in failed.detail


def test_a_bug_in_an_unload_s_stage_passes_through_and_leaves_no_memory_and_no_dma(monkeypatch):
    with bench("ga100", "570.144") as gpu:
        session = gpu.open()
        gpu.inspector.arm("wpr2-left-up")
        monkeypatch.setattr(gpu.device, "reset", lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            session.unload()
        assert session.boot.memory.buffers == {} and not gpu.inspector.view()["bus_master"]


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_a_record_that_cannot_be_written_fails_the_boot_with_its_path_and_leaves_nothing_running(chip, version):
    with bench(chip, version) as gpu:

        class Full(list):
            def append(self, saved):
                raise OSError(errno.ENOSPC, "No space left on device", "/state/gpus/card.json")

        gpu.saved = Full()
        with pytest.raises(BootError, match=r"record that a later start needs.*No space left on device: /state/gpus/card.json.*make room"):
            gpu.open()
        gpu.saved = []
        gpu.open().unload()
        assert gpu.violations() == []
