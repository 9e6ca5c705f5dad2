"""The libos arguments and log buffers: read with suspicion, written only where their page list says."""

from __future__ import annotations

import struct

import pytest

from nvcore_softgpu.ports import Aperture
from tests.softgpu.gsp_rig import Driver, Env

SYSTEM = Aperture.SYSTEM


def entry(driver: Driver, index: int, **changes: int) -> None:
    """Change fields of one libos argument."""
    at = driver.libos + 32 * index
    fields = dict(zip(("id", "pa", "size", "kind", "loc"), struct.unpack("<QQQBB6x", driver.env.memory.read(SYSTEM, at, 32)), strict=True))
    fields |= changes
    driver.env.memory.write(SYSTEM, at, struct.pack("<QQQBB6x", *fields.values()))


def log(driver: Driver, index: int) -> bytes:
    """What a log region holds."""
    return driver.env.memory.read(SYSTEM, driver.libos + 0x1000 + 0x10000 * index, 0x10000)


@pytest.mark.parametrize(
    "change",
    [{"kind": 2}, {"loc": 2}, {"size": 0x10800}, {"size": 0}, {"pa": 0x20001008}, {"pa": 0}, {"id": int.from_bytes(b"LOGINIT", "big")}],
    ids=str,
)
def test_a_wrong_argument_is_named_and_the_boot_goes_on(change: dict[str, int]) -> None:
    driver = Driver(Env())
    entry(driver, 1, **change)
    driver.boot()
    assert driver.env.violations.names == ["libos-argument"] and driver.env.memory.stray == []


@pytest.mark.parametrize("name", [b"LOGINTR", b"LOGMNOC"])
@pytest.mark.parametrize("version", ["535.113.01", "570.144"])
def test_a_log_region_that_the_image_does_not_know_is_taken_without_a_word_and_left_as_it_was(name: bytes, version: str) -> None:
    """Drivers send LOGINTR to every chip; GA100's image, of the tu10x family, has no such log."""
    driver = Driver(Env(), version)
    assert driver.env.chip.name == "GA100"
    entry(driver, 1, id=int.from_bytes(name, "big"))
    before = [log(driver, index) for index in range(3)]
    driver.boot()
    assert driver.gsp.running and driver.env.violations.names == []
    assert [log(driver, index) == before[index] for index in range(3)] == [False, True, False]


def test_each_image_writes_the_logs_that_it_has() -> None:
    """GH100 runs the image of the ga10x family, which has LOGINTR in every release and LOGMNOC from 570 on."""
    for version, name, written in (("535.113.01", b"LOGINTR", True), ("535.113.01", b"LOGMNOC", False), ("570.144", b"LOGMNOC", True)):
        driver = Driver(Env("GH100"), version)
        entry(driver, 1, id=int.from_bytes(name, "big"))
        before = log(driver, 1)
        driver.boot()
        assert driver.gsp.running and (log(driver, 1) != before) is written, (version, name)


def test_the_first_argument_is_loginit() -> None:
    driver = Driver(Env())
    entry(driver, 0, id=int.from_bytes(b"LOGKRNL", "big"))
    driver.boot()
    assert driver.env.violations.names == ["libos-argument"]


def test_without_rmargs_nothing_starts() -> None:
    driver = Driver(Env())
    entry(driver, 3, id=int.from_bytes(b"RMARGZ", "big"))
    assert "RMARGS" in (driver.gsp.start(driver.meta, driver.libos) or "")


def test_resume_arguments_in_a_cold_boot_are_named() -> None:
    driver = Driver(Env())
    driver.set_arguments(level=3)
    driver.boot()
    assert driver.env.violations.names == ["resume-arguments"]


@pytest.mark.parametrize("index", [0, 5, 15])
def test_a_log_with_a_bad_page_list_is_named_and_not_written(index: int) -> None:
    driver = Driver(Env())
    at = driver.libos + 0x1000
    driver.env.memory.write(SYSTEM, at + 8 * (1 + index), struct.pack("<Q", 0 if index else at + 0x1000))
    driver.boot()
    assert driver.env.violations.names == ["log-page-list"]
    assert driver.env.memory.read(SYSTEM, at, 8) == bytes(8)


def test_a_put_index_before_the_start_is_named() -> None:
    driver = Driver(Env())
    driver.env.memory.write(SYSTEM, driver.libos + 0x1000, struct.pack("<Q", 7))
    driver.boot()
    assert driver.env.violations.names == ["log-put"]


def test_log_words_follow_the_page_list_wherever_the_pages_lie() -> None:
    driver = Driver(Env())
    at = driver.libos + 0x1000
    driver.env.memory.grant(0x50000000, 0x10000)
    pages = [at, *(0x50000000 + 0x1000 * (15 - index) for index in range(15))]
    driver.env.memory.write(SYSTEM, at + 8, struct.pack("<16Q", *pages))
    driver.boot()
    for number in range(600):
        driver.gsp.channel_fault(1, 1, f"cause {number}", None)
        driver.events.clear()
        while driver.receive() is not None:
            pass
    put = struct.unpack("<Q", driver.env.memory.read(SYSTEM, at, 8))[0]
    assert put == 4 * 601 and driver.env.memory.stray == [] and driver.env.violations.names == []
    places = [8 * 17 + 8 * index for index in range(put)]
    words = [driver.env.memory.read(SYSTEM, pages[place // 0x1000] + place % 0x1000, 8) for place in places]
    assert all(any(words[4 * index + 1]) for index in range(601))


def test_a_log_that_is_full_begins_again() -> None:
    driver = Driver(Env())
    driver.boot()
    room = (0x10000 - 8 * 17) // 8
    for _ in range(room // 4 + 2):
        driver.gsp.channel_fault(1, 1, "again", None)
        while driver.receive() is not None:
            pass
    assert driver.env.memory.stray == [] and driver.env.violations.names == []
    head = driver.env.memory.read(SYSTEM, driver.libos + 0x1000 + 8, 8)
    assert struct.unpack("<Q", head)[0] == driver.libos + 0x1000, "the page list is intact"
