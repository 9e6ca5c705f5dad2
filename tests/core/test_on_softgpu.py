"""The same promises on a software GPU that nobody of this room wrote, driven by the real firmware backend on synthetic images."""

from __future__ import annotations

import gc
import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.errors import DeviceGone, FirmwareDead, LeaseRevoked, NotSupportedError
from nvcore.api.events import Rung
from nvcore.api.grant import GrantRequest
from nvcore.api.offers import BusOffer, FirmwareOffer, HostInfo
from nvcore.gpu.settings import GpuSettings, HostSettings
from nvcore.host import Host
from nvcore.locks import live_threads
from nvcore.testing.clock import VirtualClock
from nvcore.testing.toys import toy_client
from tests.core.conftest import until

softgpu = pytest.importorskip("nvcore_softgpu.plugin")
fw_gsp = pytest.importorskip("nvcore_fw_gsp.plugin")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from nvcore_softgpu.images.synthetic import write_images

    folder = tmp_path_factory.mktemp("firmware")
    write_images(folder)
    return folder


class SoftRig:
    """A host on one software GPU with two toys. clock: the device's alone."""

    def __init__(
        self, images: Path, folder: Path, chip: str = "ga100", version: str | None = None, extra: str = "", clock: Clock = SYSTEM
    ) -> None:
        from nvcore_fw_gsp.backend import GspBackend

        info = HostInfo("0", {}, "embedded", clock)
        offers = list(fw_gsp.nvcore_firmware_backends(info))
        backend = FirmwareOffer("gsp-rm", "", offers[0].chips, offers[0].versions, lambda: GspBackend(lambda: [str(images / "nvidia")]))
        offer_a, self.a = toy_client("toy-a", "graphics", engine="COPY0")
        offer_b, self.b = toy_client("toy-b", "vgpu", engine="COPY1")
        self.source = f"softgpu:{chip}?vram=2G&firmware={images}{extra}"
        self.settings = HostSettings(invalidate=0.3, quiesce=3.0, boot=60.0, gpus={self.source: GpuSettings(version=version)})
        self.make = lambda: Host(
            [self.source],
            buses=list(softgpu.nvcore_buses(info)),
            backends=[backend],
            clients=[offer_a, offer_b] if chip == "ga100" and version != "535.113.01" else [offer_a],
            state_dir=folder,
            config=self.settings,
        )
        self.host = self.make()

    @property
    def gpu(self) -> Any:
        return self.host.gpus[0]

    @property
    def model(self) -> Any:
        return self.gpu.device.model

    def running(self, generation: int) -> None:
        until(
            lambda: self.gpu.state.name == "running" and self.gpu.generation >= generation,
            lambda: f"generation {generation}: {[event.text for event in self.host.events.since()]}",
            8.0,
        )

    def check(self) -> None:
        """The doctor is content, the device's own view agrees, and the model saw nothing wrong."""
        assert [finding for finding in self.host.doctor() if finding.severity not in ("ok", "note")] == []
        view, counts = self.model.view(), self.gpu.hardware.counts()
        objects = view["gsp"]["objects"]
        assert (objects.get("client", 0), objects.get("address space", 0), objects.get("channel", 0)) == (
            counts["client"],
            counts["space"],
            counts["channel"],
        )
        assert view["functions"] == len(self.gpu.virtual_functions)
        assert self.model.violations == []
        assert self.model.unknown_registers == {}

    def close(self) -> None:
        self.host.stop(20.0)
        for driver in (self.a, self.b):
            for tenant in driver.tenants:
                tenant.stop()
            driver.tenants.clear()  # they hold on to what they had, down to the model


@pytest.fixture
def soft(images: Path, tmp_path: Path) -> Iterator[SoftRig]:
    rig = SoftRig(images, tmp_path)
    yield rig
    rig.close()


@pytest.mark.parametrize(("chip", "version"), [("ga100", "570.144"), ("ga100", "535.113.01"), ("gh100", "570.144")])
def test_it_boots_serves_tenants_and_unloads(images: Path, tmp_path: Path, chip: str, version: str) -> None:
    rig = SoftRig(images, tmp_path, chip, version)
    rig.host.start()
    try:
        assert rig.gpu.state.name == "running", rig.gpu.state.cause
        assert rig.gpu.boot_report.image.version == version
        fence = rig.a.tenant.bind(3, 9)
        assert fence.wait(5.0) and fence.error is None
        rig.check()
        model = rig.model
    finally:
        rig.close()
    assert rig.gpu.state.name == "released" and rig.gpu.state.cause is None
    assert model.violations == [] and rig.gpu.unload_report.clean


def test_leases_reach_the_memory_that_the_device_sees_and_no_longer_after_release(soft: SoftRig) -> None:
    soft.host.start()
    context = soft.a.tenant.context
    grant = context.grant(GrantRequest("probe", vram=64 << 20))
    home = grant.vram[0]
    lease = grant.map(type(home)(home.start + 0x3000, 0x2000))
    view = lease.view()
    view[:5] = b"hello"
    assert soft.model.read_vram(home.start + 0x3000, 5) == b"hello"
    grant.release()
    view[:5] = b"ghost"
    assert soft.model.read_vram(home.start + 0x3000, 5) == bytes(5)
    with pytest.raises(LeaseRevoked):
        lease.read(0, 1)
    bigger = context.grant(GrantRequest("next owner, other size", vram=128 << 20))
    assert bigger.vram[0].overlaps(home) and bigger.map(bigger.vram[0]).view()[0] == 0
    bigger.release()
    soft.check()


def test_a_firmware_that_dies_is_started_again_and_both_tenants_go_on(soft: SoftRig) -> None:
    soft.host.start()
    soft.model.arm("gsp-halt@rpc")
    with pytest.raises(FirmwareDead):
        soft.a.tenant.context.run(lambda: soft.a.tenant.grant.create_space(), timeout=20.0)
    soft.running(2)
    for driver in (soft.a, soft.b):
        assert [fault.rung for fault in driver.tenant.faults] == [Rung.GPU]
        fence = driver.tenant.bind(1, 1)
        assert fence.wait(5.0) and fence.error is None
        assert set(driver.tenant.vram_kept[0]) == {"0"}
    soft.check()


def test_a_stuck_invalidate_is_survived_by_a_reset(soft: SoftRig) -> None:
    soft.host.start()
    soft.model.arm("stuck-invalidate")
    fences = [soft.a.tenant.bind(0, 1), soft.b.tenant.bind(0, 1)]
    assert all(fence.wait(5.0) and isinstance(fence.error, FirmwareDead) for fence in fences)
    soft.model.disarm("stuck-invalidate")
    soft.running(2)
    soft.check()


@pytest.mark.parametrize("place", ["invalidate", "unset-pdb"])
def test_a_halt_at_a_moment_of_an_update_leaves_no_fence_open(soft: SoftRig, place: str) -> None:
    soft.host.start()
    soft.model.arm(f"gsp-halt@{place}")
    a, b = soft.a.tenant, soft.b.tenant
    fences = [b.bind(2, 2)]
    if place == "unset-pdb":
        with pytest.raises(FirmwareDead):
            a.channel.disable()
            a.table.unset()
    else:
        fences.append(a.bind(0, 1))
        with suppress(FirmwareDead):  # the firmware is dead, and an invalidate needs none: at the latest the next call finds out
            a.context.run(lambda: a.grant.create_space(), timeout=20.0)
    soft.running(2)
    until(lambda: all(fence.signalled for fence in fences), "all fences signalled")
    assert all(tenant.bind(3, 3).wait(5.0) for tenant in (a, b))
    soft.check()


def test_a_late_reply_delays_nobody(images: Path, tmp_path: Path) -> None:
    clock = VirtualClock()
    soft = SoftRig(images, tmp_path, clock=clock)
    ended = threading.Event()
    try:
        soft.host.start()
        a, b = soft.a.tenant, soft.b.tenant
        soft.model.arm("rpc-delay:1.5")

        def slow() -> None:
            a.context.run(lambda: a.grant.create_space(), timeout=30.0)
            ended.set()

        thread = threading.Thread(target=slow)
        thread.start()
        until(lambda: soft.gpu.hardware.session.waiting > 0, "the call waits")
        with soft.gpu.device.card.lock:
            soft.gpu.device.card.model.gsp.channel_fault(2, b.channel.channel, "mmu-fault", 0x1000)
        until(lambda: b.faults, "b is told")
        assert not ended.is_set() and soft.gpu.hardware.session.waiting == 1  # the device's time stands still
        clock.advance(2.0)
        thread.join(10.0)
        assert ended.is_set()
        assert b.faults[0].rung is Rung.CHANNEL and b.faults[0].owner == "toy-b"
    finally:
        soft.close()


def test_a_device_that_leaves_is_lost_and_its_host_side_released(soft: SoftRig) -> None:
    soft.host.start()
    soft.gpu.device.card.close()
    grant = soft.a.tenant.grant
    with pytest.raises((DeviceGone, FirmwareDead, LeaseRevoked)):  # the last where its owner, told of the loss, has given it back already
        soft.a.tenant.context.run(grant.create_space, timeout=20.0)
    until(lambda: soft.gpu.state.name == "lost", lambda: str([event.text for event in soft.host.events.since()]))
    for cause in (soft.gpu.state.cause, soft.a.tenant.faults[0].text):
        assert re.match("device-gone: |the software GPU was removed", cause), "the first cause, whatever was met on the way down"
    assert grant.state == "released"
    with pytest.raises(LeaseRevoked, match="is released"):
        grant.create_space()
    soft.host.retry(soft.source)
    assert soft.gpu.state.name == "running"
    soft.check()


def test_cycles_leave_no_descriptor_thread_or_memory(soft: SoftRig) -> None:
    def usage() -> tuple[int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), len(live_threads())

    numbers = []
    for _ in range(6):
        soft.host = soft.make()
        soft.host.start()
        assert soft.gpu.state.name == "running"
        soft.check()
        assert soft.host.stop() == []
        for driver in (soft.a, soft.b):
            driver.tenants.clear()
        numbers.append(usage())
    assert numbers[1] == numbers[-1]


@pytest.mark.parametrize("chip", ["ga100", "gh100"])
def test_a_device_that_shares_no_memory_is_reached_behind_bar1(
    images: Path, tmp_path: Path, chip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nvcore_softgpu.device import SoftDevice

    def no_sharing(self: object, offset: int, size: int) -> object:
        raise NotSupportedError("not here")

    monkeypatch.setattr(SoftDevice, "share", no_sharing)
    rig = SoftRig(images, tmp_path, chip)
    rig.host.start()
    try:
        assert rig.gpu.state.name == "running", rig.gpu.state.cause
        assert rig.gpu.hardware.vram.mapped == 2 << 30
        lease = rig.a.tenant.tables
        lease.write(0x3000, b"behind BAR1")
        assert rig.model.read_vram(lease.range.start + 0x3000, 11) == b"behind BAR1" == lease.read(0x3000, 11)
        assert rig.a.tenant.bind(1, 1).wait(5.0)
        rig.check()
        rig.model.arm("gsp-halt")
        with suppress(FirmwareDead):
            rig.a.tenant.context.run(lambda: rig.a.tenant.grant.create_space(), timeout=20.0)
        rig.running(2)
        assert rig.a.tenant.tables.read(0x3000, 11) == bytes(11) and rig.gpu.hardware.vram.mapped == 2 << 30
        rig.check()
    finally:
        rig.close()


@pytest.mark.nvcore_leaks("a process that dies cleans nothing up, and here it is played by this one")
def test_a_firmware_left_by_our_last_process_is_found_and_taken_down(images: Path, tmp_path: Path) -> None:
    rig = SoftRig(images, tmp_path)
    rig.host.start()
    bus = rig.host._opened["bus", "softgpu"]
    device = rig.gpu.device
    for tenant in (rig.a.tenant, rig.b.tenant):
        tenant.stop()
    device.close()  # the process dies: nobody unloads
    rig.gpu.end_threads(5.0)
    rig.a.tenants.clear()
    rig.b.tenants.clear()
    rig.host = rig.make()
    rig.host._bus_offers = (BusOffer("softgpu", "", ("softgpu",), lambda config: bus),)
    rig.host.start()
    try:
        assert rig.gpu.state.name == "running", rig.gpu.state.cause
        assert any("earlier boot" in event.text for event in rig.host.events.since())
        assert [finding for finding in rig.host.doctor() if finding.severity not in ("ok", "note")] == []
    finally:
        rig.close()
