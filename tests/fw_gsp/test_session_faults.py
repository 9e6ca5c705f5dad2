"""Each call of a session disturbed: a named error, the books and the device's own view agree, the unload works."""

from __future__ import annotations

import pytest

from nvcore.api.errors import FirmwareDead, FirmwareRefused, NvcoreError, WaitTimeout
from nvcore.api.events import FirmwareHalted, FirmwareMessage
from nvcore.api.families import ChannelSpec

from .soft import CASES, Bench, bench
from .test_session_objects import make_channel

KINDS = {"client": "client", "device": "device", "subdevice": "subdevice", "space": "address space", "channel": "channel"}


def agree(gpu: Bench, session) -> None:  # type: ignore[no-untyped-def]
    """This side's counts and the device's are the same."""
    seen = gpu.device.model.view()["gsp"]["objects"]
    ours = {KINDS[kind]: number for kind, number in session.objects().items() if kind in KINDS}
    assert ours == {kind: number for kind, number in seen.items() if kind in KINDS.values()}


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_both_sides_count_the_same_objects(chip, version):
    with bench(chip, version) as gpu:
        session = gpu.open()
        one, two = session.open_tenant("one"), session.open_tenant("two")
        make_channel(gpu, session, one)
        make_channel(gpu, session, two, engine="COPY1", channel=9)
        agree(gpu, session)
        one.close()
        agree(gpu, session)
        two.close()
        agree(gpu, session)
        assert session.objects() == {}


@pytest.mark.parametrize("command", ["0x20800a5c", "0x20801112", "0x20800a61"])
def test_an_inventory_that_cannot_be_read_is_an_error_and_the_firmware_lives_on(command):
    with bench("ga100", "570.144", faults=[f"control-status:{command},0x65"]) as gpu:
        session = gpu.open()
        with pytest.raises(NvcoreError, match="TIMEOUT"):
            session.family("inventory").read()
        assert session.family("inventory").read().engines
        assert session.unload().clean


def test_without_a_vmmu_there_is_no_segment():
    with bench("ga100", "570.144", faults=["control-status:0x2080017e,0x56"]) as gpu:
        inventory = gpu.open().family("inventory").read()
        assert inventory.vmmu_segment is None and "vmmu" not in inventory.capabilities


def steps(gpu: Bench, session):  # type: ignore[no-untyped-def]
    """The calls of a client's life, one after another."""
    tenant = session.open_tenant("t")
    yield
    space, channel = make_channel(gpu, session, tenant)
    family = session.family("channel")
    yield
    family.create_engine_object(channel)
    yield
    family.enable(channel)
    yield
    family.disable(channel)
    yield
    family.destroy(channel)
    yield
    session.family("memory").unset_page_directory(space)
    yield
    tenant.close()


FAULTS = ("rpc-result", "rpc-no-reply", "control-status", "rpc-checksum", "rpc-oversize", "rpc-sequence", "gsp-halt")
DISTURBED = [(fault, place) for fault in FAULTS for place in range(8) if (fault, place) != ("control-status", 7)]  # an end has no control


@pytest.mark.parametrize(("fault", "place"), DISTURBED)
def test_a_fault_at_any_call_leaves_equal_books_or_a_dead_firmware_and_a_clean_unload(fault, place):
    with bench("ga100", "570.144", scale=0.004) as gpu:
        session = gpu.open()
        session.family("inventory").read()
        failed: NvcoreError | None = None
        try:
            for number, _ in enumerate(steps(gpu, session)):
                if number == place - 1 or (number == 0 and place == 0):
                    gpu.inspector.arm(fault)
        except NvcoreError as error:
            failed = error
        assert gpu.inspector.faults_acted() == [fault]
        gpu.inspector.disarm()
        if session.dead is None:
            for tenant in list(session.book.tenants):
                tenant.close()
        if session.dead is None:
            agree(gpu, session)
        else:
            assert sum(isinstance(event, FirmwareHalted) for event in gpu.events) == 1
            with pytest.raises(FirmwareDead):
                session.open_tenant("later")
        assert failed is not None or any(isinstance(e, (FirmwareMessage, FirmwareHalted)) for e in gpu.events)
        report = session.unload()
        assert session.objects() == {}
        assert report.clean, report
        again = gpu.open()
        agree(gpu, again)
        assert again.unload().clean


@pytest.mark.parametrize(("register", "write"), [(0x110008, False), (0x110004, True), (0x1103E8, True)])
def test_a_device_that_leaves_while_the_receiver_works_is_a_dead_firmware_and_no_error(register, write):
    with bench("ga100", "570.144") as gpu:
        session = gpu.open()
        gpu.card.model.raise_message()
        gpu.inspector.arm(f"device-gone:{register:#x},{'write' if write else 'read'}")
        session.receive()
        assert gpu.device.gone and session.dead and session.receive() == 0
        assert [type(event) for event in gpu.events].count(FirmwareHalted) == 1
        session.unload()


@pytest.mark.parametrize("what", ["tenant", "space", "channel"])
def test_an_object_that_was_made_and_not_answered_for_is_freed_and_one_that_was_refused_is_not_there(what):
    for fault, error in (("rpc-spoil:silent,1", WaitTimeout), ("alloc-status:,0x1a", FirmwareRefused)):
        with bench("ga100", "570.144", scale=0.004) as gpu:
            session = gpu.open()
            session.family("inventory").read()
            session.family("channel").fault_buffer_size()
            tenant = session.open_tenant("t")
            space = session.family("memory").create_space(tenant)
            before = session.objects()
            gpu.inspector.arm(fault)
            with pytest.raises(error) as caught:
                match what:
                    case "tenant":
                        session.open_tenant("another")
                    case "space":
                        session.family("memory").create_space(tenant)
                    case _:
                        session.family("channel").create(space, ChannelSpec("COPY0", 8, 0x100000, 1024, 0x500000, 0x501000, 0x1000, 0x2000))
            assert fault.startswith("rpc") or "INSUFFICIENT_RESOURCES" in str(caught.value)
            assert gpu.inspector.faults_acted() == [fault.partition(":")[0]]
            assert session.objects() == before and len(session.book.clients) == 1
            agree(gpu, session)
            tenant.close()
            agree(gpu, session)


IRQSTAT, IRQSCLR, RETRIGGER = 0x110008, 0x110004, 0x1103E8
MESSAGE, HALT = 1 << 6, 1 << 4


@pytest.mark.parametrize(
    ("pending", "steps"),
    [
        (0, ["drain"]),
        (MESSAGE, [(IRQSCLR, MESSAGE), "drain", (RETRIGGER, 1)]),
        (HALT, ["drain", (IRQSCLR, HALT), (RETRIGGER, 1)]),
        (MESSAGE | HALT, [(IRQSCLR, MESSAGE), "drain", (IRQSCLR, HALT), (RETRIGGER, 1)]),
        (0xBADF5040, ["drain"]),
    ],
)
def test_a_message_s_interrupt_is_cleared_before_the_queue_is_drained_and_the_halt_s_when_the_core_runs_on(pending, steps):
    with bench("ga100", "570.144") as gpu:
        session = gpu.open()
        seen: list[object] = []
        drain = session.port.receive
        session._read = lambda offset: pending
        session._write = lambda offset, value: seen.append((offset, value))
        session.port.receive = lambda: (seen.append("drain"), drain())[1]
        assert session.receive() == 0 and session.dead is None
        assert seen == steps


def test_a_lockdown_that_comes_with_the_messages_keeps_the_receiver_off_the_registers_at_once():
    with bench("ga100", "570.144") as gpu:
        session = gpu.open()
        seen: list[object] = []
        notice = session.rm.abi.enum("NV_VGPU_MSG_EVENT_GSP_LOCKDOWN_NOTICE")
        session._read = lambda offset: MESSAGE
        session._write = lambda offset, value: seen.append((offset, value))
        session.port.receive = lambda: (session.desk.handle(notice, 0, b"\1"), 1)[1]
        assert session.receive() == 1 and seen == [(IRQSCLR, MESSAGE)]


@pytest.mark.parametrize("pending", [HALT, HALT | MESSAGE, 0xBADF5040])
@pytest.mark.parametrize("chip", ["ga100", "gh100"])
def test_a_core_that_stopped_is_found_by_the_receiver_and_told_once(chip, pending):
    with bench(chip, "570.144") as gpu:
        session = gpu.open()
        gpu.inspector.arm("gsp-halt")
        session.port.post(0x49, b"")  # what it dies of
        session._read = lambda offset: pending
        session.receive()
        session.receive()
        assert "the GSP's core stopped" in (session.dead or "")
        assert [type(event) for event in gpu.events].count(FirmwareHalted) == 1
        assert session.unload().clean
