"""Each fault that acts inside the firmware does what its row says, once; and events carry what their readers expect."""

from __future__ import annotations

import struct

import pytest

from nvcore_softgpu.faults import FAULTS
from nvcore_softgpu.gsp.fault_names import GSP_FAULTS
from tests.softgpu.gsp_rig import Driver, Env


@pytest.fixture
def driver() -> Driver:
    driver = Driver(Env())
    driver.boot()
    driver.events.clear()
    return driver


def static(driver: Driver) -> int:
    return driver.call(0x41, bytes(driver.static_size)).result


def test_no_init_done_leaves_the_driver_waiting() -> None:
    driver = Driver(Env())
    driver.env.faults.arm("no-init-done")
    driver.queue_start()
    assert driver.gsp.start(driver.meta, driver.libos) is None and driver.gsp.running
    assert driver.wait(0x1001, 80.0) is None


def test_init_status_puts_an_error_into_init_done() -> None:
    driver = Driver(Env())
    driver.env.faults.arm("init-status:0x62")
    driver.queue_start()
    driver.gsp.start(driver.meta, driver.libos)
    done = driver.wait(0x1001)
    assert done is not None and done.result == 0x62


def test_rpc_result_fits_one_function_and_acts_once(driver: Driver) -> None:
    driver.env.faults.arm("rpc-result:0x41,0x55")
    assert driver.internal(0x20800137, bytes(4))[0] == 0
    assert static(driver) == 0x55
    assert static(driver) == 0
    driver.env.faults.arm("rpc-result")
    assert static(driver) == 0xFF


def test_rpc_no_reply_swallows_one(driver: Driver) -> None:
    driver.env.faults.arm("rpc-no-reply:0x41")
    driver.send(0x41, bytes(driver.static_size))
    assert driver.wait(0x41, 10.0) is None
    assert static(driver) == 0


@pytest.mark.parametrize(("how", "answer"), [("lost", None), ("silent", None), ("zero", {0}), ("all-ones", {0xFF})])
def test_rpc_spoil_meets_the_nth_message_and_no_other(driver: Driver, how: str, answer: set[int] | None) -> None:
    driver.env.faults.arm(f"rpc-spoil:{how},2")
    assert static(driver) == 0
    driver.send(0x41, bytes(driver.static_size))
    spoilt = driver.wait(0x41, 10.0)
    assert (None if spoilt is None else set(spoilt.payload)) == answer
    assert static(driver) == 0


@pytest.mark.parametrize(("how", "clients"), [("silent", 1), ("lost", 0)])
def test_a_silent_message_is_done_and_a_lost_one_is_not(driver: Driver, how: str, clients: int) -> None:
    driver.env.faults.arm(f"rpc-spoil:{how}")
    handle, params = 0xC1D00001, struct.pack("<II", 0xC1D00001, 0xFFFFFFFF).ljust(driver.root_size, b"\0")
    driver.send(0x67, struct.pack("<7I4x", handle, handle, handle, 0, 0, len(params), 0) + params)
    assert driver.wait(0x67, 10.0) is None
    assert driver.gsp.view()["objects"].get("client", 0) == clients  # type: ignore[attr-defined]


def test_rpc_delay_holds_one_reply_for_its_time(driver: Driver) -> None:
    driver.env.faults.arm("rpc-delay:2.5")
    driver.send(0x41, bytes(driver.static_size))
    assert driver.wait(0x41, 2.4) is None
    assert driver.wait(0x41, 0.2) is not None


def test_a_late_reply_of_an_earlier_life_never_comes(driver: Driver) -> None:
    driver.env.faults.arm("rpc-delay:2")
    driver.send(0x41, bytes(driver.static_size))
    driver.gsp.stop()
    assert driver.wait(0x41, 5.0) is None


@pytest.mark.parametrize(("fault", "field"), [("rpc-checksum", "checksum"), ("rpc-sequence", "number")])
def test_a_spoiled_reply_is_spoiled_in_one_place(driver: Driver, fault: str, field: str) -> None:
    before = driver.call(0x41, bytes(driver.static_size))
    driver.env.faults.arm(fault)
    spoiled = driver.call(0x41, bytes(driver.static_size))
    if field == "checksum":
        assert spoiled.checksum != 0 and spoiled.number == before.number + 1
    else:
        assert spoiled.checksum == 0 and spoiled.number == before.number
    after = driver.call(0x41, bytes(driver.static_size))
    assert (after.checksum, after.number) == (0, before.number + 2)


def test_rpc_oversize_announces_more_slots_than_the_ring_has(driver: Driver) -> None:
    driver.env.faults.arm("rpc-oversize")
    driver.send(0x41, bytes(driver.static_size))
    slots = driver.word(0x42000 + driver.read * 0x1000 + 40)
    assert slots > 63


def test_control_status_fits_one_command(driver: Driver) -> None:
    driver.env.faults.arm("control-status:0x20800138")
    assert driver.internal(0x20800137, bytes(4))[0] == 0
    assert driver.internal(0x20800138, bytes(8))[0] == 0x56
    assert driver.internal(0x20800138, bytes(8))[0] == 0
    driver.env.faults.arm("control-status:,0x66")
    assert driver.internal(0x20800138, bytes(8))[0] == 0x66


def test_alloc_status_fits_one_class(driver: Driver) -> None:
    driver.env.faults.arm("alloc-status:0x0,0x51")
    assert driver.alloc(0xC1D00000, 0xC1D00000, 0xC1D00000, 0, bytes(120)) == 0x51
    assert driver.alloc(0xC1D00000, 0xC1D00000, 0xC1D00000, 0, bytes(120)) == 0


def test_an_unknown_event_comes_before_the_reply(driver: Driver) -> None:
    driver.env.faults.arm("unknown-event")
    assert static(driver) == 0
    assert [event.function for event in driver.events] == [0x1FFF]


@pytest.mark.parametrize(("fault", "entries"), [("empty-interrupt-table", 0), ("engine-without-interrupt", 3)])
def test_interrupt_table_faults(driver: Driver, fault: str, entries: int) -> None:
    driver.env.faults.arm(fault)
    assert struct.unpack_from("<I", driver.internal(0x20800A5C, bytes(2068))[1])[0] == entries
    assert struct.unpack_from("<I", driver.internal(0x20800A5C, bytes(2068))[1])[0] == 4


def test_the_cpu_sequence_can_ask_for_a_write_at_boot_and_too_late() -> None:
    driver = Driver(Env())
    driver.env.faults.arm("sequencer-write:0x110040=0x1234")
    driver.boot()
    sequence = driver.events.pop()
    size, used, *_ = struct.unpack_from("<10I", sequence.payload)
    assert sequence.function == 0x1002 and (size > used, used) == (True, 3)
    assert struct.unpack_from("<3I", sequence.payload, 0x28) == (0, 0x110040, 0x1234)
    driver.env.faults.arm("sequencer-late:0x88000=1")
    assert static(driver) == 0
    assert driver.events.pop().function == 0x1002


@pytest.mark.parametrize("place", ["gsp-halt", "gsp-halt@prepare", "gsp-halt@rpc"])
def test_a_dead_firmware_answers_nothing_more(driver: Driver, place: str) -> None:
    driver.env.faults.arm(place)
    driver.send(0x41, bytes(driver.static_size))
    assert driver.wait(0x41, 5.0) is None
    assert not driver.gsp.running and driver.env.halted and place in str(driver.gsp.view()["cause"])
    driver.send(0x41, bytes(driver.static_size))
    driver.gsp.channel_fault(1, 1, "after death", None)
    assert driver.wait(0x41, 5.0) is None


def test_death_at_named_places() -> None:
    driver = Driver(Env())
    driver.env.faults.arm("gsp-halt@boot")
    driver.queue_start()
    driver.gsp.start(driver.meta, driver.libos)
    assert driver.env.halted and driver.receive() is None
    for place, command in (("set-pdb", 0x00801813), ("unset-pdb", 0x00801814)):
        driver = Driver(Env())
        driver.boot()
        driver.space(0xC1D00000)
        driver.env.faults.arm(f"gsp-halt@{place}")
        params = struct.pack("<QIIIIII", 0x200000, 4, 0, 0x90F10000, 0, 0, 0) if place == "set-pdb" else struct.pack("<II", 0x90F10000, 0)
        driver.send(0x4C, struct.pack("<6I", 0xC1D00000, 0xDE1D0000, command, 0, len(params), 0) + params)
        assert driver.wait(0x4C, 1.0) is None and driver.env.halted, place
    driver = Driver(Env())
    driver.boot()
    driver.env.faults.arm("gsp-halt@unload")
    driver.send(0x2F, bytes(8))
    assert driver.wait(0x2F, 1.0) is None and driver.env.mailboxes[0] == 0


@pytest.mark.parametrize("version", ["535.113.01", "570.144"])
def test_a_channel_fault_is_reported_in_the_layout_of_the_release(version: str) -> None:
    driver = Driver(Env(), version)
    driver.boot()
    driver.space(0xC1D00000)
    driver.channel(0xC1D00000, 3, 9, 0x700000)
    driver.events.clear()
    messages = driver.env.messages
    driver.gsp.channel_fault(1, 3, "MMU fault", 0x7000000000)
    found = {}
    while (message := driver.receive()) is not None:
        assert message.result == 0 and message.sequence == 0, "an event that carried either would end a driver's wait"
        found[message.function] = message.payload
    assert list(found) == [0x1005, 0x1006, 0x1004] and found[0x1005] == b""
    assert driver.env.messages == messages + 3
    assert struct.unpack_from("<III", found[0x1006]) == (31, 1, 3) and found[0x1006][12:21] == b"MMU fault"
    if version == "570.144":
        assert struct.unpack("<6IH2x5I", found[0x1004]) == (9, 3, 0, 2, 31, 1, 0, 0, 0x70, 0, 0, 0)
    else:
        assert struct.unpack("<4IH2x", found[0x1004]) == (9, 3, 31, 1, 0)
    assert driver.control(0xC1D00000, 0xF1F00003, 0xA06F0103, b"\1\0")[0] == 0x40, "a channel that faulted does not run again"


def test_a_lockdown_is_announced_and_silences_the_interrupt(driver: Driver) -> None:
    driver.gsp.lockdown(True)
    messages = driver.env.messages
    assert static(driver) == 0
    assert driver.env.messages == messages and [event.payload for event in driver.events] == [b"\1"]
    driver.gsp.lockdown(False)
    assert driver.env.messages > messages


def test_every_fault_of_the_firmware_is_in_the_table_that_users_see() -> None:
    assert {row[0] for row in GSP_FAULTS} <= {row.name for row in FAULTS}
    assert len({row.name for row in FAULTS}) == len(FAULTS)
