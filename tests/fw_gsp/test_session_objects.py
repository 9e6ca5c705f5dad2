"""Objects of a running firmware: tenants, spaces, channels; faults and messages as events; diagnostics; the end of it all."""

from __future__ import annotations

import threading

import pytest

from nvcore.api.errors import ContractError, FirmwareDead, FirmwareRefused, FormatError, UsageError, WaitTimeout
from nvcore.api.events import ChannelFault, FirmwareHalted, FirmwareMessage
from nvcore.api.families import ChannelSpec
from nvcore.testing import VirtualClock

from .soft import CASES, Bench, bench, until


def make_channel(gpu: Bench, session, tenant, *, engine: str = "COPY0", channel: int = 8):  # type: ignore[no-untyped-def]
    family = session.family("channel")
    space = session.family("memory").create_space(tenant)
    session.family("memory").set_page_directory(space, 0x400000, entries=4 if gpu.chip.name == "GA100" else 2)
    size = family.fault_buffer_size()
    buffer = gpu.device.allocate_dma(size, label="fault buffer")
    instance = 0x500000 + channel * 0x2000
    spec = ChannelSpec(engine, channel, 0x100000, 1024, instance, instance + 0x1000, buffer.bus_address(0), size)
    return space, family.create(space, spec)


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_a_channel_lives_from_create_to_destroy_and_both_sides_agree(chip, version):
    with bench(chip, version) as gpu:
        session = gpu.open()
        tenant = session.open_tenant("worker")
        space, channel = make_channel(gpu, session, tenant)
        family = session.family("channel")
        runlist = session.family("inventory").read().engine("COPY0").runlist
        assert channel.token == runlist << 16 | 8
        family.create_engine_object(channel)
        family.enable(channel)
        family.enable(channel)
        assert [one["enabled"] for one in gpu.inspector.view()["channels"]] == [True]
        assert session.objects() == {"channel": 1, "client": 1, "device": 1, "object": 1, "space": 1, "subdevice": 1}
        family.disable(channel)
        family.disable(channel)
        assert [one["enabled"] for one in gpu.inspector.view()["channels"]] == [False]
        family.enable(channel)
        sent = session.port.sender.sent
        family.destroy(channel)
        assert session.port.sender.sent - sent == 2  # disabled, then freed
        assert gpu.inspector.view()["channels"] == []
        family.destroy(channel)
        session.family("memory").unset_page_directory(space)
        session.family("memory").free_space(space)
        assert session.objects() == {"client": 1, "device": 1, "subdevice": 1}
        tenant.close()
        tenant.close()
        assert session.objects() == {} and not tenant.open
        assert gpu.violations() == []
        assert session.unload().clean


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_closing_a_tenant_frees_channels_first_and_leaves_the_other_alone(chip, version):
    with bench(chip, version) as gpu:
        session = gpu.open()
        one, two = session.open_tenant("one"), session.open_tenant("two")
        make_channel(gpu, session, one)
        _, kept = make_channel(gpu, session, two, engine="COPY1", channel=9)
        session.family("channel").enable(kept)
        one.close()
        assert session.objects() == {"channel": 1, "client": 1, "device": 1, "space": 1, "subdevice": 1}
        with pytest.raises(ContractError):
            session.family("memory").create_space(one)
        two.close()
        assert session.objects() == {} and gpu.violations() == []


def test_what_the_firmware_refuses_is_an_error_with_its_number():
    with bench("ga100", "570.144") as gpu:
        session = gpu.open()
        tenant = session.open_tenant("t")
        gpu.inspector.arm("control-status:0x00801813,0x1e")
        space = session.family("memory").create_space(tenant)
        with pytest.raises(FirmwareRefused, match="INVALID_ADDRESS"):
            session.family("memory").set_page_directory(space, 0x400000, entries=4)
        with pytest.raises(UsageError, match="no engine"):
            session.family("channel").create(space, ChannelSpec("COPY9", 8, 0, 8, 0, 0, 0, 0))


@pytest.mark.parametrize(("version", "function"), [("570.144", 0), ("535.113.01", None)])
def test_a_channel_fault_is_an_event_and_names_the_guest_where_the_version_does(version, function):
    with bench("ga100", version) as gpu:
        session = gpu.open()
        tenant = session.open_tenant("t")
        _, channel = make_channel(gpu, session, tenant)
        session.family("channel").enable(channel)
        with gpu.card.lock:
            gpu.card.model.gsp.channel_fault(channel.token >> 16, channel.channel, "mmu-fault", 0x7_0123_4000)
        session.receive()
        faults = [event for event in gpu.events if isinstance(event, ChannelFault)]
        assert len(faults) == 1
        assert (faults[0].channel, faults[0].engine, faults[0].cause, faults[0].function) == (8, "COPY0", "mmu-fault", function)
        assert faults[0].address == (0x7_0123_4000 if function is not None else None)
        messages = [event for event in gpu.events if isinstance(event, FirmwareMessage)]
        assert any(event.name == "xid-31" and event.number == 31 for event in messages)


def test_an_event_without_a_meaning_is_passed_on_and_counted():
    with bench("ga100", "570.144", faults=["unknown-event"]) as gpu:
        session = gpu.open()
        session.open_tenant("t")
        session.receive()
        assert any(isinstance(e, FirmwareMessage) and e.name == "unknown-event" and e.number for e in gpu.events)
        assert session.family("diagnostics").queues()["unknown_events"] == 1


@pytest.mark.parametrize("chip", ["ga100", "gh100"])
def test_a_dead_gsp_is_asked_nothing_more(chip):
    with bench(chip, "570.144") as gpu:
        session = gpu.open()
        tenant = session.open_tenant("t")
        session.family("memory").create_space(tenant)
        gpu.inspector.arm("gsp-halt")
        with pytest.raises((FirmwareDead, WaitTimeout)):
            session.family("memory").create_space(tenant)
        session.receive()
        assert session.dead is not None
        sent = session.port.sender.sent
        for _ in range(3):
            with pytest.raises(FirmwareDead, match="dead"):
                session.open_tenant("again")
        assert session.port.sender.sent == sent
        assert [type(e) for e in gpu.events].count(FirmwareHalted) == 1
        tenant.close()
        assert session.objects() == {}
        report = session.unload()
        assert report.clean, report
        assert gpu.open().unload().clean


def test_events_go_on_while_one_answer_is_late():
    clock = VirtualClock()
    with bench("ga100", "570.144", scale=1.0, device_clock=clock) as gpu:
        session = gpu.open()
        tenant = session.open_tenant("t")
        _, channel = make_channel(gpu, session, tenant)
        session.family("channel").enable(channel)
        gpu.inspector.arm("rpc-delay:1.0")
        session.receive()
        done = threading.Event()

        def slow() -> None:
            session.family("memory").create_space(tenant)
            done.set()

        thread = threading.Thread(target=slow)
        thread.start()
        until(lambda: session.waiting == 1, "the call waits")
        with gpu.card.lock:
            gpu.card.model.gsp.channel_fault(channel.token >> 16, channel.channel, "mmu-fault", 0x1000)
        session.receive()
        assert any(isinstance(e, ChannelFault) for e in gpu.events) and not done.is_set()
        clock.advance(1.0)
        while not done.wait(0.02):
            session.receive()
        thread.join()
        assert session.waiting == 0


def test_a_late_answer_is_said_and_the_next_call_gets_its_own():
    clock = VirtualClock()
    with bench("ga100", "570.144", scale=0.004, device_clock=clock) as gpu:
        session = gpu.open()
        tenant = session.open_tenant("t")
        gpu.inspector.arm("rpc-delay:0.9")
        with pytest.raises(WaitTimeout):
            session.family("memory").create_space(tenant)
        clock.advance(0.9)
        session.family("memory").create_space(tenant)
        assert any(isinstance(e, FirmwareMessage) and e.name == "late-answer" for e in gpu.events)


@pytest.mark.parametrize(
    ("chip", "logs", "register"), [("ga100", set(), "GSP.RISCV_CORE_SWITCH_STATUS"), ("gh100", {"LOGKRNL"}, "GSP.RISCV_CPUCTL")]
)
def test_diagnostics_work_alive_dead_and_unloaded(chip, logs, register):
    with bench(chip, "570.144") as gpu:
        session = gpu.open()
        family = session.family("diagnostics")
        assert {"LOGINIT", "LOGINTR", "LOGRM", "LOGMNOC"} | logs == set(family.logs()) and any(family.logs().values())
        assert family.registers()["WPR2_ADDR_HI"] and family.registers()[register]
        status, command = family.queues()["status"], family.queues()["command"]
        assert command["records"] >= 3 and command["write"] == command["read"] > 0
        assert status == {"write": status["read"], "read": status["read"], "linked": True} and status["read"] > 0
        session.declare_dead("a test")
        assert family.queues()["dead"] == "a test" and family.registers()
        session.unload()
        assert set(family.logs()) and family.queues()["dead"] == "a test"
        assert family.queues()["status"] == {**status, "linked": False}


def test_the_inventory_covers_all_of_memory_and_is_the_same_for_both_versions():
    found = []
    for version in ("570.144", "535.113.01"):
        with bench("ga100", version) as gpu:
            session = gpu.open()
            found.append(session.family("inventory").read())
            assert session.family("inventory").bar1_directory() > 0
    for inventory in found:
        at = 0
        for region in inventory.regions:
            assert region.range.start == at
            at = region.range.end
        assert at == inventory.memory_size == 2 << 30
    one, two = found
    assert (one.name, one.engines, one.channels, one.page_tables, one.firmware_vector) == (
        two.name,
        two.engines,
        two.channels,
        two.page_tables,
        two.firmware_vector,
    )


@pytest.mark.parametrize(("chip", "version"), CASES)
@pytest.mark.parametrize(
    ("member", "value", "text"),
    [("limit", (1 << 45) - 1, "beyond the memory"), ("limit", 2 << 30, "beyond the memory"), ("base", 0, "overlap")],
)
def test_a_memory_region_that_cannot_be_is_refused(chip, version, member, value, text):
    with bench(chip, version) as gpu:
        session = gpu.open()
        layout, raw = session.boot.abi.struct("GspStaticConfigInfo"), bytearray(session.boot.static_info)
        last = int(layout.get(raw, "fbRegionInfoParams.numFBRegions")) - 1
        assert last > 0 and layout.get(raw, f"fbRegionInfoParams.fbRegion[{last}].limit") == (2 << 30) - 1
        layout.put(raw, f"fbRegionInfoParams.fbRegion[{last}].{member}", value)
        session.static_info = layout.unpack(raw)
        with pytest.raises(FormatError, match=text):
            session.family("inventory").read()


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_during_a_lockdown_the_firmware_s_registers_are_left_alone(chip, version):
    with bench(chip, version) as gpu:
        session = gpu.open()
        number = session.rm.abi.enum("NV_VGPU_MSG_EVENT_GSP_LOCKDOWN_NOTICE")
        session.desk.handle(number, 0, b"\1")
        gpu.inspector.trace(True)
        session.receive()
        session.port.leave_receiver()  # senders look for their answers themselves, and at the core's health
        tenant = session.open_tenant("meanwhile")
        touched = {offset for offset, _ in gpu.inspector.trace(False) if 0x110000 <= offset < 0x112000}
        assert touched <= {0x110C00}  # the doorbell
        session.desk.handle(number, 0, b"\0")
        session.receive()
        tenant.close()
        assert [e.text for e in gpu.events if isinstance(e, FirmwareMessage) and e.name == "lockdown"] == ["engaged", "lifted"]


def test_two_equal_software_gpus_have_uuids_of_their_own_and_keep_them():
    def uuid_at(address: str) -> str:
        with bench("ga100", "570.144", vram=f"2G&address={address}") as gpu:
            session = gpu.open()
            found = session.family("inventory").read().uuid
            session.unload()
            return found

    first, second, again = map(uuid_at, ("0000:51:00.0", "0000:52:00.0", "0000:51:00.0"))
    assert first.startswith("GPU-") and first == again and first != second
