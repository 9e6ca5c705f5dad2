"""Field cases F01, F02 and F10, on the model, through a whole host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nvcore.api.errors import FirmwareDead, NvcoreError
from nvcore.api.firmware import UnloadReport
from nvcore.testing.clock import VirtualClock
from tests.boots.rig import CASES, Slot, SlotHost, differences, leftovers, slot, until
from tests.boots.test_tenants import moving, two_tenants

SCALE = 0.02


_hosts: list[SlotHost] = []


@pytest.fixture(autouse=True)
def no_host_stays() -> Iterator[None]:
    yield
    while _hosts:
        _hosts.pop().stop()


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def card(request: pytest.FixtureRequest) -> Iterator[Slot]:
    with slot(*request.param) as made:
        yield made


def up(card: Slot, folder: Path, scale: float = 1.0) -> SlotHost:
    host = card.host(folder, card.settings(scale))
    _hosts.append(host)
    host.host.start()
    host.settle()
    return host


def dies(host: SlotHost) -> None:
    """The host's process ends without a word: no unload, its memory goes, its firmware runs on."""
    assert host.gpu.hardware is not None
    host.gpu.hardware.session._unloaded = UnloadReport((), clean=False, cause="the process died")  # type: ignore[attr-defined]
    host.stop()
    assert host.slot.inspector.view()["wpr2"]


def said(host: SlotHost) -> str:
    return " / ".join(event.text for event in host.host.events.since() if event.kind == "boot")


# F01: left running


def test_what_an_earlier_run_of_this_host_left_is_taken_down_and_the_boot_goes_on(card: Slot, tmp_path: Path) -> None:
    first = up(card, tmp_path)
    assert first.gpu.state.name == "running"
    dies(first)
    second = up(card, tmp_path)
    assert second.gpu.state.name == "running", second.gpu.state.cause
    assert "an earlier boot left" in said(second)
    assert differences(second) == []
    assert second.stop() == [] and leftovers(card.inspector.view()) == []


def test_every_second_run_works_as_well_as_every_first(card: Slot, tmp_path: Path) -> None:
    for _ in range(4):
        host = up(card, tmp_path)
        assert host.gpu.state.name == "running", host.gpu.state.cause
        dies(host)


def test_a_foreign_drivers_firmware_is_named_and_not_touched_until_an_operator_resets(card: Slot, tmp_path: Path) -> None:
    dies(up(card, tmp_path / "foreign"))
    inspector = card.inspector
    before = inspector.view()
    inspector.trace(True)
    host = up(card, tmp_path / "ours", SCALE)
    writes = [hex(offset) for offset, write in inspector.trace(False) if write]
    state = host.gpu.state
    assert (state.name, state.code) == ("failed", "NVC-2120") and "did not start" in str(state.cause) and "reset" in str(state.remedy)
    assert writes == [] and inspector.view() == before
    host.host.reset(card.source)
    assert host.settle() == "running", host.gpu.state.cause
    assert host.stop() == []


def test_the_next_step_waits_until_a_reset_has_taken_the_region_down(card: Slot, tmp_path: Path) -> None:
    dies(up(card, tmp_path / "foreign"))
    host = up(card, tmp_path / "ours", SCALE)
    assert host.gpu.state.code == "NVC-2120"
    host.host.settings.gpus[card.source].time_scale = 1.0
    card.inspector.arm("wpr2-lingers:0.15")
    host.host.reset(card.source)
    assert host.settle() == "running", host.gpu.state.cause
    assert "wpr2-lingers" in card.inspector.faults_acted()
    assert host.stop() == []


def test_an_unload_that_needs_a_reset_waits_for_it_too(card: Slot, tmp_path: Path) -> None:
    host = up(card, tmp_path)
    card.inspector.arm("wpr2-left-up")
    card.inspector.arm("wpr2-lingers:0.15")
    assert host.stop() == []
    report = host.gpu.unload_report
    assert report is not None and report.clean, report
    down = next(stage for stage in report.stages if stage.name == "region-down")
    assert down.outcome == "ok" and "reset" in down.detail and down.seconds >= 0.1
    assert leftovers(card.inspector.view()) == []


def test_this_runs_own_failed_try_keeps_its_first_cause_and_a_retry_works(card: Slot, tmp_path: Path) -> None:
    for fault in ("init-status:0x65", "wpr2-left-up", "wpr2-left-up"):
        card.inspector.arm(fault)
    host = up(card, tmp_path, SCALE)
    state = host.gpu.state
    assert state.name == "failed" and state.code != "NVC-2120"
    assert "0x65" in str(host.gpu.boot_report.cause) and "init-done" in str(host.gpu.boot_report.cause)  # type: ignore[union-attr]
    assert "came up with an error" in str(state.cause) and "protected region" not in str(state.cause).split("needs a reset")[0]
    host.host.retry(card.source)
    assert host.settle() == "running", host.gpu.state.cause
    assert differences(host) == []
    assert host.stop() == [] and leftovers(card.inspector.view()) == []


# F02: a wait ends


@pytest.mark.parametrize(
    ("chip", "fault", "stage", "register", "logs"),
    [
        ("ga100", "gfw-never", "gfw", "GFW_PROGRESS", None),
        ("ga100", "booter-halt", "booter-load", "SEC2.CPUCTL", "never written"),
        ("ga100", "riscv-inactive", "riscv-active", "GSP.RISCV_CORE_SWITCH_STATUS", "never written"),
        ("ga100", "no-init-done", "init-done", None, "words written"),
        ("gh100", "gfw-never", "gfw", "FSP_BOOT_COMPLETE", None),
        ("gh100", "fsp-silent", "chain-of-trust", "FSP_MSGQ_HEAD", "never written"),
        ("gh100", "lockdown-stuck", "lockdown", "GSP.HWCFG2", "words written"),  # the firmware runs behind its lockdown
        ("gh100", "no-init-done", "init-done", None, "words written"),
    ],
)
def test_a_wait_that_ends_says_where_how_long_what_was_last_seen_and_whether_the_log_was_ever_written(
    tmp_path: Path, chip: str, fault: str, stage: str, register: str | None, logs: str | None
) -> None:
    with slot(chip, "570.144") as card:
        card.inspector.arm(fault)
        host = up(card, tmp_path, SCALE)
        report = host.gpu.boot_report
        assert host.gpu.state.name == "failed" and report is not None
        failed = next(row for row in report.stages if row.outcome == "failed")
        assert failed.name == stage and "within" in failed.detail, failed
        if register is not None:
            assert register in failed.registers, failed.registers
        if logs is not None:
            assert report.logs and any(logs in text for text in report.logs.values()), report.logs
            assert logs == "words written" or not any("words written" in text for text in report.logs.values())
        if chip == "ga100" and stage not in ("gfw",):
            assert "ROM" in next(row.detail for row in report.stages if row.name == "unload-bundle")
        assert str(host.gpu.state.cause) and host.gpu.state.remedy
        assert host.stop() == [] and leftovers(card.inspector.view()) == []


# F10: a dead firmware, late answers


def test_after_a_death_every_call_fails_at_once_with_the_first_cause(tmp_path: Path) -> None:
    with two_tenants(tmp_path, VirtualClock(100.0, limit=30.0)) as pair:
        a, clock = pair.a, pair.clock
        errors: list[tuple[str, float]] = []

        def ask() -> None:
            started = clock.now()
            for _ in range(3):
                try:
                    a.grant.create_space()
                except FirmwareDead as error:
                    errors.append((str(error.seen), clock.now() - started))

        pair.host.a.hooks["quiesce"] = ask
        session = pair.session
        pair.inspector.arm("gsp-halt@rpc")
        with pytest.raises(FirmwareDead):
            pair.host.b.tenant.grant.create_space()
        before = pair.inspector.view()["gsp"]["functions"]
        pair.halt_reaches_both()
        until(lambda: len(errors) == 3, "the calls fail")
        assert len({cause for cause, _ in errors}) == 1 and all(spent == 0 for _, spent in errors)
        assert session.dead and pair.inspector.view()["gsp"]["functions"] == before, "it was asked nothing more"
        pair.running(2)
        pair.works()


@pytest.mark.parametrize("version", ["570.144", "535.113.01"])
def test_a_late_answer_is_drained_and_never_taken_for_the_next_calls(tmp_path: Path, version: str) -> None:
    clock = VirtualClock(100.0, limit=30.0)
    with slot("ga100", version, clock=clock) as card:
        host = card.host(tmp_path, card.settings(quiesce=5.0, call=120.0))
        moving(clock, host.host.start)
        try:
            a = host.a.tenant
            card.inspector.arm("rpc-delay:35")  # the limit of a call is 30 s
            errors: list[NvcoreError] = []

            def late() -> None:
                try:
                    a.grant.create_space()
                except NvcoreError as error:
                    errors.append(error)

            moving(clock, late, step=0.5)
            assert [error.code for error in errors] == ["NVC-2212"]
            spaces: list[object] = []
            moving(clock, lambda: spaces.append(a.grant.create_space()), step=0.5)
            assert spaces, "the next call has its own answer"
            texts = [event.text for event in host.host.events.since() if event.kind == "firmware-message"]
            assert any(text.startswith("late-answer") for text in texts), texts
            found: list[str] = []
            moving(clock, lambda: found.extend(differences(host)))
            assert found == [] and host.gpu.state.name == "running" and host.gpu.generation == 1
        finally:
            moving(clock, host.stop)
        assert leftovers(card.inspector.view()) == []
