"""A GPU's life: up, down, and every way in which an arrow fails."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import attrs
import pytest

from nvcore.api.client import Function, FunctionKind
from nvcore.api.errors import ConflictError, NotFoundError, WaitTimeout
from nvcore.api.grant import GrantRequest
from nvcore.api.needs import NO_NEEDS
from nvcore.gpu.life import Gpu
from nvcore.gpu.settings import GpuSettings, HostSettings
from nvcore.host import Host
from nvcore.testing.fakes import FakeBus, FakeGpu, fake_bus
from nvcore.testing.firmware import fake_firmware
from nvcore.testing.toys import toy_client
from tests.core.conftest import Rig, until

ENDS = [asyncio.CancelledError("one"), KeyboardInterrupt("two"), SystemExit(3)]
ENDINGS = pytest.mark.parametrize("raised", ENDS, ids=lambda error: type(error).__name__)


def test_a_host_without_gpus_starts_and_stops() -> None:
    host = Host().start()
    assert host.gpus == () and host.doctor() == [] and host.stop() == []


def test_two_tenants_run_and_leave_nothing_behind(rig: Rig) -> None:
    host = rig.start()
    assert rig.gpu.state.name == "running"
    assert {f.kind: f.owner for f in host.functions} == {"vgpu": "toy-a", "graphics": "toy-b", "display": None}
    rig.doctor_ok()
    assert rig.session.objects() == {"client": 2, "space": 2, "channel": 2}
    fence = rig.a.tenant.bind(3, 0x55)
    assert fence.wait(5.0) and fence.error is None
    assert rig.a.tenant.submit() and rig.fake.doorbells == [rig.a.tenant.channel.doorbell._token]
    json.dumps(host.describe())
    assert host.stop() == []
    assert rig.states()[-2:] == ["unloading", "released"]
    assert not rig.fake.opened and not rig.fake.firmware_running and not rig.fake.buffers
    assert [what for what, _ in rig.a.tenant.journal] == ["remove"]


def test_clients_leave_in_reverse_order_and_the_firmware_after_them(rig: Rig) -> None:
    order: list[str] = []
    rig.a.hooks["remove"] = lambda: order.append("a")
    rig.b.hooks["remove"] = lambda: order.append("b")
    host = rig.start()
    rig.session.gpu.log.clear()
    host.stop()
    assert order == ["b", "a"]
    assert rig.fake.log[-1] == "unload" or "unload" in rig.fake.log


def test_what_a_client_left_behind_is_taken_down_by_the_core(rig: Rig) -> None:
    rig.a.leave_behind = True
    host = rig.start()
    host.withdraw("toy-a")
    rig.doctor_ok()
    assert rig.session.objects() == {"client": 1, "space": 1, "channel": 1}
    assert next(f for f in host.functions if f.kind == "vgpu").owner is None
    rows = {row.kind: row for row in rig.gpu.hardware.ledger.rows()}
    assert rows["vram"].owned == 4 << 20 and rows["vram"].quarantined == 0


def test_a_client_that_is_withdrawn_while_it_is_asked_does_not_come_all_the_same(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer, match = threading.Event(), threading.Event(), rig.a.match

    def slow(function: Function) -> bool:
        asked.set()
        return answer.wait(5.0) and match(function)

    monkeypatch.setattr(rig.a, "match", slow)
    starting = threading.Thread(target=rig.start)
    starting.start()
    assert asked.wait(5.0)
    leaving = threading.Thread(target=rig.host.withdraw, args=("toy-a",))
    leaving.start()
    until(lambda: rig.host.clients == (rig.offer_b,), "its offer is gone")
    leaving.join(0.05)
    answer.set()
    starting.join(5.0)
    leaving.join(5.0)
    assert {f.kind: f.owner for f in rig.host.functions} == {"vgpu": None, "graphics": "toy-b", "display": None}
    rig.doctor_ok()


def test_a_client_that_is_withdrawn_leaves_the_gpus_that_answer_and_the_host_says_which_does_not(rig: Rig) -> None:
    rig.fakes.append(FakeGpu("fake:two", address="0000:f1:00.0"))
    host = rig.start()
    rig.settings.call, release = 0.1, threading.Event()
    host.gpus[1].life.post(lambda: release.wait(10.0), "keeps the life-cycle thread")
    with pytest.raises(WaitTimeout, match=r"stop of toy-a on 0000:f1:00\.0"):
        host.withdraw("toy-a")
    assert [one.name for one in host.gpus[0].attachments] == ["toy-b"]
    release.set()
    until(lambda: [one.name for one in host.gpus[1].attachments] == ["toy-b"], "it leaves when its turn comes")
    host.stop()
    host.withdraw("toy-b")


def test_what_a_gpu_runs_on_is_not_withdrawn_from_under_it(rig: Rig) -> None:
    rig.fakes.append(FakeGpu("fake:two", address="0000:f1:00.0"))
    rig.firmware.plugin = "firmware-plugin"
    host = rig.start()
    for plugin in ("firmware-plugin", "fake"):
        with pytest.raises(ConflictError, match=f"plugin {plugin} cannot be stopped: GPU 0000:f0:00.0 is running on it; .* -p no:{plugin}"):
            host.withdraw(plugin)
    rig.doctor_ok()
    assert all(gpu.state.name == "running" and len(gpu.attachments) == 2 for gpu in host.gpus), "and nothing was done"


def test_a_backend_that_no_gpu_runs_on_can_be_withdrawn_and_is_chosen_no_more(rig: Rig) -> None:
    rig.fake.faults.arm("boot-fails:the ROM is empty")
    host = rig.start()
    with pytest.raises(ConflictError, match=r"GPU 0000:f0:00\.0 is failed on it"):
        host.withdraw("fake")  # it holds the device open
    host.withdraw(rig.firmware.name)
    host.retry("fake:one")
    assert rig.gpu.state.name == "unsupported" and len(rig.backend.sessions) == 0


def test_a_bus_that_no_gpu_uses_is_closed_when_it_is_withdrawn_and_not_once_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[tuple[object, ...]] = []
    monkeypatch.setattr(FakeBus, "close", lambda bus: closed.append(tuple(bus._callbacks)))
    rig.fake.leave()  # no device is opened, only the bus
    host = rig.start()
    host.withdraw("fake")
    assert closed == [()], "it told nobody any more when it was closed"
    host.retry("fake:one")
    assert rig.gpu.state.name == "failed" and "no bus serves" in str(rig.gpu.state.cause)
    host.stop()
    assert len(closed) == 1


def test_one_gpu_that_fails_does_not_touch_the_other(rig: Rig) -> None:
    rig.fakes.append(FakeGpu("fake:two", address="0000:f1:00.0"))
    rig.fake.faults.arm("boot-fails:the ROM is empty")
    host = rig.start()
    one, two = host.gpus
    assert (one.state.name, two.state.name) == ("failed", "running")
    assert "did not start" in one.state.cause and one.state.code == "NVC-2100" and one.state.remedy == "retry"
    assert one.boot_report.cause == "the ROM is empty"
    host.retry("fake:one")
    assert one.state.name == "running" and two.generation == 1


def test_an_unknown_source_and_a_missing_bus_are_states_with_a_remedy(rig: Rig) -> None:
    host = Host(["fake:none", "pci:0000:01:00.0", "fata:one"], buses=[fake_bus(rig.fake)], config=HostSettings(boot=5)).start()
    try:
        assert [gpu.state.name for gpu in host.gpus] == ["failed", "failed", "failed"]
        assert host.gpus[1].state.remedy == "devices on the PCI bus are not driven yet; schemes that are served: fake"
        remedy = "name a device of a scheme that is served (fake), or install the device plugin that serves fata"
        assert (host.gpus[2].state.code, host.gpus[2].state.remedy) == ("NVC-1002", remedy)
        with pytest.raises(NotFoundError, match=r"expected fake:none, pci:0000:01:00\.0, fata:one; nvcore gpus lists them"):
            host.gpu("nobody")
    finally:
        host.stop()


def test_two_backends_for_one_chip_are_a_reported_conflict(rig: Rig) -> None:
    second, _ = fake_firmware("TU102", name="stranger")
    rig.backends.append(second)
    rig.start()
    assert rig.gpu.state.name == "failed" and "fake-firmware" in rig.gpu.state.cause and "stranger" in rig.gpu.state.cause
    assert rig.gpu.state.code == ConflictError.code and "select only one" in rig.gpu.state.remedy


@pytest.mark.parametrize("named", ["stranger", "its-plugin"])
def test_the_operator_can_choose_between_two_backends(rig: Rig, named: str) -> None:
    second, backend = fake_firmware("TU102", name="stranger")
    second.plugin = "its-plugin"
    rig.backends.append(second)
    rig.settings.gpus["fake:one"] = GpuSettings(backend=named)
    rig.start()
    assert rig.gpu.state.name == "running" and len(backend.sessions) == 1


def test_a_backend_that_the_operator_names_and_that_is_not_there_is_named_with_those_that_are(rig: Rig) -> None:
    rig.settings.gpus["fake:one"] = GpuSettings(backend="nobody")
    rig.start()
    assert rig.gpu.state.name == "failed" and "no backend 'nobody' that drives TU102; expected fake-firmware" in rig.gpu.state.cause


def test_a_chip_that_no_backend_drives_is_unsupported(rig: Rig) -> None:
    rig.backends[:] = [fake_firmware("GA100")[0]]
    rig.start()
    assert rig.gpu.state.name == "unsupported" and "TU102" in rig.gpu.state.cause


def test_two_clients_for_one_function_are_a_conflict_and_none_gets_it(rig: Rig) -> None:
    offer, _ = toy_client("toy-c", "graphics")
    rig.clients.append(offer)
    host = rig.start()
    assert rig.gpu.state.name == "running"
    assert next(f for f in host.functions if f.kind == "graphics").owner is None
    assert "toy-b and toy-c" in rig.gpu.conflicts[0]


def test_a_need_that_comes_too_late_leaves_the_function_unpublished_with_a_remedy(rig: Rig) -> None:
    rig.clients[:] = [rig.offer_b]
    host = rig.start()
    vgpu = next(f for f in host.functions if f.kind == "vgpu")
    assert not vgpu.published and "not booted as a vGPU host" in vgpu.reason and vgpu.remedy


@pytest.mark.parametrize("kind", ["vgpu", "display"])
def test_where_a_client_was_asked_and_needs_nothing_no_reset_is_the_remedy(rig: Rig, kind: FunctionKind) -> None:
    rig.clients[:] = [toy_client("idle", kind, needs=NO_NEEDS)[0]]
    functions = {function.kind: function for function in rig.start().functions}
    for function in (functions["vgpu"], functions["display"]):
        asked = function.kind == kind
        assert not function.published and ("gpus reset" in str(function.remedy)) != asked
        assert (function.reason == "no selected client has use for vGPUs of TU102") == (asked and kind == "vgpu")


def test_a_probe_that_raises_leaves_its_function_free_and_the_books_balanced(rig: Rig) -> None:
    usual, rig.a.request = rig.a.request, GrantRequest("too much", vram=1 << 40)
    host = rig.start()
    assert rig.gpu.state.name == "running"
    assert "NVC" not in host.problems["toy-a"] and "vram" in host.problems["toy-a"]
    assert next(f for f in host.functions if f.kind == "vgpu").owner is None
    rig.doctor_ok()
    (told,) = [finding for finding in host.doctor() if finding.severity == "note"]
    assert "vgpu is not driven by toy-a: probe failed: " in told.text and "vram" in told.text and "gpus reset" in str(told.remedy)
    rig.a.request = usual
    host.reset(rig.gpu.name)
    assert [finding for finding in host.doctor() if finding.severity == "note"] == []


def test_a_firmware_that_our_last_process_left_is_taken_down_by_its_saved_unload(rig: Rig) -> None:
    rig.start()
    saved = list((rig.folder / "gpus").iterdir())
    assert len(saved) == 1
    text = saved[0].read_text()
    rig.host.stop()
    assert not saved[0].exists()
    rig.fake.firmware_running = True
    saved[0].write_text(text)
    rig.start()
    assert rig.gpu.state.name == "running" and "saved unload" in rig.fake.log


def test_a_firmware_that_somebody_else_left_is_named_and_not_touched(rig: Rig) -> None:
    rig.fake.firmware_running = True
    rig.start()
    assert rig.gpu.state.name == "failed" and rig.gpu.boot_report.cause == "a firmware runs already"
    assert "saved unload" not in rig.fake.log and "device reset" not in rig.fake.log


def test_a_device_that_leaves_is_lost_and_a_retry_finds_it_again(rig: Rig) -> None:
    host = rig.start()
    lease = rig.a.tenant.tables
    host._opened["bus", "fake"].remove("fake:one")
    until(lambda: rig.gpu.state.name == "lost", "lost")
    assert not lease.valid and rig.a.tenant.faults[0].rung.value == "lost"
    assert [what for what, _ in rig.a.tenant.journal] == ["on_fault", "quiesce gpu-lost", "remove"]
    rig.fake._gone = False
    rig.fake.firmware_running = False
    host.retry("fake:one")
    assert rig.gpu.state.name == "running"


@pytest.mark.parametrize("what", ["hardware", "boot_report"])
def test_a_gpu_can_be_looked_at_while_it_is_taken_down(rig: Rig, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host = rig.start()
    value = getattr(rig.gpu, what)
    for looks in range(4):  # then it is gone
        for look in (host.summary, host.doctor, lambda: host.dump(tmp_path)):
            left = iter([value] * looks)
            with monkeypatch.context() as patched:
                patched.setattr(Gpu, what, property(lambda gpu, left=left: next(left, None)), raising=False)
                assert look()


def test_what_a_client_asks_while_it_is_removed_is_answered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.start()
    context = rig.a.tenant.context
    left = iter([context._held] * 2)
    with monkeypatch.context() as patched:
        patched.setattr(type(context), "_held", property(lambda self: next(left, None)), raising=False)
        assert context.family("memory") in (None, rig.session.family("memory"))


def test_a_bus_that_does_not_close_keeps_nothing_else_open(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    host = rig.start()
    closed: list[str] = []
    host._endings[:0] = [("", lambda: closed.append("first to open")), ("", lambda: 1 // 0)]
    host.stop()
    assert closed == ["first to open"] and rig.gpu.state.name == "released"
    assert any("ZeroDivisionError" in event.text for event in host.events.since() if event.kind == "plugin")


def test_a_bus_that_cannot_tell_of_removals_is_closed_again(rig: Rig) -> None:
    bus = fake_bus(rig.fake)
    opened: list[object] = []
    closed: list[object] = []

    def open(config: object) -> object:
        made = bus.open({})
        opened.append(made)
        made.subscribe = lambda callback: 1 // 0
        made.close = lambda: closed.append(made)
        return made

    host = Host([rig.fake.source], buses=[attrs.evolve(bus, open=open)], backends=rig.backends, state_dir=rig.folder).start()
    assert host.gpus[0].state.name == "failed"
    host.stop()
    assert closed == opened != []


def test_twenty_boots_and_unloads_leave_no_descriptor_and_no_thread(rig: Rig) -> None:
    for _ in range(20):
        host = rig.start()
        assert rig.gpu.state.name == "running"
        rig.doctor_ok()
        assert host.stop() == []


def test_reset_by_the_operator_boots_with_new_needs(rig: Rig, tmp_path: Path) -> None:
    host = rig.start()
    host.reset("0000:f0:00.0")
    assert rig.gpu.state.name == "running" and rig.gpu.generation == 2 and "device reset" in rig.fake.log
    rig.doctor_ok()
    files = host.dump(tmp_path / "bundle")
    names = {path.name for path in files}
    assert {"host.json", "events.json", "gpu.json", "diagnostics.json"} <= names


def test_a_client_that_hangs_in_probe_is_abandoned(rig: Rig) -> None:
    release = threading.Event()
    rig.settings.call = 0.2
    rig.a.hooks["probe"] = lambda: release.wait(5.0)
    host = rig.start()
    assert rig.gpu.state.name == "running" and "toy-a: probe did not end" in host.problems["toy-a"]
    assert next(f for f in host.functions if f.kind == "graphics").owner == "toy-b"
    rig.a.hooks.clear()
    release.set()
    assert any("probe" in what for what in host.stop())


@ENDINGS
@pytest.mark.parametrize("place", ["match", "probe", "open"])
def test_whatever_a_client_raises_leaves_its_function_free_and_the_gpu_running(rig: Rig, raised: BaseException, place: str) -> None:
    def ends(*_: object) -> object:
        raise raised

    if place == "probe":
        rig.a.hooks["probe"] = ends
    elif place == "match":
        rig.a.match = ends  # type: ignore[method-assign]
    else:
        rig.clients[0] = attrs.evolve(rig.offer_a, open=ends)
    rig.settings.call = 1.0
    host = rig.start()
    assert rig.gpu.state.name == "running"
    assert {f.kind: f.owner for f in host.functions} == {"vgpu": None, "graphics": "toy-b", "display": None}
    assert f"{type(raised).__name__}: {raised}" in host.problems["toy-a"]
    host.reset(rig.gpu.name, timeout=5.0)
    assert rig.gpu.state.name == "running" and rig.b.tenant.submit()
    assert host.stop() == []


def test_a_client_that_cannot_be_opened_is_named_for_each_function_it_might_have_had(rig: Rig) -> None:
    def absent() -> object:
        raise OSError("no such library")

    rig.clients[0] = attrs.evolve(rig.offer_a, open=absent)
    host = rig.start()
    (note,) = [finding for finding in host.doctor() if finding.severity == "note"]
    assert "vgpu is not driven by toy-a: client toy-a cannot be opened; seen OSError: no such library" in note.text
    host.clients = (rig.offer_a, rig.offer_b)
    host.reset(rig.gpu.name)
    assert next(f for f in host.functions if f.kind == "vgpu").owner == "toy-a" and len(host.doctor()) == 2


def test_a_function_that_one_client_failed_on_and_another_drives_is_not_said_to_have_no_owner(rig: Rig) -> None:
    offer, driver = toy_client("toy-c", "vgpu")
    driver.match = lambda function: {}["absent"]  # type: ignore[method-assign]
    rig.clients.append(offer)
    host = rig.start()
    (note,) = [finding.text for finding in host.doctor() if finding.severity == "note" and "vgpu" in finding.text]
    assert "vgpu is not driven by toy-c: KeyError: 'absent'" in note
    assert next(f for f in host.functions if f.kind == "vgpu").owner == "toy-a"


@ENDINGS
def test_whatever_a_backend_raises_fails_the_gpu_and_keeps_nobody_waiting(
    rig: Rig, raised: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    def ends(*_: object) -> object:
        raise raised

    with monkeypatch.context() as patched:
        patched.setattr(rig.backend, "open", ends)
        host = rig.start()
        assert rig.gpu.state.name == "failed" and rig.gpu.state.cause == f"{type(raised).__name__}: {raised}"
    host.retry(rig.gpu.name)
    monkeypatch.setattr(rig.backend, "open", ends)
    rig.session.halt("dies")
    until(lambda: rig.gpu.state.name == "lost", "lost")
    assert type(raised).__name__ in rig.gpu.state.cause


def test_a_plugin_that_breaks_its_contract_fails_this_gpu_and_says_who(rig: Rig) -> None:
    def broken(identity: object) -> object:
        raise ValueError("a bug in needs")

    rig.offer_a.needs = broken  # type: ignore[assignment]
    rig.start()
    assert rig.gpu.state.name == "failed" and "toy-a" in rig.gpu.state.cause and "a bug in needs" in rig.gpu.state.cause
    assert not rig.fake.bus_master


def test_a_session_that_raises_at_its_unload_keeps_nothing_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(session: object) -> object:
        raise KeyError("a bug in unload")

    host = rig.start()
    monkeypatch.setattr(type(rig.session), "unload", broken)
    rig.fake.faults.arm("boot-fails:no power")
    host.reset(rig.gpu.name)
    assert rig.gpu.state.name == "failed" and rig.fake.log.count("device reset") == 2 and not rig.fake.bus_master
    unloads = [event.text for event in host.events.since() if event.kind == "unload"]
    assert unloads == ["the unload was not clean: KeyError: 'a bug in unload'"]


def test_a_backend_that_raises_anything_fails_this_gpu_and_leaves_no_dma(rig: Rig) -> None:
    def broken(context: object) -> object:
        raise KeyError("a bug in open")

    rig.backend.open = broken  # type: ignore[assignment, method-assign]
    rig.start()
    assert rig.gpu.state.name == "failed" and "KeyError" in rig.gpu.state.cause and rig.gpu.state.remedy
    assert not rig.fake.bus_master
    del rig.backend.open
    rig.host.retry("fake:one")
    assert rig.gpu.state.name == "running"
