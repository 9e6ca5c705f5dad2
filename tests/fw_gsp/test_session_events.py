"""Events and records from outside: whatever their bytes are, only declared errors, no hang; what has no name is passed on (F09)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore.api.events import ChannelFault, FirmwareEvent, FirmwareMessage, VgpuPluginEvent
from nvcore_fw_gsp.abi import load, manifest
from nvcore_fw_gsp.session.engines import EngineNumbers
from nvcore_fw_gsp.session.events import EventDesk

VERSIONS = ["535.113.01", "570.144"]
PREFIX = "NV_VGPU_MSG_EVENT_"


def desk(version: str) -> tuple[EventDesk, list[FirmwareEvent]]:
    found: list[FirmwareEvent] = []
    abi = load(version)
    return EventDesk(abi, EngineNumbers(abi, manifest(version)), found.append), found


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=300, deadline=None)
@given(number=st.integers(0x1000, 0x1040) | st.integers(0, 0xFFFFFFFF), result=st.integers(0, 0xFFFFFFFF), payload=st.binary(max_size=400))
def test_arbitrary_events_are_passed_on_and_never_raise(version, number, result, payload):
    events, found = desk(version)
    events.handle(number, result, payload)
    assert len(found) <= 1 and all(isinstance(event, FirmwareEvent) for event in found)


LAYOUTS = {
    "RC_TRIGGERED": ("rpc_rc_triggered_v17_02", {"nv2080EngineType": 9, "chid": 3, "exceptType": 31}),
    "OS_ERROR_LOG": ("rpc_os_error_log_v17_00", {"exceptType": 79, "errString": b"fell off the bus"}),
    "VGPU_GSP_PLUGIN_TRIGGERED": ("rpc_vgpu_gsp_plugin_triggered_v17_00", {"gfid": 2, "notifyIndex": 2}),
}
PLAIN = {
    "GSP_LOCKDOWN_NOTICE": b"\x01", "MMU_FAULT_QUEUED": b"", "UCODE_LIBOS_PRINT": bytes(64), "PERF_BRIDGELESS_INFO_UPDATE": bytes(8),
    "GSP_SEND_USER_SHARED_DATA": bytes(16),
}  # fmt: skip
SAID = {
    "RC_TRIGGERED": {ChannelFault, FirmwareMessage}, "OS_ERROR_LOG": {FirmwareMessage}, "MMU_FAULT_QUEUED": {FirmwareMessage},
    "VGPU_GSP_PLUGIN_TRIGGERED": {VgpuPluginEvent, FirmwareMessage}, "GSP_LOCKDOWN_NOTICE": {FirmwareMessage},
}  # fmt: skip


def kinds(version: str) -> dict[int, tuple[str, bytes]]:
    """Number → (name, a valid payload) of every event that is handled."""
    abi = load(version)
    valid = {**{name: bytes(abi.struct(layout).pack(**values)) for name, (layout, values) in LAYOUTS.items()}, **PLAIN}
    return {abi.enum(PREFIX + name): (name, payload) for name, payload in valid.items() if abi.has_value(PREFIX + name)}


@pytest.mark.parametrize("version", VERSIONS)
def test_two_thousand_mutations_of_every_handled_event_are_decoded_or_said_to_be_malformed(version):
    events, found = desk(version)
    known = kinds(version)
    assert set(known) == set(events._handlers), "every handled event is mutated here"
    chooser = random.Random(0)
    for number, (name, valid) in known.items():
        del found[:]
        events.handle(number, 0, valid)
        assert len(found) == (name in SAID) and not any(getattr(event, "name", "") == "malformed-event" for event in found)
        malformed = 0
        for _ in range(2000):
            blob = bytearray(valid) or bytearray(chooser.randbytes(chooser.randrange(64)))
            for _ in range(chooser.randint(1, 4)):
                if blob:
                    blob[chooser.randrange(len(blob))] = chooser.randrange(256)
            blob = blob[: chooser.choice((len(blob), chooser.randint(0, len(blob))))]
            before = len(found)
            events.handle(number, chooser.getrandbits(32), bytes(blob))
            assert len(found) - before == (name in SAID)
            malformed += bool(found[before:]) and getattr(found[-1], "name", "") == "malformed-event"
        assert {type(event) for event in found} == SAID.get(name, set())
        assert (malformed > 300) == (name in (*LAYOUTS, "GSP_LOCKDOWN_NOTICE")), f"{name}: {malformed} cut short"
    assert events.unknown == 0


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
