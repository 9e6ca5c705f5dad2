"""The interrupt tree and the message."""

from __future__ import annotations

import os

import pytest

from tests.softgpu.device_kit import Driver, make_card

LEAF, EN_SET, EN_CLEAR, TOP, TOP_SET, TOP_CLEAR, TRIGGER = 0xB81000, 0xB81200, 0xB81400, 0xB81600, 0xB81608, 0xB81610, 0xB81640


@pytest.fixture
def gpu():
    device, gsp = make_card()
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    device.set_bus_master(True)
    device.connect_interrupt("msi", 0, fd)

    def messages() -> int:
        try:
            return os.eventfd_read(fd)
        except BlockingIOError:
            return 0

    yield device, device.bars[0], messages, gsp
    device.close()
    os.close(fd)


def test_a_masked_vector_is_pending_and_silent(gpu):
    _, bar0, messages, _ = gpu
    bar0.write32(TRIGGER, 155)
    assert bar0.read32(LEAF + 4 * 4) == 1 << 27
    assert messages() == 0
    assert bar0.read32(TOP) == 0


def test_the_message_comes_when_both_enables_are_set(gpu):
    _, bar0, messages, _ = gpu
    bar0.write32(TRIGGER, 155)
    bar0.write32(EN_SET + 16, 1 << 27)
    assert messages() == 0
    bar0.write32(TOP_SET, 0xF)
    assert messages() == 1
    assert bar0.read32(TOP) == 1 << 2


def test_a_second_vector_behind_a_visible_one_sends_nothing_until_top_is_enabled_again(gpu):
    _, bar0, messages, _ = gpu
    bar0.write32(EN_SET, 3)
    bar0.write32(TOP_SET, 0xF)
    bar0.write32(TRIGGER, 0)
    assert messages() == 1
    bar0.write32(TOP_CLEAR, 0xF)
    bar0.write32(LEAF, 1)
    bar0.write32(TRIGGER, 1)
    assert messages() == 0
    bar0.write32(TOP_SET, 0xF)
    assert messages() == 1


def test_enabling_top_again_with_something_pending_sends_again(gpu):
    _, bar0, messages, _ = gpu
    bar0.write32(EN_SET, 1)
    bar0.write32(TOP_SET, 0xF)
    bar0.write32(TRIGGER, 0)
    bar0.write32(TOP_SET, 0xF)
    assert messages() == 2
    bar0.write32(TRIGGER, 0)
    assert messages() == 0


def test_nothing_pending_sends_nothing(gpu):
    _, bar0, messages, _ = gpu
    bar0.write32(EN_SET, 3)
    bar0.write32(TRIGGER, 0)
    bar0.write32(LEAF, 1)
    bar0.write32(TOP_SET, 0xF)
    assert messages() == 0
    assert bar0.read32(EN_SET) == 3
    bar0.write32(EN_CLEAR, 1)
    assert bar0.read32(EN_CLEAR) == 2


def test_the_gsps_message_line_is_masked_until_its_core_runs(gpu):
    device, bar0, messages, gsp = gpu
    bar0.write32(EN_SET + 16, 1 << 27)
    bar0.write32(TOP_SET, 0xF)
    device.card.model.raise_message()
    assert messages() == 0
    bar0.write32(0x110004, 0x40)
    Driver(device).boot()
    bar0.write32(0x110C00, 0)
    assert gsp.calls[-1] == ("doorbell",)
    assert messages() == 1
    assert bar0.read32(0x110008) == 0x40
    assert bar0.read32(0x1112B4) & 0x40


def test_retrigger_raises_the_line_again_while_something_is_pending(gpu):
    device, bar0, _, _ = gpu
    Driver(device).boot()
    bar0.write32(0x110C00, 0)
    bar0.write32(LEAF + 16, 1 << 27)
    assert bar0.read32(LEAF + 16) == 0
    bar0.write32(0x1103E8, 1)
    assert bar0.read32(LEAF + 16) == 1 << 27
    bar0.write32(LEAF + 16, 1 << 27)
    bar0.write32(0x110004, 0x40)
    bar0.write32(0x1103E8, 1)
    assert bar0.read32(LEAF + 16) == 0


def test_a_queue_doorbell_before_the_firmware_is_ignored(gpu):
    device, bar0, _, gsp = gpu
    bar0.write32(0x110C00, 0)
    assert gsp.calls == []
    assert device.model.violations == []


def test_lost_messages_and_messages_without_bus_mastering(gpu):
    device, bar0, messages, _ = gpu
    bar0.write32(EN_SET, 1)
    bar0.write32(TOP_SET, 0xF)
    device.model.arm("msi-lost")
    bar0.write32(TRIGGER, 0)
    assert messages() == 0 and bar0.read32(LEAF) == 1
    device.model.disarm()
    device.set_bus_master(False)
    bar0.write32(TOP_SET, 0xF)
    assert messages() == 0


def test_a_dead_firmware_pulls_the_halt_line(gpu):
    device, bar0, messages, _ = gpu
    bar0.write32(EN_SET + 16, 1 << 27)
    bar0.write32(TOP_SET, 0xF)
    Driver(device).boot()
    device.card.model.set_halted(True, True)
    assert messages() == 1
    assert bar0.read32(0x110008) & 0x10
    assert not bar0.read32(0x111240) & 1
