"""Events and records from outside: whatever their bytes are, only declared errors, no hang; what has no name is passed on (F09)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore.api.events import ChannelFault, FirmwareEvent, FirmwareMessage
from nvcore_fw_gsp.abi import load, manifest
from nvcore_fw_gsp.queue.errors import QueueCorrupt
from nvcore_fw_gsp.session.engines import EngineNumbers
from nvcore_fw_gsp.session.events import EventDesk

from .test_queue_rings import data, pair

VERSIONS = ["535.113.01", "570.144"]


def desk(version: str) -> tuple[EventDesk, list[FirmwareEvent]]:
    found: list[FirmwareEvent] = []
    abi = load(version)
    return EventDesk(abi, EngineNumbers(abi, manifest(version)), found.append), found


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=1000, deadline=None)
@given(number=st.integers(0x1000, 0x1040) | st.integers(0, 0xFFFFFFFF), result=st.integers(0, 0xFFFFFFFF), payload=st.binary(max_size=400))
def test_arbitrary_events_are_passed_on_and_never_raise(version, number, result, payload):
    events, found = desk(version)
    events.handle(number, result, payload)
    assert len(found) <= 1 and all(isinstance(event, FirmwareEvent) for event in found)


@pytest.mark.parametrize("version", VERSIONS)
def test_two_thousand_mutations_of_a_valid_fault_are_decoded_or_said_to_be_malformed(version):
    abi = load(version)
    layout = abi.struct("rpc_rc_triggered_v17_02")
    valid = bytes(layout.pack(nv2080EngineType=9, chid=3, exceptType=31))
    number = abi.enum("NV_VGPU_MSG_EVENT_RC_TRIGGERED")
    events, found = desk(version)
    events.handle(number, 0, valid)
    assert isinstance(found[0], ChannelFault) and (found[0].engine, found[0].channel, found[0].cause) == ("COPY0", 3, "mmu-fault")
    chooser = random.Random(0)
    for _ in range(2000):
        blob = bytearray(valid)
        for _ in range(chooser.randint(1, 4)):
            blob[chooser.randrange(len(blob))] = chooser.randrange(256)
        events.handle(number, 0, bytes(blob[: chooser.randint(0, len(blob))]))
    assert len(found) == 2001
    assert {type(event) for event in found} == {ChannelFault, FirmwareMessage}


def test_two_thousand_mutations_of_a_valid_record_are_refused_or_harmless():
    chooser = random.Random(0)
    taken = refused = 0
    for _ in range(2000):
        peer, _, receiver, _ = pair()
        size = chooser.choice((0, 40, 5000))
        peer.put(0x1006, data(size))
        slot = peer.status + 0x1000
        changed = chooser.randrange(0x50 + size)
        bit = 1 << chooser.randrange(8)
        peer.memory[slot + changed] ^= bit
        try:
            record = receiver.take()
        except QueueCorrupt:
            refused += 1
        else:
            taken += 1
            assert record is None or changed < 32, f"byte {changed:#x} changed and the record was believed"
    assert refused > 1500 and taken + refused == 2000


def test_the_numbers_of_engines_follow_the_version():
    old, new = desk("535.113.01")[0].engines, desk("570.144")[0].engines
    assert old.by_rm[0x30].name == new.by_rm[0x31].name == "SEC2"
    assert (old.by_name["GR0"].interrupt, new.by_name["GR0"].interrupt) == (0x52, 0x54)
    assert old.by_name["COPY3"].interrupt == new.by_name["COPY3"].interrupt == 0x12
    assert new.by_nv2080[12].name == "COPY3"


def test_words_of_the_firmware_stay_words():
    abi = load("570.144")
    events, found = desk("570.144")
    text = b"Xid \x1b[31m[bold]\xff\n"
    events.handle(
        abi.enum("NV_VGPU_MSG_EVENT_OS_ERROR_LOG"), 0, bytes(abi.struct("rpc_os_error_log_v17_00").pack(exceptType=79, errString=text))
    )
    message = found[0]
    assert isinstance(message, FirmwareMessage) and message.name == "xid-79" and message.number == 79
    assert "\\xff" in message.text  # undecodable bytes are shown, not dropped; escaping is the view's
