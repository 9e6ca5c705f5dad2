"""Boots on the software GPU: every chip and version, up and down and up again; a wait that ends tells how far it got (F02)."""

from __future__ import annotations

import gc
import os
import struct
from types import SimpleNamespace

import pytest

from nvcore.api.errors import BootError
from nvcore.api.identity import ChipId
from nvcore.api.needs import BootNeeds
from nvcore_fw_gsp.boot import fsp_flow
from nvcore_fw_gsp.queue.port import RpcPort

from .soft import CASES, Bench, bench


def check_quiet(gpu: Bench) -> None:
    assert gpu.violations() == []
    assert gpu.inspector.unknown_controls == {}
    assert gpu.inspector.unknown_registers == {}


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_it_boots_unloads_and_boots_again(chip, version):
    with bench(chip, version) as gpu:
        inventories = []
        for _ in range(2):
            session = gpu.open()
            assert [stage.outcome for stage in session.report.stages] == ["ok"] * len(session.report.stages)
            assert session.report.image.kind == "synthetic" and session.image.version == version
            inventories.append(session.family("inventory").read())
            report = session.unload()
            assert report.clean and not report.needs_reset and report.cause is None
            assert session.unload() is report
        assert inventories[0] == inventories[1]
        check_quiet(gpu)


@pytest.mark.parametrize(("chip", "low", "high", "shift"), [("ga100", 0x100C10, 0x100C40, 8), ("gh100", 0x100A34, 0x100A38, 0)])
def test_the_page_that_the_gpu_flushes_to_is_told_to_it_and_forgotten_before_it_is_freed(chip, low, high, shift):
    with bench(chip, "570.144") as gpu:
        session, values = gpu.open(), gpu.card.model.registers.values
        address = session.boot.memory.buffers["flush page"].bus_address(0)
        assert (values[high] << 32 | values[low]) << shift == address > 0
        values[low] = values[high] = 0xFFF
        report = session.unload()
        assert (values[low], values[high]) == (0, 0)
        names = [stage.name for stage in report.stages]
        assert names.index("flush-page-clear") < names.index("release-host")


@pytest.mark.parametrize("chip", ["ga100", "gh100"])
def test_scattered_host_memory_boots_too(chip):
    with bench(chip, "570.144") as plain:
        plain_inventory = plain.open().family("inventory").read()
    with bench(chip, "570.144", vram="2G&scattered=1") as gpu:
        inventory = gpu.open().family("inventory").read()
        assert inventory.regions == plain_inventory.regions
        check_quiet(gpu)


@pytest.mark.parametrize(("chip", "cycles"), [("ga100", 10), ("gh100", 4)])
def test_cycles_leave_nothing_behind(chip, cycles):
    with bench(chip, "570.144") as gpu:
        counts = []
        for _ in range(cycles):
            session = gpu.open()
            tenant = session.open_tenant("cycle")
            session.family("memory").create_space(tenant)
            assert session.unload().clean
            assert session.objects() == {}
            del session, tenant
            gc.collect()
            counts.append(len(os.listdir("/proc/self/fd")))
        assert counts[-1] == counts[1]
        check_quiet(gpu)


def test_as_vgpu_host_the_heap_grows_and_the_family_appears():
    needs = BootNeeds(vgpu_host=True, virtual_functions=4)
    with bench("ga100", "570.144", needs=needs) as gpu:
        session = gpu.open()
        assert session.families["vgpu"] == 1
        support = session.family("inventory").read().vgpu
        assert support.host and support.reason is None and support.functions > 0
        assert session.boot.layout.heap_size >= 581 << 20
        assert session.unload().clean
        check_quiet(gpu)


@pytest.mark.parametrize(
    ("chip", "version", "reason"),
    [("ga100", "535.113.01", "firmware 535.113.01 is driven without its vGPU tasks here"),
     ("gh100", "570.144", "GH100 is not driven as a vGPU host yet")],
)  # fmt: skip
def test_where_vgpus_are_not_driven_the_reason_is_told(chip, version, reason):
    with bench(chip, version, needs=BootNeeds(vgpu_host=True)) as gpu:
        session = gpu.open()
        support = session.family("inventory").read().vgpu
        assert not support.host and support.reason == reason
        assert session.family("vgpu") is None and "vgpu" not in session.families
        session.unload()


def test_a_client_s_settings_reach_the_firmware():
    with bench("ga100", "570.144", needs=BootNeeds(settings={"RmExample": 7})) as gpu:
        session = gpu.open()
        detail = next(stage.detail for stage in session.report.stages if stage.name == "first-messages")
        with bench("ga100", "570.144") as other:
            base = next(stage.detail for stage in other.open().report.stages if stage.name == "first-messages")
        assert int(detail.split()[-2]) == int(base.split()[-2]) + 16 + len("RmExample") + 1
        session.unload()


@pytest.mark.parametrize("name", ["RMé", "", "RM\0Key", "RM\nKey"])
def test_a_setting_whose_name_cannot_be_written_is_a_named_state(name):
    with bench("ga100", "570.144", needs=BootNeeds(settings={name: 1})) as gpu:
        with pytest.raises(BootError) as caught:
            gpu.open()
        assert (caught.value.report.code, caught.value.report.cause.partition(":")[0]) == ("NVC-1001", "first-messages")
        assert ascii(name) in str(caught.value)
        assert gpu.inspector.view()["dma_maps"] == []


FAULTS = [
    ("ga100", "gfw-never", "gfw", "NVC-2112"),
    ("ga100", "vbios-missing", "unload-bundle", None),
    ("ga100", "vbios-no-fwsec", "unload-bundle", "NVC-2033"),
    ("ga100", "scrub-never:sec2", "booter-load", "NVC-2112"),
    ("ga100", "booter-halt", "booter-load", "NVC-2132"),
    ("ga100", "booter-mailbox", "booter-load", "NVC-2132"),
    ("ga100", "bad-signature", "booter-load", "NVC-2132"),
    ("ga100", "riscv-inactive", "riscv-active", "NVC-2134"),
    ("ga100", "no-init-done", "init-done", "NVC-2134"),
    ("ga100", "init-status", "init-done", "NVC-2134"),
    ("ga100", "rpc-result:0x41,0x51", "static-info", "NVC-2213"),
    ("ga100", "rpc-no-reply:0x41", "static-info", "NVC-2212"),
    ("ga100", "rpc-checksum", "static-info", "NVC-2214"),
    ("ga100", "gsp-halt@boot", None, None),
    ("gh100", "gfw-never", "gfw", "NVC-2112"),
    ("gh100", "fsp-silent", "chain-of-trust", "NVC-2112"),
    ("gh100", "fsp-error", "chain-of-trust", "NVC-2133"),
    ("gh100", "fmc-error", "lockdown", "NVC-2133"),
    ("gh100", "lockdown-stuck", "lockdown", "NVC-2112"),
    ("gh100", "no-init-done", "init-done", "NVC-2134"),
]


@pytest.mark.parametrize(("chip", "fault", "stage", "code"), FAULTS)
def test_a_failed_boot_says_where_and_why_and_leaves_a_device_that_boots(chip, fault, stage, code):
    with bench(chip, "570.144", faults=[fault]) as gpu:
        with pytest.raises(BootError) as caught:
            gpu.open()
        report = caught.value.report
        failed = next(s for s in report.stages if s.outcome == "failed")
        assert stage in (None, failed.name), report.stages
        assert report.cause and report.cause.startswith(failed.name)
        assert code in (None, report.code), report.code
        assert "region-proof" in [s.name for s in report.stages]
        assert ("FSP_SCRATCH3" in failed.registers) == ((chip, fault) == ("gh100", "gfw-never"))
        gpu.inspector.disarm()
        if fault == "vbios-no-fwsec":  # the model's ROM stays as it was made
            return
        session = gpu.open(gpu.saved[-1] if gpu.saved else None)
        assert session.unload().clean


@pytest.mark.parametrize(("region", "seen"), [(None, "no region"), ((0x1000000, 0x2000000), "0x1000000 to 0x2000000")])
def test_a_booter_that_protected_another_region_than_it_was_told_is_not_gone_on_with(region, seen, monkeypatch):
    with bench("ga100", "570.144") as gpu:
        monkeypatch.setattr("nvcore_fw_gsp.boot.booter_flow.wpr", SimpleNamespace(wpr2=lambda io: region))
        with pytest.raises(BootError) as caught:
            gpu.open()
        report = caught.value.report
        assert (report.code, report.cause.partition(":")[0]) == ("NVC-2121", "booter-load") and seen in report.cause
        assert report.unload.clean
        monkeypatch.undo()
        assert gpu.open().unload().clean


def test_a_wait_that_ends_tells_the_limit_the_last_value_and_the_logs():
    with bench("ga100", "570.144", faults=["no-init-done"], scale=0.01) as gpu, pytest.raises(BootError) as caught:
        gpu.open()
    report = caught.value.report
    assert "within 0.2 s" in str(caught.value)
    assert set(report.logs) == {"LOGINIT", "LOGINTR", "LOGRM", "LOGMNOC"}
    written = {name for name, words in report.logs.items() if words == "4 words written"}  # it started, wrote, and went silent
    assert written == {"LOGINIT", "LOGRM"}, "the image of GA100 has no other log"
    assert {report.logs[name] for name in ("LOGINTR", "LOGMNOC")} == {"never written"}


def test_static_information_that_is_too_short_is_not_read(monkeypatch):
    whole = RpcPort.call
    monkeypatch.setattr(RpcPort, "call", lambda self, *words, **more: whole(self, *words, **more)[:-1])
    with bench("ga100", "570.144") as gpu, pytest.raises(BootError) as caught:
        gpu.open()
    assert caught.value.report.cause.startswith("static-info: the static information is too short")


def test_before_the_start_no_log_was_written_and_the_report_says_so():
    with bench("ga100", "570.144", faults=["booter-mailbox:0x77"]) as gpu, pytest.raises(BootError) as caught:
        gpu.open()
    report = caught.value.report
    assert "0x77" in report.cause
    assert set(report.logs.values()) == {"never written"}
    registers = next(s for s in report.stages if s.name == "booter-load").registers
    assert registers["SEC2.MAILBOX0"] == "0x00000077"


def test_without_files_nothing_is_touched(tmp_path):
    with bench("ga100", "570.144", root=str(tmp_path)) as gpu:
        with pytest.raises(BootError) as caught:
            gpu.open()
        assert caught.value.report.code == "NVC-2021" and caught.value.report.stages == ()
        assert gpu.backend.supports(gpu.chip) == []


def test_another_chip_is_not_supported_by_a_neighbour_s_files(tmp_path):
    with bench("ga100", "570.144") as gpu:
        assert gpu.backend.supports(ChipId("AD102", "ada", "a1")) == ()


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_a_boot_sleeps_for_nothing(chip, version):
    from nvcore.testing import VirtualClock

    clock = VirtualClock(limit=1.0)  # stands still: any sleep would end the test
    with bench(chip, version, clock=clock, scale=1.0) as gpu:
        session = gpu.open()
        assert session.family("inventory").read().engines and session.unload().clean
        assert clock.now() == 0
        assert sum(stage.seconds for stage in gpu.stages) == 0


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_an_unload_needs_no_receiver_thread_though_one_was_there(chip, version):
    from nvcore.testing import VirtualClock

    clock = VirtualClock(limit=1.0)  # stands still: a wait for somebody else to receive would end the test
    with bench(chip, version, clock=clock, scale=1.0) as gpu:
        session = gpu.open()
        session.receive()
        assert session.port.attended
        report = session.unload()
        assert report.clean and report.cause is None and clock.now() == 0


def test_another_chip_than_the_one_that_was_identified_is_not_booted():
    with bench("ga100", "570.144") as gpu:
        gpu.chip = ChipId("GH100", "", "")
        with pytest.raises(BootError) as caught:
            gpu.open()
        assert (caught.value.report.code, caught.value.report.cause.partition(":")[0]) == ("NVC-2001", "identify")
        assert "GA100" in str(caught.value) and "GH100" in str(caught.value)


def test_a_limit_is_the_declared_one_on_the_caller_s_clock():
    from nvcore.testing import VirtualClock

    clock = VirtualClock(auto=True)
    with bench("ga100", "570.144", clock=clock, scale=1.0, faults=["no-init-done"]) as gpu, pytest.raises(BootError, match="within 20 s"):
        gpu.open()
    assert 20 <= clock.now() < 20.1


@pytest.mark.parametrize("chip", ["ga100", "gh100"])
def test_once_the_firmware_runs_the_image_is_let_go_of(chip):
    from nvcore_fw_gsp.backend import FREED_AFTER_BOOT

    with bench(chip, "570.144") as gpu:
        session = gpu.open()
        left = session.boot.memory.buffers
        assert left and not set(left) & set(FREED_AFTER_BOOT)
        assert sum(buffer.size for buffer in left.values()) < 2 << 20
        assert session.boot.sources == [] and session.boot.gsp_image is None
        assert sum(end - start for start, end in gpu.inspector.view()["dma_maps"]) < 2 << 20  # the device's side of it


def test_the_fsp_is_told_the_published_message(monkeypatch):
    sent: list[bytes] = []
    send = fsp_flow._send
    monkeypatch.setattr(fsp_flow, "_send", lambda boot, message: (sent.append(message), send(boot, message))[1])
    with bench("gh100", "570.144") as gpu:
        boot = gpu.open().boot
        fmc, parameters = boot.fmc, boot.memory.buffers["FMC parameters"].bus_address(0)
    transport, header, version, size, image, sysmem, sysmem_size, from_end, frts = struct.unpack_from("<IIHHQQIQI", sent[0])
    assert (transport, header, version, size, len(sent[0])) == (0xC0000000, 0x1410DE7E, 1, 860, 868)
    assert (sysmem, sysmem_size, from_end, frts) == (0, 0, 0x200000, 0x100000)
    assert sent[0][44:92] == fmc.hash and sent[0][92:476].startswith(fmc.public_key) and sent[0][476:860].startswith(fmc.signature)
    assert image and struct.unpack_from("<Q", sent[0], 860) == (parameters,)


def bug(*_: object, **__: object) -> None:
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    "place",
    ["nvcore_fw_gsp.boot.sysinfo.registry", "nvcore_fw_gsp.boot.common.write_version", "nvcore_fw_gsp.session.gsp.ObjectBook"],
    ids=["before the start", "while it starts", "behind the last stage"],
)
def test_a_bug_while_booting_leaves_no_firmware_running_and_no_memory(place, monkeypatch):
    with bench("ga100", "570.144") as gpu:
        monkeypatch.setattr(place, bug)
        with pytest.raises(RuntimeError, match="a bug"):
            gpu.open()
        view = gpu.inspector.view()
        assert view["wpr2"] is None and view["dma_maps"] == [] and not view["bus_master"] and view["gsp"]["phase"] == "off"
        monkeypatch.undo()
        assert gpu.open().unload().clean
