"""Objects, channels and page directories: what may hang where, and what a driver's mistakes are answered with."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore_softgpu.gsp import objects
from nvcore_softgpu.ports import Aperture
from tests.softgpu.gsp_rig import MIB, Driver, Env

CLIENT, DEVICE, SPACE = 0xC1D00000, 0xDE1D0000, 0x90F10000


@pytest.fixture
def driver() -> Driver:
    driver = Driver(Env())
    driver.boot()
    return driver


def test_freeing_a_client_frees_what_is_under_it_in_order(driver: Driver) -> None:
    driver.space(CLIENT)
    channel = driver.channel(CLIENT, 3, 9, 0x700000)
    driver.alloc(CLIENT, channel, 0x10, driver.env.chip.copy_class, struct.pack("<II", 1, 9))
    assert driver.gsp.view()["objects"] == {"address space": 1, "channel": 1, "client": 1, "device": 1, "engine object": 1, "subdevice": 1}
    driver.env.channels.calls.clear()
    assert driver.free(CLIENT, CLIENT) == 0
    assert driver.gsp.view()["objects"] == {}
    assert driver.env.channels.calls == [("enable", 1, 3, False), ("remove", 1, 3), ("root", None)]
    assert driver.env.violations.names == ["root-left-set"], "the page directory should have been unset first"


def test_an_orderly_end_leaves_no_violation(driver: Driver) -> None:
    driver.space(CLIENT)
    channel = driver.channel(CLIENT, 3, 9, 0x700000)
    assert driver.free(CLIENT, channel) == 0
    assert driver.control(CLIENT, DEVICE, 0x00801814, struct.pack("<II", SPACE, 0))[0] == 0
    for handle in (SPACE, 0x5D1D0000, DEVICE, CLIENT):
        assert driver.free(CLIENT, handle) == 0
    assert driver.env.violations.texts == [] and driver.gsp.view()["roots"] == []


def test_handles_repeat_across_clients_and_not_inside_one(driver: Driver) -> None:
    driver.space(CLIENT)
    driver.space(CLIENT + 1)
    assert driver.alloc(CLIENT, CLIENT, DEVICE, 0x80, struct.pack("<II", 0, CLIENT).ljust(56, b"\0")) == 0x34
    assert driver.alloc(CLIENT, CLIENT, CLIENT, 0, bytes(120)) == 0x19
    assert driver.alloc(0xC1D00077, 0xC1D00077, DEVICE, 0x80, bytes(56)) == 0x23
    assert driver.alloc(CLIENT, 0x1234, 0x99, 0x2080, bytes(4)) == 0x36
    assert driver.alloc(CLIENT, CLIENT, 0x99, 0x2080, bytes(4)) == 0x36, "a subdevice hangs under a device"
    assert driver.alloc(CLIENT, DEVICE, 0x99, 0x0073) == 0x22, "no display on this chip"
    assert driver.alloc(CLIENT, CLIENT, 0x99, 0x80, bytes(48)) == 0x3A
    assert driver.free(CLIENT, 0x4242) == 0x57
    assert driver.free(0xC2000001, 0xABCD2080) == 0x31, "the firmware's own objects stay"


@pytest.mark.parametrize(
    ("patch", "status", "name"),
    [
        ((0x80, "<I", 0x33), 0x1F, "channel-engine"),
        ((0x1C, "<I", 0x777), 0x57, "channel-space"),
        ((0x10, "<I", 0), 0x1F, "channel-gpfifo"),
        ((0x90, "<Q", 0x700100), 0x1E, "channel-instance"),
        ((0x90, "<Q", 1 << 44), 0x1E, "channel-instance"),
        ((0xA0, "<I", 1), 0x1E, "channel-instance"),
        ((0xA8, "<Q", 1 << 44), 0x1E, "channel-userd"),
        ((0xB8, "<I", 7), 0x1F, "channel-userd"),
    ],
)
def test_a_channel_with_a_wrong_parameter_is_refused(driver: Driver, patch: tuple[int, str, int], status: int, name: str) -> None:
    driver.space(CLIENT)
    params = bytearray(driver.channel_params(3, 9, 0x700000))
    struct.pack_into(patch[1], params, patch[0], patch[2])
    assert driver.alloc(CLIENT, DEVICE, 0x55, 0xC56F, bytes(params)) == status
    assert driver.env.violations.names == [name] and driver.env.channels.channels == {}


@pytest.mark.parametrize(("aperture", "place"), [(1, Aperture.SYSTEM), (2, Aperture.VRAM)])
def test_userd_and_fault_buffer_may_lie_in_host_memory_or_in_vram(driver: Driver, aperture: int, place: Aperture) -> None:
    driver.space(CLIENT)
    driver.env.memory.grant(0x40000000, 0x4000)
    params = bytearray(driver.channel_params(3, 9, 0x700000))
    where = 0x40000000 if place is Aperture.SYSTEM else 0x800000
    struct.pack_into("<QQI", params, 0xA8, where, 0x200, aperture)
    struct.pack_into("<QQI", params, 0xD8, where + 0x1000, 0x2000, aperture)
    assert driver.alloc(CLIENT, DEVICE, 0x55, 0xC56F, bytes(params)) == 0
    channel = driver.env.channels.channels[1, 3]
    assert (channel.userd, channel.userd_aperture) == (where, place) and driver.env.violations.names == []


def test_a_graphics_channel_may_describe_its_fault_buffer_as_it_likes(driver: Driver) -> None:
    """One driver gives it a place in VRAM and calls it host memory; only copy engines write there."""
    driver.space(CLIENT)
    params = bytearray(driver.channel_params(3, 1, 0x700000))
    struct.pack_into("<QQI", params, 0xD8, 0x800000, 0x2000, 1)
    assert driver.alloc(CLIENT, DEVICE, 0x55, 0xC56F, bytes(params)) == 0 and driver.env.violations.names == []


def test_a_channel_inside_the_firmwares_memory_is_refused(driver: Driver) -> None:
    driver.space(CLIENT)
    params = driver.channel_params(3, 9, driver.meta["gspFwWprStart"])
    assert driver.alloc(CLIENT, DEVICE, 0x55, 0xC56F, params) == 0x1E


def test_a_channel_id_belongs_to_one_channel_of_a_runlist(driver: Driver) -> None:
    driver.space(CLIENT)
    driver.channel(CLIENT, 3, 9, 0x700000)
    assert driver.alloc(CLIENT, DEVICE, 0x55, 0xC56F, driver.channel_params(3, 9, 0x720000)) == 0x21
    assert driver.alloc(CLIENT, DEVICE, 0x55, 0xC56F, driver.channel_params(3, 10, 0x720000)) == 0, "another runlist, another number space"
    assert driver.env.violations.names == ["channel-id"]


def test_without_a_fixed_page_the_firmware_picks_the_id_and_the_token_tells_it(driver: Driver) -> None:
    driver.space(CLIENT)
    params = bytearray(driver.channel_params(0, 9, 0x700000))
    struct.pack_into("<I", params, 0x14, 0)
    assert driver.alloc(CLIENT, DEVICE, 0x55, 0xC56F, bytes(params)) == 0
    assert driver.control(CLIENT, 0x55, 0xC36F0108, bytes(4)) == (0, struct.pack("<I", 1))


def test_a_client_cannot_make_objects_without_end(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.space(CLIENT)
    made = sum(driver.gsp.view()["objects"].values()) + 3  # type: ignore[attr-defined]
    monkeypatch.setattr(objects, "MAX_OBJECTS", made + 2)
    assert [driver.alloc(CLIENT, DEVICE, 0x900 + number, 0xA06C, struct.pack("<5I", 0, 0, 0, 1, 0)) for number in range(3)] == [0, 0, 0x1A]
    assert driver.alloc(0xC1D00099, 0xC1D00099, 0xC1D00099, 0, bytes(120)) == 0x1A
    head = struct.pack("<7I4xQI4xI4xQ", 0xC2000001, 0xABCD0080, 0xCAF00003, 0x81, 0, 0, 6, 0x1000, 1, 1 << 16, 1)
    assert driver.call(4, head).result == 0x1A
    assert driver.free(CLIENT, 0x900) == 0 and driver.alloc(CLIENT, DEVICE, 0x902, 0xA06C, struct.pack("<5I", 0, 0, 0, 1, 0)) == 0
    assert driver.env.violations.names == []


def test_the_firmware_picks_the_lowest_id_that_is_free_on_the_runlist(driver: Driver) -> None:
    driver.space(CLIENT)
    for number, (engine, expected) in enumerate(((1, 1), (9, 1), (9, 2))):
        params = bytearray(driver.channel_params(0, engine, 0x700000 + 0x2000 * number))
        struct.pack_into("<I", params, 0x14, 0)
        assert driver.alloc(CLIENT, DEVICE, 0x55 + number, 0xC56F, bytes(params)) == 0
        assert driver.control(CLIENT, 0x55 + number, 0xC36F0108, bytes(4)) == (0, struct.pack("<I", expected))


def test_a_channel_of_a_group_takes_the_groups_address_space(driver: Driver) -> None:
    driver.space(CLIENT)
    assert driver.alloc(CLIENT, DEVICE, 0x60, 0xA06C, struct.pack("<5I", 0, 0, SPACE, 1, 0)) == 0
    assert driver.alloc(CLIENT, 0x60, 0x62, 0xC56F, driver.channel_params(5, 0, 0x700000, space=0)) == 0
    assert driver.env.channels.channels[0, 5].space.instances() == (0x700000,)  # type: ignore[attr-defined]
    assert driver.alloc(CLIENT, DEVICE, 0x61, 0xA06C, struct.pack("<5I", 0, 0, 0x77, 1, 0)) == 0x57
    assert driver.alloc(CLIENT, DEVICE, 0x61, 0xA06C, struct.pack("<5I", 0, 0, SPACE, 0x33, 0)) == 0x1F


def test_scheduling_before_binding_is_named(driver: Driver) -> None:
    driver.space(CLIENT)
    assert driver.alloc(CLIENT, DEVICE, 0x55, 0xC56F, driver.channel_params(3, 9, 0x700000)) == 0
    assert driver.control(CLIENT, 0x55, 0xA06F0103, b"\1\0")[0] == 0x40
    assert driver.control(CLIENT, 0x55, 0xA06F0104, struct.pack("<I", 10))[0] == 0x1F
    assert driver.env.violations.names == ["schedule-unbound", "bind-engine"]
    assert driver.control(CLIENT, 0x55, 0xA06F0104, struct.pack("<I", 9))[0] == 0
    assert driver.control(CLIENT, 0x55, 0xA06F0103, b"\1\0")[0] == 0
    assert driver.control(CLIENT, 0x55, 0xA06F0112, b"\1")[0] == 0
    assert driver.env.channels.enabled == set()


def test_disabling_channels_by_list_stops_and_restarts_them(driver: Driver) -> None:
    driver.space(CLIENT)
    handles = [driver.channel(CLIENT, chid, 9, 0x700000 + 0x2000 * chid) for chid in (3, 4)]
    lists = struct.pack("<64I", *([CLIENT] * 2), *[0] * 62) + struct.pack("<64I", *handles, *[0] * 62)
    off = struct.pack("<B3xIBB6xQ", 1, 2, 0, 0, 0) + lists
    assert driver.control(CLIENT, 0x5D1D0000, 0x2080110B, off)[0] == 0
    assert driver.env.channels.enabled == set()
    assert driver.control(CLIENT, 0x5D1D0000, 0x2080110B, b"\0" + off[1:])[0] == 0
    assert driver.env.channels.enabled == {(1, 3), (1, 4)}


def test_a_group_with_context_shares_schedules_its_channels(driver: Driver) -> None:
    driver.space(CLIENT)
    assert driver.alloc(CLIENT, DEVICE, 0x60, 0xA06C, struct.pack("<5I", 0, 0, 0, 1, 0)) == 0
    assert driver.alloc(CLIENT, 0x60, 0x61, 0x9067, struct.pack("<III", SPACE, 1, 0)) == 0
    params = bytearray(driver.channel_params(5, 0, 0x700000, space=0))
    struct.pack_into("<I", params, 0x18, 0x61)
    assert driver.alloc(CLIENT, 0x60, 0x62, 0xC56F, bytes(params)) == 0
    assert driver.alloc(CLIENT, 0x62, 0x63, 0xC6C0) == 0
    assert driver.control(CLIENT, 0x60, 0xA06C0101, b"\1\0")[0] == 0
    assert driver.env.channels.enabled == {(0, 5)}
    assert driver.free(CLIENT, 0x60) == 0 and driver.env.channels.channels == {}


def test_engine_objects_need_their_engine_on_the_runlist(driver: Driver) -> None:
    driver.space(CLIENT)
    copy = driver.channel(CLIENT, 3, 9, 0x700000)
    assert driver.alloc(CLIENT, copy, 0x70, 0xC697) == 0x22
    assert driver.alloc(CLIENT, copy, 0x70, 0xC6B5, struct.pack("<II", 1, 10)) == 0x1F
    assert driver.alloc(CLIENT, copy, 0x70, 0xC6B5, struct.pack("<II", 1, 9)) == 0


@pytest.mark.parametrize(
    ("root", "entries", "flags", "status"),
    [(0x200800, 4, 0, 0x1E), (1 << 44, 4, 0, 0x1E), (0x200000, 2, 0, 0x1F), (0x200000, 4, 3, 0x1E), (0x200000, 4, 8, 0), (0, 4, 0, 0)],
)
def test_page_directories_are_checked(driver: Driver, root: int, entries: int, flags: int, status: int) -> None:
    driver.space(CLIENT, root=None)
    block = struct.pack("<QIIIIII", root, entries, flags, SPACE, 0, 0, 0)
    assert driver.control(CLIENT, DEVICE, 0x00801813, block)[0] == status
    assert bool(driver.env.violations.names) == bool(status)


def test_the_page_directory_rpcs_do_what_the_controls_do(driver: Driver) -> None:
    driver.space(CLIENT, root=None)
    block = struct.pack("<QIIIIII", 0x300000, 4, 8, SPACE, 0, 1, 0xFFFFFFFF)
    assert driver.call(0x36, struct.pack("<III4x", CLIENT, DEVICE, 0xFFFFFFFF) + block).result == 0
    assert driver.gsp.view()["roots"] == [0x300000]
    assert driver.call(0x4F, struct.pack("<IIII", CLIENT, DEVICE, SPACE, 0)).result == 0
    assert driver.gsp.view()["roots"] == []


def test_unsetting_a_directory_under_running_channels_is_named(driver: Driver) -> None:
    driver.space(CLIENT)
    driver.channel(CLIENT, 3, 9, 0x700000)
    assert driver.control(CLIENT, DEVICE, 0x00801814, struct.pack("<II", SPACE, 0))[0] == 0
    assert driver.env.violations.names == ["unset-under-channels"]
    assert driver.control(CLIENT, DEVICE, 0x00801814, struct.pack("<II", SPACE, 0))[0] == 0x40


def test_an_unknown_control_is_not_supported_and_counted(driver: Driver) -> None:
    assert driver.internal(0x20809999, bytes(8)) == (0x56, bytes(8))
    assert driver.internal(0x20800A42, bytes(1284))[0] == 0x56, "that one belongs to the other release"
    assert driver.env.violations.controls == [0x20809999, 0x20800A42]


def test_a_control_of_the_wrong_size_or_on_the_wrong_object_is_refused(driver: Driver) -> None:
    assert driver.internal(0x20800137, bytes(8))[0] == 0x3A
    assert driver.control(0xC2000001, 0xABCD0080, 0x20800137, bytes(4))[0] == 0x31
    assert driver.control(0xC2000001, 0x5555, 0x20800137, bytes(4))[0] == 0x57
    assert driver.env.violations.names == ["control-size", "control-object", "control-object"]


def test_facts_about_the_gpu_agree_with_each_other(driver: Driver) -> None:
    static = driver.call(0x41, bytes(driver.static_size)).payload
    status, gid = driver.internal(0x2080014A, struct.pack("<II", 0, 2).ljust(268, b"\0"))
    assert status == 0 and gid[12:28] == static[0x24:0x34] and struct.unpack_from("<I", gid, 8)[0] == 16
    status, text = driver.internal(0x2080014A, bytes(268))
    assert status == 0 and text[12:16] == b"GPU-" and text[12:52].replace(b"-", b"")[3:35].decode() == gid[12:28].hex()
    status, name = driver.internal(0x20800110, bytes(132))
    assert status == 0 and name[4:68].rstrip(b"\0") == static[0x4EC:0x52C].rstrip(b"\0") == driver.env.chip.marketing.encode()
    assert driver.internal(0x2080017E, bytes(8)) == (0, struct.pack("<Q", driver.env.chip.vmmu_segment))
    assert driver.control(0xC2000001, 0xABCD0080, 0x00800291, bytes(80))[1] == static[0x460:0x4B0]
    assert driver.internal(0x20801320, bytes(776))[1] == static[0x158:0x460]
    assert driver.internal(0x20800A61, bytes(8))[1] == struct.pack("<II", 0, 2048)
    status, info = driver.internal(0x20801303, struct.pack("<I4I", 2, 7, 0, 11, 0).ljust(460, b"\0"))
    assert status == 0 and struct.unpack_from("<4I", info, 4) == (7, driver.env.memory.vram_size >> 10, 11, 5120)
    status, info = driver.internal(0x20801303, struct.pack("<I2I", 1, 9, 0).ljust(460, b"\0"))
    assert status == 0 and struct.unpack_from("<I", info, 8)[0] == (driver.meta["nonWprHeapOffset"] - MIB) >> 10


@pytest.mark.parametrize(
    ("patch", "name"),
    [
        ((0x08, "<Q", 0x200000), "reserved-range"),
        ((0x10, "<Q", 0x200000000), "reserved-range"),
        ((0x18, "<Q", 0x120000000), "reserved-range"),
        ((0x20, "<I", 4), "reserved-levels"),
        ((0x28 + 20, "<I", 46), "reserved-levels"),
        ((0x40 + 16, "<I", 2), "reserved-levels"),
        ((0x58, "<Q", 1 << 44), "reserved-levels"),
    ],
)
def test_the_firmwares_part_of_an_address_space_is_exactly_one_range(driver: Driver, patch: tuple[int, str, int], name: str) -> None:
    driver.space(CLIENT, external=False)
    block = bytearray(184)
    struct.pack_into("<IIQQQII", block, 0, 0, 0, 0x20000000, 0x100000000, 0x11FFFFFFF, 3, 0)
    for index, shift in enumerate((47, 38, 29)):
        struct.pack_into("<QQIB", block, 0x28 + 24 * index, 0x400000 + 0x1000 * index, 4096, 1, shift)
    assert driver.control(CLIENT, SPACE, 0x90F10106, bytes(block))[0] == 0
    struct.pack_into(patch[1], block, patch[0], patch[2])
    assert driver.control(CLIENT, SPACE, 0x90F10106, bytes(block))[0] == 0x1F
    assert driver.env.violations.names == [name]


@pytest.mark.parametrize(
    ("class_id", "length", "pages", "answer"),
    [
        (0x82, 64 * MIB, [0x1000], 0),
        (0x82, 64 * MIB, [(4096 * MIB >> 12) - 1], 0x1E),
        (0x81, 0x3000, [1, 2, 3], 0),
        (0x81, 0x4000, [1, 2, 3], 0x1F),
        (0x83, 0x3000, [1, 2, 3], 0xFF100002),
        (0x81, 0, [], 0xFF100002),
    ],
)
def test_memory_lists_are_compared_with_their_length_and_vram(
    driver: Driver, class_id: int, length: int, pages: list[int], answer: int
) -> None:
    head = struct.pack("<7I4xQI4xI4x", 0xC2000001, 0xABCD0080, 0xCAF00003, class_id, 0, 0, 6, length, len(pages), len(pages) << 16)
    assert driver.call(4, head + struct.pack(f"<{len(pages)}Q", *pages)).result == answer
    assert driver.free(0xC2000001, 0xCAF00003) == (0x57 if answer else 0)


def test_promotion_into_memory_that_is_not_the_drivers_is_refused(driver: Driver) -> None:
    driver.space(CLIENT)
    driver.channel(CLIENT, 1, 1, 0x700000)
    entry = struct.pack("<QQQIHBB", driver.meta["gspFwWprStart"], 0x100000, 0x1000, 4, 0, 1, 0)
    block = struct.pack("<6IQQII", 1, 0, 0, CLIENT, 0xF1F00001, 0, 0, 0, 1, 0) + entry
    assert driver.control(CLIENT, 0x5D1D0000, 0x2080012B, block.ljust(560, b"\0"))[0] == 0x1E
    assert driver.env.violations.names == ["promote-memory"]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([0x04, 0x0A, 0x2F, 0x36, 0x41, 0x46, 0x48, 0x49, 0x4C, 0x4F, 0x67, 0x99]),
    st.lists(st.sampled_from([0, 1, 4, 9, 24, 48, 120, CLIENT, DEVICE, SPACE, 0xC2000001, 0xABCD2080, 0x81, 0xC56F, 0x20804001, 0x20800A32,
                              0x2080012B, 0x90F10106, 0x80000000, 0xFFFFFFFF]), max_size=64),
    st.binary(max_size=16),
)  # fmt: skip
def test_no_payload_of_any_function_raises(function: int, words: list[int], tail: bytes) -> None:
    driver = Driver(Env())
    driver.boot()
    driver.space(CLIENT)
    driver.send(function, struct.pack(f"<{len(words)}I", *words) + tail)
    driver.wait(function, 0.01)
    assert driver.env.memory.stray == []


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_parameters_of_any_control_raise(data: st.DataObject) -> None:
    from nvcore_softgpu.gsp.controls import CONTROLS
    from nvcore_softgpu.gsp.versions import VERSIONS

    driver = Driver(Env(), vgpu=True)
    driver.boot()
    driver.space(CLIENT)
    channel = driver.channel(CLIENT, 1, 1, 0x700000)
    command = data.draw(st.sampled_from(sorted(CONTROLS)))
    size = CONTROLS[command].bytes_in(VERSIONS["570.144"])
    if size is None:
        return
    values = st.sampled_from([0, 1, 2, 9, 31, 0xFFFFFFFF, CLIENT, channel, 0x1000, 0x700000, 0x8000000])
    words = data.draw(st.lists(values, max_size=min(size // 4, 80)))
    params = struct.pack(f"<{len(words)}I", *words).ljust(size, b"\0")
    objects = {"subdevice": 0x5D1D0000, "device": DEVICE, "channel": channel, "address space": SPACE, "group": 0x60}
    driver.send(0x4C, struct.pack("<6I", CLIENT, objects[CONTROLS[command].kinds[0]], command, 0, size, 0) + params)
    assert driver.wait(0x4C) is not None
    assert driver.env.memory.stray == []


def test_parameters_in_a_form_that_is_not_played_are_refused(driver: Driver) -> None:
    reply = driver.call(0x4C, struct.pack("<6I", 0xC2000001, 0xABCD2080, 0x20800137, 0, 4, 2) + bytes(4))
    assert struct.unpack_from("<I", reply.payload, 12)[0] == 0x56 and driver.env.violations.names == ["control-flags"]


def test_parameters_come_back_on_an_error_when_the_caller_asks(driver: Driver) -> None:
    head = struct.pack("<6I", 0xC2000001, 0xABCD2080, 0x20801303, 0, 460, 1)
    reply = driver.call(0x4C, head + struct.pack("<I4I", 2, 7, 0, 0x77, 0).ljust(460, b"\0"))
    assert struct.unpack_from("<I", reply.payload, 12)[0] == 0x56
    assert struct.unpack_from("<I", reply.payload, 24 + 8)[0] == driver.env.memory.vram_size >> 10


def test_the_devices_view_can_be_written_as_json(driver: Driver) -> None:
    driver.space(CLIENT)
    driver.channel(CLIENT, 3, 9, 0x700000)
    view = json.loads(json.dumps(driver.gsp.view()))
    assert view["channels"] == [{"runlist": 1, "chid": 3, "engine": 9, "enabled": True, "stopped": False, "objects": []}]


OPERATIONS = st.one_of(
    st.tuples(st.just("space"), st.integers(0, 2)),
    st.tuples(st.just("channel"), st.integers(0, 2), st.integers(1, 4), st.sampled_from([1, 9, 10])),
    st.tuples(st.just("object"), st.integers(0, 2), st.integers(1, 4)),
    st.tuples(st.just("free"), st.integers(0, 2), st.sampled_from([CLIENT, DEVICE, 0x5D1D0000, SPACE, 0xF1F00001, 0xF1F00002, 0x901])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(OPERATIONS, max_size=25))
def test_the_host_engine_has_exactly_the_channels_whose_objects_live(operations: list[tuple[object, ...]]) -> None:
    driver = Driver(Env())
    driver.boot()
    for operation in operations:
        kind, number, *rest = operation
        client = CLIENT + number  # type: ignore[operator]
        if kind == "space":
            if driver.alloc(client, client, client, 0, bytes(120)) == 0:
                assert driver.free(client, client) == 0
                driver.space(client)
        elif kind == "channel":
            chid, engine = rest
            params = driver.channel_params(chid, engine, 0x700000 + 0x2000 * (4 * number + chid))  # type: ignore[arg-type,operator]
            driver.alloc(client, DEVICE, 0xF1F00000 | chid, 0xC56F, params)  # type: ignore[operator]
        elif kind == "object":
            driver.alloc(client, 0xF1F00000 | rest[0], 0x900 + rest[0], 0xC6B5, struct.pack("<II", 1, 9))  # type: ignore[operator]
        else:
            driver.free(client, client if rest[0] == CLIENT else rest[0])  # type: ignore[arg-type]
    view = driver.gsp.view()
    listed = {(channel["runlist"], channel["chid"]) for channel in view["channels"]}  # type: ignore[attr-defined]
    assert listed == set(driver.env.channels.channels)
    assert view["objects"].get("channel", 0) == len(listed)  # type: ignore[attr-defined]
    for client in range(CLIENT, CLIENT + 3):
        driver.free(client, client)
    assert driver.gsp.view()["objects"] == {} and driver.env.channels.channels == {} and driver.env.channels.enabled == set()
    assert set(driver.env.channels.roots.values()) <= {None}
