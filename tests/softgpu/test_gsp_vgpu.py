"""vGPU tasks: the whole way up and down, and everything that a host can get wrong on it."""

from __future__ import annotations

import struct

import pytest

from nvcore_softgpu.chips import CHIPS
from nvcore_softgpu.ports import Aperture
from tests.softgpu.gsp_rig import MIB, Driver, Env

VRAM = Aperture.VRAM
CLIENT = 0xC1D00010
MARKER = 0x4E654A6F
HEAP = 48 * MIB
UNIT = CHIPS[0].vmmu_segment
LAYOUTS = {"570.144": (6616, 364, 368, 376, 3448, 6520, 6576), "535.113.01": (6496, 276, 280, 288, 3360, 6432, 0)}


class Host:
    """One vGPU as a host driver keeps it."""

    def __init__(self, driver: Driver, gfid: int = 1, *, slot: int = 0) -> None:
        unit = driver.env.chip.vmmu_segment
        self.driver, self.gfid = driver, gfid
        self.segments = [(unit * (1 + 2 * slot), unit)]
        self.heap = (1024 * MIB + slot * HEAP, HEAP)
        self.chids = 512 * (1 + slot)
        self.channels = 512
        self.type = 0
        self.number = 0
        self.offsets = (0x1000, 0x2000, 0x3000, 0x203000)

    def parameters(self, **patch: int) -> bytes:
        size, _, count, addresses, lengths, heap, kernel = LAYOUTS[self.driver.version]
        block = bytearray(size)
        struct.pack_into("<7I", block, 0, 0x4104, self.gfid, self.type, 4242, 0, self.channels, 1)
        for engine in (1, 9, 10):
            struct.pack_into("<I", block, 28 + 4 * engine, self.chids)
        struct.pack_into("<I", block, count, len(self.segments))
        for index, (address, length) in enumerate(self.segments):
            struct.pack_into("<Q", block, addresses + 8 * index, address)
            struct.pack_into("<Q", block, lengths + 8 * index, length)
        base = self.heap[0]
        struct.pack_into("<7Q", block, heap, *self.heap, 0, base + 0x204000, 0x20000, base + 0x224000, 0x40000)
        if kernel:
            struct.pack_into("<QQ", block, kernel, base + 0x264000, 0x10000)
        return bytes(block)

    def bootload(self) -> int:
        return self.driver.control(CLIENT, 0x5D1D0000, 0x20804001, self.parameters())[0]

    def control(self, command: int) -> int:
        size = 8 if command == 0x2080400C else 4
        return self.driver.control(CLIENT, 0x5D1D0000, command, struct.pack("<I", self.gfid).ljust(size, b"\0"))[0]

    def write(self, offset: int, data: bytes) -> None:
        self.driver.env.memory.write(VRAM, self.heap[0] + offset, data)

    def word(self, offset: int) -> int:
        return struct.unpack("<I", self.driver.env.memory.read(VRAM, self.heap[0] + offset, 4))[0]

    def message(self, kind: int, body: bytes = b"", *, version: int = 1) -> int | None:
        """The result of one message, None when it was not processed."""
        self.number += 1
        self.write(0x2000, body)
        self.write(0, struct.pack("<III4xQQQQ", version, kind, self.number, *self.offsets))
        self.driver.gsp.vgpu_doorbell(self.gfid)
        processed = 0x1004 if self.driver.version == "570.144" else 0x1000
        return self.word(processed + 4) if self.word(processed) == self.number else None

    def configuration(self, channels: int = 512) -> bytes:
        body = bytes(range(16)) + struct.pack("<9I", 0x4104, 0, 1, self.type, 4242, 0, channels, 1, 0)
        return body.ljust(112, b"\0")


@pytest.fixture(params=[("GA100", "570.144"), ("GA100", "535.113.01"), ("GH100", "570.144")], ids="-".join)
def driver(request: pytest.FixtureRequest) -> Driver:
    chip, version = request.param
    driver = Driver(Env(chip), version, vgpu=True)
    driver.boot()
    driver.space(CLIENT, root=None)
    driver.events.clear()
    return driver


def upload(driver: Driver, numbers: list[int]) -> int:
    size, whole = (5224, 334344) if driver.version == "570.144" else (4952, 316936)
    block = bytearray(whole)
    struct.pack_into("<II", block, 0, 1, len(numbers))
    for index, number in enumerate(numbers):
        struct.pack_into("<I31sx", block, 8 + size * index, number, b"NVIDIA A100-4C")
        struct.pack_into("<I", block, 8 + size * index + 324, 8)
        struct.pack_into("<QQQ", block, 8 + size * index + 384, 4096 * MIB, 3072 * MIB, HEAP)
    driver.send(0x4C, struct.pack("<6I", CLIENT, 0x5D1D0000, 0x20804003, 0, whole, 0) + bytes(block))
    first = driver.wait(0x4C)
    assert first is not None
    left = 24 + whole - len(first.payload)
    while left:
        more = driver.wait(0x47)
        assert more is not None
        left -= len(more.payload)
    return struct.unpack_from("<I", first.payload, 12)[0]


def test_the_whole_way_up_and_down(driver: Driver) -> None:
    env = driver.env
    assert upload(driver, [700, 701]) == 0 and driver.gsp.view()["vgpu_types"] == [700, 701]
    host = Host(driver)
    host.type = 700
    assert host.bootload() == 0
    assert host.word(8) == MARKER
    assert [struct.unpack("<II", event.payload) for event in driver.events if event.function == 0x100D] == [(1, 0)]
    host.write(8, bytes(4))
    assert host.message(1) == 0 and host.word(0x2004) != 0
    assert host.message(2, host.configuration()) == 0
    assert host.message(13, b"\1") == 0
    task = driver.gsp.view()["vgpus"][0]
    assert (task["state"], task["uuid"], task["bus_master"], task["type"]) == ("configured", bytes(range(16)).hex(), True, 700)
    assert host.message(3) == 0
    status, listing = driver.control(CLIENT, 0x5D1D0000, 0x20804004, bytes(4872))
    assert status == 0 and struct.unpack_from("<II", listing) [0] == 1 and struct.unpack_from("<I", listing, 8 + 104)[0] == 1
    assert driver.control(CLIENT, 0x5D1D0000, 0x20804006, bytes(520))[1][:24] == struct.pack("<IIIIQ", 1, 0, 1, 0, env.chip.vmmu_segment)
    assert host.control(0x20804002) == 0
    assert host.control(0x20804008) == 0
    assert host.control(0x20804005) == 0
    if driver.version == "570.144":
        assert host.control(0x2080400C) == 0
    assert driver.gsp.view()["vgpus"] == []
    assert env.violations.texts == [] and env.memory.stray == []
    env.memory.fill(VRAM, host.heap[0], 0x1000, 0)
    assert Host(driver).bootload() == 0, "the function can be used again"


def test_guest_information_may_be_cleared_and_states_freed_before_the_shutdown(driver: Driver) -> None:
    host = Host(driver)
    assert host.bootload() == 0
    assert host.control(0x20804005) == 0
    assert host.control(0x20804002) == 0 and host.control(0x20804008) == 0
    assert driver.env.violations.texts == []


def test_offsets_may_be_written_before_the_marker_is_seen(driver: Driver) -> None:
    host = Host(driver)
    host.write(0, struct.pack("<III4xQQQQ", 1, 0, 0, *host.offsets))
    assert host.bootload() == 0 and host.word(8) == MARKER and host.message(1) == 0
    assert driver.env.violations.texts == []


def test_two_tasks_live_side_by_side_and_the_death_of_one_leaves_the_other(driver: Driver) -> None:
    first, second = Host(driver), Host(driver, 2, slot=1)
    assert (first.bootload(), second.bootload()) == (0, 0)
    driver.env.faults.arm("vgpu-crash")
    assert first.message(1) is None
    assert [task["state"] for task in driver.gsp.view()["vgpus"]] == ["crashed", "booted"]
    assert second.message(1) == 0
    assert first.control(0x20804008) == 0 and second.message(2, second.configuration()) == 0
    driver.wait(0x1FFE, 0.01)
    assert (1, 2) in [struct.unpack("<II", event.payload) for event in driver.events if event.function == 0x100D]


@pytest.mark.parametrize(
    ("what", "value", "name"),
    [
        ("gfid", 0, "vgpu-gfid"),
        ("gfid", 17, "vgpu-gfid"),
        ("segments", [], "vgpu-segments"),
        ("segments", [(UNIT, UNIT // 2)], "vgpu-segments"),
        ("segments", [(UNIT // 2, UNIT)], "vgpu-segments"),
        ("segments", [(UNIT, 0)], "vgpu-segments"),
        ("segments", [(1 << 43, UNIT)], "vgpu-memory"),
        ("segments", [(UNIT, 2 * UNIT), (2 * UNIT, UNIT)], "vgpu-memory"),
        ("segments", [(4096 * MIB - UNIT, UNIT)], "vgpu-memory"),
        ("heap", (UNIT, HEAP), "vgpu-memory"),
        ("heap", (0x400000800, HEAP), "vgpu-heap"),
        ("heap", (2048 * MIB, 0x260000), "vgpu-buffers"),
        ("chids", 1800, "vgpu-channels"),
    ],
)
def test_a_task_with_a_wrong_parameter_is_refused_and_nothing_is_written(what: str, value: object, name: str) -> None:
    driver = Driver(Env(), vgpu=True)
    driver.boot()
    driver.space(CLIENT, root=None)
    host = Host(driver)
    heap = host.heap
    setattr(host, what, value)
    assert host.bootload() != 0
    assert driver.env.violations.names == [name] and driver.gsp.view()["vgpus"] == []
    assert driver.env.memory.read(VRAM, heap[0], 0x1000) == bytes(0x1000)


@pytest.mark.parametrize(("length", "status"), [(0x274000, 0x37), (0x274001, 0)])
def test_the_last_buffer_ends_strictly_inside_the_heap(length: int, status: int) -> None:
    driver = Driver(Env(), vgpu=True)
    driver.boot()
    driver.space(CLIENT, root=None)
    host = Host(driver)
    host.heap = (1024 * MIB, length)
    assert host.bootload() == status


def test_two_tasks_share_neither_function_nor_memory_nor_channels(driver: Driver) -> None:
    assert Host(driver).bootload() == 0
    assert Host(driver, slot=1).bootload() == 0x63
    same_memory = Host(driver, 2, slot=1)
    same_memory.segments = [(driver.env.chip.vmmu_segment, driver.env.chip.vmmu_segment)]
    assert same_memory.bootload() == 0x1E
    same_heap = Host(driver, 2, slot=1)
    same_heap.heap = (1024 * MIB + HEAP - MIB, HEAP)
    assert same_heap.bootload() == 0x1E
    same_channels = Host(driver, 2, slot=1)
    same_channels.chids = 1000
    assert same_channels.bootload() == 0x17
    assert Host(driver, 2, slot=1).bootload() == 0


def test_a_run_of_channels_that_the_host_uses_is_refused(driver: Driver) -> None:
    driver.space(0xC1D00000)
    driver.channel(0xC1D00000, 600, 9, 0x700000)
    assert Host(driver).bootload() == 0x17
    assert driver.env.violations.names == ["vgpu-channels"]


@pytest.mark.parametrize("missing", ["registry", "heap", "partitions", "vf-info", "capability"])
def test_without_the_boot_settings_there_are_no_vgpus(missing: str) -> None:
    driver = Driver(Env(), vgpu=True)
    if missing == "registry":
        driver.vgpu = False
        driver.system_info = lambda: _with_functions(driver)  # type: ignore[method-assign]
    elif missing == "heap":
        driver.meta["gspFwHeapSize"] = 580 * MIB
    elif missing == "partitions":
        driver.meta["gspFwHeapVfPartitionCount"] = 0
    elif missing == "vf-info":
        driver.system_info = lambda: bytes(driver.system_size)  # type: ignore[method-assign]
    else:
        driver.env.vfs = {}
        driver.system_info = lambda: bytes(driver.system_size)  # type: ignore[method-assign]
    driver.boot()
    driver.space(CLIENT, root=None)
    assert Host(driver).bootload() == 0x40
    assert driver.env.violations.names == ["vgpu-not-enabled"]


def _with_functions(driver: Driver) -> bytes:
    data = bytearray(driver.system_size)
    struct.pack_into("<II", data, driver.vf_at, 16, 4)
    return bytes(data)


def test_function_counts_that_do_not_match_the_capability_are_named() -> None:
    driver = Driver(Env(), vgpu=True)
    driver.env.vfs["total_vfs"] = 8
    driver.boot()
    assert driver.env.violations.names == ["vf-info"]


def test_messages_out_of_order_are_refused(driver: Driver) -> None:
    host = Host(driver)
    assert host.bootload() == 0
    assert host.message(2, host.configuration()) == 0x40
    assert host.message(1) == 0
    assert host.message(13, b"\1") == 0x40
    assert host.message(2, host.configuration(channels=511)) == 0x1F
    assert host.message(2, host.configuration()) == 0
    assert host.message(6) == 0x56, "migration is not played"
    assert host.message(99) == 0x1F


def test_doorbells_without_a_message_and_wrong_control_buffers_are_named(driver: Driver) -> None:
    host = Host(driver)
    driver.gsp.vgpu_doorbell(1)
    assert host.bootload() == 0
    driver.gsp.vgpu_doorbell(1)
    assert driver.env.violations.names == ["vgpu-doorbell", "vgpu-doorbell"]
    assert host.message(1, version=2) is None
    host.offsets = (0x1000, HEAP, 0, 0)
    assert host.message(1) is None
    assert driver.env.violations.names[2:] == ["vgpu-control", "vgpu-control"]
    host.offsets = (0x1000, 0x2000, 0x3000, 0x203000)
    assert host.message(1) == 0


def test_teardown_out_of_order_is_refused(driver: Driver) -> None:
    host = Host(driver)
    assert host.control(0x20804002) == 0x57
    assert host.control(0x20804008) == 0x57
    assert host.bootload() == 0
    assert host.control(0x20804008) == 0x40
    assert driver.free(CLIENT, CLIENT) == 0
    assert driver.env.violations.names == ["vgpu-unknown", "vgpu-unknown", "vgpu-cleanup-running", "vgpu-client-freed"]


def test_faults_of_tasks(driver: Driver) -> None:
    host = Host(driver)
    driver.env.faults.arm("vgpu-no-marker")
    assert host.bootload() == 0 and host.word(8) == 0
    driver.env.faults.arm("vgpu-rpc-silent")
    assert host.message(1) is None
    driver.env.faults.arm("vgpu-rpc-error:0x77")
    assert host.message(1) == 0x77
    assert host.message(1) == 0
    driver.env.faults.arm("gsp-halt@bootload")
    other = Host(driver, 2, slot=1)
    driver.send(0x4C, struct.pack("<6I", CLIENT, 0x5D1D0000, 0x20804001, 0, len(other.parameters()), 0) + other.parameters())
    assert driver.wait(0x4C, 1.0) is None and driver.env.halted


def test_a_marker_left_behind_is_named(driver: Driver) -> None:
    host = Host(driver)
    host.write(8, struct.pack("<I", MARKER))
    assert host.bootload() == 0
    assert driver.env.violations.names == ["vgpu-stale-control"]


def test_an_unknown_type_is_refused_once_types_are_known(driver: Driver) -> None:
    assert upload(driver, [700]) == 0
    assert upload(driver, [700, 700]) == 0x1F
    host = Host(driver)
    host.type = 999
    assert host.bootload() == 0x1F
    host.type = 0
    assert host.bootload() == 0 and host.message(1) == 0
    host.type = 999
    assert host.message(2, host.configuration()) == 0x1F
