"""The firmware's start, the transcript that nouveau produces, and the way out."""

from __future__ import annotations

import struct

import pytest

from nvcore_softgpu.ports import Aperture
from tests.softgpu.gsp_rig import Driver, Env

CASES = [("GA100", "570.144"), ("GA100", "535.113.01"), ("GH100", "570.144")]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def driver(request: pytest.FixtureRequest) -> Driver:
    chip, version = request.param
    return Driver(Env(chip), version)


def static_offsets(driver: Driver) -> dict[str, int]:
    if driver.version == "570.144":
        return {"regions": 0x158, "bar1": 0x600, "bar2": 0x608, "handles": 0x640, "name": 0x4EC}
    return {"regions": 0x348, "bar1": 0x828, "bar2": 0x830, "handles": 0x868, "name": 0x71C}


def golden_context(driver: Driver, chid: int) -> None:
    """Steps 15 to 24 of nouveau's transcript."""
    client, env = 0xC1D00001, driver.env
    driver.space(client, external=False)
    shifts = (47, 38, 29) if env.chip.tables == 2 else (56, 47, 38, 29)
    block = struct.pack("<IIQQQII", 0, 0, 0x20000000, 0x100000000, 0x11FFFFFFF, len(shifts), 0)
    for index, shift in enumerate(shifts):
        block += struct.pack("<QQIB3x", 0x400000 + 0x1000 * index, 32 if index == 0 else 4096, 1, shift)
    assert driver.control(client, 0x90F10000, 0x90F10106, block.ljust(184, b"\0"))[0] == 0
    params = driver.channel_params(chid, 1, 0x500000, entries=0x200)
    assert driver.alloc(client, 0xDE1D0000, 0xF1F00000, env.chip.channel_class, params) == 0
    properties = 26 if driver.version == "570.144" else 25
    status, sizes = driver.internal(0x20800A32, bytes(8 * properties * 8))
    assert status == 0
    for number in (0, 0x10, 0x11, 0xD, 0x12, 0x13, 0x14, 0x17, 0x18):
        assert all(struct.unpack_from("<II", sizes, 8 * number)), hex(number)
    if driver.version == "570.144":
        assert driver.internal(0x20801206, bytes(40))[0] == 0
    env.memory.write(Aperture.VRAM, 0x600000, b"\xaa" * 0x9000)
    entries = b""
    for index, number in enumerate((0, 4, 2, 3, 5, 6, 9, 10, 11)):
        entries += struct.pack("<QQQIHBB", 0x600000 + 0x1000 * index, 0x100000 + index * 0x1000, 0x1000, 4, number, number in (0, 2, 9), 0)
    promote = struct.pack("<6IQQII", 1, 0, 0, client, 0xF1F00000, 0, 0, 0, 9, 0) + entries
    assert driver.control(client, 0x5D1D0000, 0x2080012B, promote.ljust(560, b"\0"))[0] == 0
    assert env.memory.read(Aperture.VRAM, 0x600000, 0x1000) == bytes(0x1000), "a buffer to be initialised is zeroed"
    assert env.memory.read(Aperture.VRAM, 0x601000, 4) == b"\xaa" * 4, "one that is not stays as it was"
    assert driver.alloc(client, 0xF1F00000, 0x97000000, env.chip.graphics_class) == 0
    for handle in (0x97000000, 0xF1F00000, 0x90F10000, 0x5D1D0000, 0xDE1D0000, client):
        assert driver.free(client, handle) == 0


def test_nouveaus_whole_transcript_is_answered_without_a_violation(driver: Driver) -> None:
    env, old = driver.env, driver.version == "535.113.01"
    driver.boot()
    assert env.messages == 0, "no interrupt for GSP_INIT_DONE: on resume it would be taken from the poll"
    static = driver.call(0x41, bytes(driver.static_size))
    at = static_offsets(driver)
    assert len(static.payload) == driver.static_size
    assert struct.unpack_from("<III", static.payload, at["handles"]) == (0xC2000001, 0xABCD0080, 0xABCD2080)
    assert struct.unpack_from("<QQ", static.payload, at["bar1"]) == env.bar_directories()
    count = struct.unpack_from("<I", static.payload, at["regions"])[0]
    regions = [struct.unpack_from("<QQQIBBB", static.payload, at["regions"] + 8 + 48 * index) for index in range(count)]
    usable = [row[:2] for row in regions if not (row[2] or row[6]) and row[4] and row[5]]
    assert usable == [(1 << 20, driver.meta["nonWprHeapOffset"] - 1)]
    if old:
        assert struct.unpack_from("<III", static.payload, 0x124) == (1, 0, 3)
    else:
        assert driver.internal(0x20800137, bytes(4)) == (0, struct.pack("<I", 1))
        assert driver.internal(0x20800138, bytes(8)) == (0, struct.pack("<II", 0, 3))
        assert driver.internal(0x20800A1C, bytes(40))[0] == 0
        if env.chip.name == "GH100":
            assert struct.unpack_from("<Q", static.payload, 0x668)[0] == driver.meta["nonWprHeapOffset"]
    status, table = driver.internal(0x20800A5C, bytes(2068))
    count = struct.unpack_from("<I", table)[0]
    rows = [struct.unpack_from("<HHIII", table, 4 + 16 * n) for n in range(count)]
    vectors = {row[0]: row[3:] for row in rows}
    assert status == 0 and vectors[0x31 if old else 0x32] == (env.chip.gsp_vector, 0xFFFFFFFF)
    assert {0x52 if old else 0x54, 0x0F, 0x10} < vectors.keys()
    shift = 47 if env.chip.tables == 2 else 56
    driver.call(0x46, struct.pack("<I4xQQ", 1, 0x1234, shift))
    assert env.bar2 == 0x1234
    driver.space(0xC1D00000)
    status, fifo = driver.internal(0x20801112, bytes(3212))
    assert status == 0 and struct.unpack_from("<IIB", fifo) == (0, 3, 0)
    rows = [struct.unpack_from("<16I", fifo, 12 + 100 * n) for n in range(3)]
    assert [(row[2], row[3], row[11]) for row in rows] == [(e.engine_type, e.runlist, e.runlist_base) for e in env.chip.engines]
    names = [fifo[12 + 100 * n + 0x54 : 12 + 100 * n + 0x64].rstrip(b"\0") for n in range(3)]
    assert names == [b"GR0", b"CE0", b"CE1"] and rows[0][0] == 0 and 0 != rows[1][0] != rows[2][0]
    status, size = driver.internal(0x20802A08, bytes(4))
    assert status == 0 and 0 < struct.unpack("<I", size)[0] <= 0x10000
    assert driver.internal(0x20800A42 if old else 0x208001B0, bytes(1284))[0] == 0
    first = 0 if old else 1
    golden_context(driver, first)
    driver.channel(0xC1D00000, first, 1, 0x700000)
    copy = driver.channel(0xC1D00000, first + 1, 9, 0x710000)
    handle = env.chip.copy_class | 4 << 16
    assert driver.alloc(0xC1D00000, copy, handle, env.chip.copy_class, struct.pack("<II", 1, 9)) == 0
    assert env.channels.enabled == {(0, first), (1, first + 1)}
    assert ("object", 1, first + 1, env.chip.copy_class) in env.channels.calls
    assert env.violations.texts == [] and env.violations.controls == [] and env.memory.stray == []


def test_unload_frees_everything_and_says_so_in_the_mailbox(driver: Driver) -> None:
    env = driver.env
    driver.boot()
    driver.space(0xC1D00000)
    driver.channel(0xC1D00000, 1, 9, 0x700000)
    assert driver.call(0x2F, bytes(8)).result == 0
    assert env.mailboxes[0] == 0x80000000
    assert env.halted == (env.chip.name == "GH100")
    assert not driver.gsp.running and env.channels.channels == {}
    driver.send(0x41, bytes(driver.static_size))
    assert driver.wait(0x41, 1.0) is None, "an unloaded firmware answers nothing"


def test_start_messages_sent_after_the_start_are_as_good_as_queued_ones() -> None:
    driver = Driver(Env())
    assert driver.gsp.start(driver.meta, driver.libos) is None
    assert driver.receive() is None
    driver.queue_start()
    assert driver.wait(0x1001) is not None
    assert [event.function for event in driver.events] == [0x1002], "one empty CPU sequence before it, which nova waits for"
    assert driver.env.violations.texts == []


def test_a_scattered_block_works_like_a_contiguous_one() -> None:
    driver = Driver(Env(), scatter=True)
    driver.boot()
    assert driver.call(0x41, bytes(driver.static_size)).result == 0
    assert driver.env.violations.texts == [] and driver.env.memory.stray == []


def test_the_status_header_is_complete_before_the_first_message() -> None:
    driver = Driver(Env())
    driver.gsp.start(driver.meta, driver.libos)
    assert struct.unpack("<9I", driver._get(0x41000, 36)) == (0, 0x40000, 0x1000, 63, 0, 1, 0x20, 0x1000, 0)


@pytest.mark.parametrize("version", ["535.113.01", "570.144"])
def test_suspend_and_resume_keep_objects_queues_and_channels(version: str) -> None:
    driver = Driver(Env(), version)
    driver.boot()
    driver.space(0xC1D00000)
    driver.channel(0xC1D00000, 1, 9, 0x700000)
    old = version == "535.113.01"
    if not old:
        assert driver.internal(0x20800AC3, b"\1")[0] == 0
        assert driver.env.channels.enabled == set()
        assert driver.control(0xC2000001, 0xABCD0080, 0x00801306, bytes(80))[0] == 0
    pages = 0x1000
    head = struct.pack("<7I4xQI4xI4x", 0xC2000001, 0xABCD0080, 0xCAF00003, 0x81, 0x40000010, 0, 6, pages << 12, pages, pages << 16)
    driver.send(4, head + struct.pack(f"<{pages}Q", *range(0x1000, 0x1000 + pages)))
    reply = driver.wait(4)
    assert reply is not None and len(reply.payload) == 0x38, "the page list is not echoed"
    init = struct.pack("<IIIIQB7x", 4, 1, 3254779905, 3404726275, 0, 0) if old else struct.pack("<IIB7xQ", 3254779905, 3404726275, 1, 4096)
    assert driver.internal(0x20800AC2, init)[0] == 0
    assert driver.free(0xC2000001, 0xCAF00003) == 0
    driver.call(0x2F, struct.pack("<BB2xI", 1, 0, 3))
    assert driver.env.mailboxes[0] == 0x80000000
    driver.gsp.stop()
    driver.env.memory.granted -= set(range(driver.libos // 4096, driver.libos // 4096 + 0x100))
    messages, suspended = driver.env.messages, driver.env.ticker.time
    assert driver.gsp.resume() is None
    assert driver.receive() is None, "a worker that still has an interrupt of before the suspend to look at finds nothing to take"
    assert not driver.gsp.serving
    assert driver.wait(0x1001) is not None
    assert driver.env.ticker.time >= suspended + 0.1
    assert driver.env.messages == messages and driver.gsp.serving
    if not old:
        assert driver.internal(0x20800AC3, b"\0")[0] == 0
    assert driver.env.channels.enabled == {(1, 1)}
    assert driver.free(0xC1D00000, 0xF1F00001) == 0
    assert driver.env.violations.texts == [] and driver.env.memory.stray == []


def suspended_driver() -> Driver:
    driver = Driver(Env())
    driver.boot()
    pages = 0x1000
    head = struct.pack("<7I4xQI4xI4x", 0xC2000001, 0xABCD0080, 0xCAF00003, 0x81, 0x40000010, 0, 6, pages << 12, pages, pages << 16)
    driver.send(4, head + struct.pack(f"<{pages}Q", *range(0x1000, 0x1000 + pages)))
    assert driver.wait(4) is not None
    assert driver.internal(0x20800AC2, struct.pack("<IIB7xQ", 3254779905, 3404726275, 1, 4096))[0] == 0
    driver.call(0x2F, struct.pack("<BB2xI", 1, 0, 3))
    driver.gsp.stop()
    return driver


def test_a_command_before_the_init_done_of_a_resume_is_named() -> None:
    driver = suspended_driver()
    assert driver.gsp.resume() is None
    driver.send(0x41, bytes(driver.static_size))
    assert driver.env.violations.names == ["command-before-init"]


def test_a_resume_that_is_cut_off_says_nothing_later() -> None:
    driver = suspended_driver()
    assert driver.gsp.resume() is None
    driver.gsp.halt("test")
    driver.env.ticker.advance(1.0)
    assert driver.receive() is None
    assert driver.gsp.view()["phase"] == "halted"


@pytest.mark.parametrize(
    ("arguments", "phase"), [(bytes(8), "unloaded"), (struct.pack("<BB2xI", 1, 0, 3), "suspended")], ids=["unloaded", "suspended"]
)
def test_a_firmware_that_ends_during_a_resume_stays_ended(arguments: bytes, phase: str) -> None:
    driver = suspended_driver()
    assert driver.gsp.resume() is None
    driver.call(0x2F, arguments)
    if phase == "suspended":
        driver.gsp.stop()
    driver.env.ticker.advance(1.0)
    assert driver.receive() is None
    assert driver.gsp.view()["phase"] == phase and not driver.gsp.running


def test_an_image_that_nobody_knows_does_not_start() -> None:
    driver = Driver(Env())
    driver.env.memory.write(Aperture.SYSTEM, 0x30003800, bytes(64))
    reason = driver.gsp.start(driver.meta, driver.libos)
    assert reason is not None and "no known firmware image" in reason
    assert not driver.gsp.running


def test_a_real_image_is_recognised_by_its_size_and_its_first_bytes() -> None:
    driver = Driver(Env())
    driver.env.memory.write(Aperture.SYSTEM, 0x30003800, bytes(64))
    driver.env.memory.write(Aperture.SYSTEM, 0x30003000, b"\x7fELF")
    driver.meta["sizeOfRadix3Elf"] = 28528288
    assert driver.gsp.start(driver.meta, driver.libos) is None
    assert (driver.gsp.view()["version"], driver.gsp.view()["synthetic"]) == ("570.144", False)


def test_an_image_of_a_version_without_a_model_is_refused_by_name() -> None:
    driver = Driver(Env())
    driver.env.memory.write(Aperture.SYSTEM, 0x30003800, bytes(64))
    driver.env.memory.write(Aperture.SYSTEM, 0x30003000, b"\x7fELF")
    driver.meta["sizeOfRadix3Elf"] = 24604872
    assert "550.163.01" in (driver.gsp.start(driver.meta, driver.libos) or "")


def test_log_buffers_move_their_put_index() -> None:
    driver = Driver(Env())
    driver.boot()
    put = struct.unpack("<Q", driver.env.memory.read(Aperture.SYSTEM, driver.libos + 0x1000, 8))[0]
    driver.gsp.halt("test")
    later = struct.unpack("<Q", driver.env.memory.read(Aperture.SYSTEM, driver.libos + 0x1000, 8))[0]
    assert put > 0 and later > put
