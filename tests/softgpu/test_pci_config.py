"""Configuration space and what writes to it do."""

from __future__ import annotations

import struct

import pytest

from tests.softgpu.device_kit import Driver, make_card


@pytest.fixture(params=["GA100", "GH100"])
def device(request):
    made, _ = make_card(request.param)
    yield made
    made.close()


def capabilities(device) -> dict[int, int]:
    found, place = {}, device.config_read(0x34, 1)[0]
    while place:
        kind, following = device.config_read(place, 2)
        found[kind] = place
        place = following
    return found


def extended(device) -> dict[int, int]:
    found, place = {}, 0x100
    while place:
        (header,) = struct.unpack("<I", device.config_read(place, 4))
        found[header & 0xFFFF] = place
        place = header >> 20
    return found


def test_identity_and_capabilities(device):
    vendor, product = struct.unpack("<HH", device.config_read(0, 4))
    assert (vendor, product) == (0x10DE, device.identity.device)
    assert device.config_read(9, 3) == b"\x00\x02\x03"
    assert device.config_read(0x3D, 1) == b"\0"
    assert set(capabilities(device)) == {0x01, 0x05, 0x10}
    assert set(extended(device)) == {0x03, 0x10}


def test_bar_sizes_are_found_by_writing_ones(device):
    for place, wide, index in ((0x10, False, 0), (0x14, True, 1), (0x1C, True, 3)):
        size = 8 if wide else 4
        old = device.config_read(place, size)
        device.config_write(place, b"\xff" * size)
        value = int.from_bytes(device.config_read(place, size), "little")
        assert (-(value & ~0xF)) & ((1 << 8 * size) - 1) == device.bars[index].size
        assert value & 0xF == (0xC if wide else 0)
        device.config_write(place, old)


def test_read_only_fields_stay(device):
    before = device.config_read(0, 4096)
    device.config_write(0, b"\xff" * 4)
    device.config_write(0x2C, b"\xff" * 4)
    assert device.config_read(0, 4) == before[:4]
    assert device.config_read(0x2C, 4) == before[0x2C:0x30]


def test_virtual_functions_follow_the_capability(device):
    place = extended(device)[0x10]
    initial, total = struct.unpack("<HH", device.config_read(place + 0x0C, 4))
    assert initial == total == device.total_functions
    functions = device.enable_functions(3)
    assert [function.index for function in functions] == [0, 1, 2]
    assert functions[0].address == device.identity.address[:-4] + "00.4"
    assert functions[1].bar_sizes[0] == device.card.model.chip.sriov.bar0
    assert device.model.view()["functions"] == 3
    assert device.card.model.sriov()["enabled"] == 3
    device.enable_functions(0)
    assert device.model.view()["functions"] == 0


def test_vf_bars_have_sizes_too(device):
    place = extended(device)[0x10]
    facts = device.card.model.sriov()
    for offset, wide, key in ((0x24, False, "bar0_size"), (0x28, True, "bar1_size"), (0x30, True, "bar2_size")):
        size = 8 if wide else 4
        device.config_write(place + offset, b"\xff" * size)
        value = int.from_bytes(device.config_read(place + offset, size), "little")
        assert (-(value & ~0xF)) & ((1 << 8 * size) - 1) == facts[key]


def test_the_mirror_in_bar0_is_configuration_space(device):
    mirror = device.card.model.chip.mirror
    assert device.bars[0].read32(mirror) == struct.unpack("<I", device.config_read(0, 4))[0]
    device.bars[0].write32(mirror + 4, 0x4)
    assert device.model.view()["bus_master"]


def test_a_function_level_reset_through_the_capability():
    device, gsp = make_card()
    driver = Driver(device)
    driver.boot()
    express = capabilities(device)[0x10]
    (devcap,) = struct.unpack("<I", device.config_read(express + 4, 4))
    assert devcap >> 28 & 1
    device.config_write(express + 8, b"\x00\x80")
    assert not gsp.running
    assert device.bars[0].read32(0x1FA828) == 0
    assert not device.model.view()["bus_master"]
    device.close()
