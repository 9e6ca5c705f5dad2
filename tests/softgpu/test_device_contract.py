"""SoftDevice and SoftBus against the contract of nvcore.api.device."""

from __future__ import annotations

import os

import pytest

from nvcore.api.errors import ConflictError, DeviceGone, NotFoundError, UsageError
from nvcore_softgpu import bus as bus_module
from nvcore_softgpu.bus import SoftBus
from nvcore_softgpu.memory import sealed_memfd
from nvcore_softgpu.ports import Aperture
from nvcore_softgpu.sources import SourceError, parse_source
from tests.softgpu.device_kit import Driver, make_card


def test_dma_addresses_are_contiguous_or_scattered_as_asked():
    for scattered in (False, True):
        device, _ = make_card(scattered=scattered)
        device.set_bus_master(True)
        buffer = device.allocate_dma(70 * 4096, label="x")
        assert buffer.contiguous is not scattered
        addresses = [buffer.bus_address(4096 * page) for page in range(70)]
        assert (addresses == list(range(addresses[0], addresses[0] + 70 * 4096, 4096))) is not scattered
        assert len(set(addresses)) == 70
        for page, address in enumerate(addresses):
            buffer.view[4096 * page] = page
            assert device.card.model.memory.read(Aperture.SYSTEM, address, 1)[0] == page
        device.close()


def test_a_closed_buffer_is_out_of_the_devices_reach():
    device, _ = make_card()
    device.set_bus_master(True)
    buffer = device.allocate_dma(4096, label="x")
    address = buffer.bus_address()
    buffer.close()
    buffer.close()
    assert device.card.model.memory.read(Aperture.SYSTEM, address, 2) == b"\xff\xff"
    assert device.model.violations[0].name == "dma-outside-maps"
    device.close()


def test_map_dma_duplicates_the_descriptor():
    device, _ = make_card()
    device.set_bus_master(True)
    fd = sealed_memfd("client", 8192)
    os.pwrite(fd, b"mine", 4096)
    device.map_dma(0x1000, 4096, fd, 4096)
    os.close(fd)
    assert device.card.model.memory.read(Aperture.SYSTEM, 0x1000, 4) == b"mine"
    assert device.unmap_dma(0, 1 << 20) == 4096
    device.close()


def test_shared_vram_is_the_devices_own():
    device, _ = make_card()
    shared = device.share(256 << 20, 128 << 20)
    device.bars[3].write(0, b"low")
    os.pwrite(shared.fd, b"through the descriptor", shared.offset)
    device.bars[0].write32(0x1700, (256 << 20) >> 16)
    assert device.bars[0].read(0x700000, 7) == b"through"
    assert device.unshare(256 << 20) == 128 << 20
    assert device.bars[0].read(0x700000, 7) == bytes(7)
    os.close(shared.fd)
    device.close()


def test_cards_leak_no_descriptor_no_thread_and_no_map():
    import threading

    before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        device, _ = make_card()
        Driver(device).boot()
        os.close(device.share(0, 2 << 20).fd)
        device.close()
        device.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    "source",
    ["softgpu", "softgpu:", "pci:ga100", "softgpu:ga100?", "softgpu:ga100?vram", "softgpu:ga100?vram=", "softgpu:ga100?vram=40X",
     "softgpu:ga100?x=1",
     "softgpu:ga100?vram=1M", "softgpu:ga100?vram=4G&vram=4G", "softgpu:ga100?bar1=3M", "softgpu:ga100?firmware=/nonexistent",
     "softgpu:ga100?scattered=2", "softgpu:ga100?vram=4097M", "softgpu:ga100?vram=²G"],
)  # fmt: skip
def test_a_source_that_is_not_understood_is_refused(source):
    if source == "softgpu:ga100?":
        assert parse_source(source).chip.name == "GA100"
        return
    with pytest.raises((SourceError, NotFoundError, UsageError)):
        parse_source(source)


def test_a_source_says_everything(tmp_path):
    source = parse_source(f"softgpu:GH100?vram=80G&bar1=256M&firmware={tmp_path}&fault=gfw-never&fault=rpc-delay:10&name=a&scattered=1")
    assert (source.chip.name, source.vram, source.bar1) == ("GH100", 80 << 30, 256 << 20)
    assert source.faults == ("gfw-never", "rpc-delay:10") and source.firmware == tmp_path and source.scattered
    assert parse_source("softgpu:ga100").bar1 == 64 << 30


@pytest.fixture
def bus(monkeypatch):
    def plain(source, *, clock, slot):
        parse_source(source)
        device, _ = make_card()
        device.card.holder = None
        return device.card

    monkeypatch.setattr(bus_module, "make_card", plain)
    made = SoftBus()
    yield made
    made.close()


def test_one_source_is_one_card_and_stays_powered_between_openings(bus):
    first = bus.open("softgpu:ga100")
    with pytest.raises(ConflictError):
        bus.open("softgpu:ga100")
    Driver(first).boot()
    fd = sealed_memfd("client", 4096)
    first.map_dma(0x1000, 4096, fd, 0)
    os.close(fd)
    first.close()
    assert first.model.view()["dma_maps"] == []
    second = bus.open("softgpu:ga100")
    assert second.bars[0].read32(0x1FA828)
    assert bus.scan() == ["softgpu:ga100"]
    with pytest.raises(DeviceGone):
        first.bars[0].read32(0)


def test_a_pulled_card_is_gone_and_said_so(bus):
    events = []
    end = bus.subscribe(events.append)
    device = bus.open("softgpu:ga100")
    bus.remove("softgpu:ga100")
    assert [event.kind for event in events] == ["added", "removed"]
    with pytest.raises(DeviceGone):
        device.bars[0].read32(0)
    device.close()
    end()
    with pytest.raises(NotFoundError):
        bus.remove("softgpu:ga100")


def test_a_firmware_folder_with_a_broken_image_is_said_and_not_compared(tmp_path):
    folder = tmp_path / "nvidia" / "ga100" / "gsp"
    folder.mkdir(parents=True)
    (folder / "gsp-570.144.bin").write_bytes(b"not an image")
    card = bus_module.make_card(f"softgpu:ga100?vram=1G&firmware={tmp_path}")
    assert [violation.name for violation in card.model.journal.violations] == ["firmware-file"]
    card.close()
