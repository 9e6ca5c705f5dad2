"""vGPUs in the firmware: types, start, negotiation, settings, end, crash."""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
import uuid
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from nvcore.api.errors import ContractError, FirmwareDead, FirmwareRefused, UsageError, WaitTimeout
from nvcore.api.events import VgpuPluginEvent
from nvcore.api.families.vgpu import VgpuSpec, VgpuTypeSpec
from nvcore.api.inventory import Range
from nvcore.api.needs import BootNeeds
from nvcore_fw_gsp.queue.errors import TaskGone

from .soft import Bench, bench

NEEDS = BootNeeds(vgpu_host=True, virtual_functions=4)
TYPE = VgpuTypeSpec(
    468, "GRID A100-4C", "Compute", 10, 3776 << 20, 0, 320 << 20, 0x20F1, 0x1498, 1, 3840, 2400, 60, 4096 << 20, 100, 4096 << 20
)


class Piece:
    """A lease on VRAM, mapped from what the device shares."""

    def __init__(self, gpu: Bench, range: Range) -> None:
        self.range = range
        shared = gpu.device.share(range.start, range.size)
        self._map = mmap.mmap(shared.fd, range.size, offset=shared.offset)
        os.close(shared.fd)
        self.valid = True

    def read(self, offset: int, size: int) -> bytes:
        return self._map[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        self._map[offset : offset + len(data)] = bytes(data)

    def view(self) -> memoryview:
        return memoryview(self._map)

    def release(self) -> None:
        self.valid = False


def make(gpu: Bench, session, function: int = 1):  # type: ignore[no-untyped-def]
    family = session.family("vgpu")
    inventory = session.family("inventory").read()
    segment = inventory.vmmu_segment
    start = segment * 2 * function
    heap = Range(start + segment, family.heap_size())
    spec = VgpuSpec(
        468,
        function,
        f"0000:41:00.{function}",
        str(uuid.UUID(int=function)),
        Range(512 + 128 * function, 128),
        1,
        [Range(start, segment)],
        heap,
    )
    tenant = session.open_tenant(f"vgpu {function}")
    return family, tenant, spec, Piece(gpu, heap)


def test_types_are_uploaded_in_a_message_longer_than_the_ring():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G") as gpu:
        session = gpu.open()
        before = session.port.sender.sent
        session.family("vgpu").upload_types([TYPE])
        assert session.port.sender.sent - before == 6
        assert gpu.violations() == []
        with pytest.raises(UsageError, match="more vGPU types"):
            session.family("vgpu").upload_types([TYPE] * 65)
        with pytest.raises(UsageError, match=r"settings that this firmware does not know.*seen colour"):
            session.family("vgpu").upload_types([attrs.evolve(TYPE, extra={"ecc": 1, "colour": 2})])
        assert session.port.sender.sent - before == 6
        session.unload()


def test_the_table_of_types_is_what_was_asked_for_in_the_firmware_s_layout():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G") as gpu:
        session = gpu.open()
        layout = session.rm.abi.struct("NV2080_CTRL_VGPU_MGR_INTERNAL_PGPU_ADD_VGPU_TYPE_PARAMS")
        tables: list[bytes] = []
        rm = session.rm
        session.rm = SimpleNamespace(abi=rm.abi, internal=lambda name, params, what: tables.append(bytes(params)))
        long = attrs.evolve(TYPE, name="n" * 40, vgpu_class="c" * 40, extra={"ecc": 1, "max_pixels": 77, "gsp_heap_size": 5})
        session.family("vgpu").upload_types([TYPE, long])
        session.rm = rm

        def get(path: str) -> Any:
            return layout.get(tables[0], path)

        assert (get("discardVgpuTypes"), get("vgpuInfoCount")) == (True, 2)
        first = {name: get(f"vgpuInfo[0].{name}") for name in ("vgpuType", "maxInstance", "numHeads", "maxResolutionX", "maxResolutionY")}
        assert first == {"vgpuType": 468, "maxInstance": 10, "numHeads": 1, "maxResolutionX": 3840, "maxResolutionY": 2400}
        assert (get("vgpuInfo[0].vdevId"), get("vgpuInfo[0].bar1Length")) == (0x20F1_1498, 4096)
        assert (get("vgpuInfo[0].fbLength"), get("vgpuInfo[0].fbReservation")) == (3776 << 20, 320 << 20)
        assert (get("vgpuInfo[0].gspHeapSize"), get("vgpuInfo[0].eccSupported")) == (48 << 20, 0)
        assert bytes(get("vgpuInfo[0].vgpuName")).rstrip(b"\0") == b"GRID A100-4C"
        assert [bytes(get(f"vgpuInfo[1].{name}")).rstrip(b"\0") for name in ("vgpuName", "vgpuClass")] == [b"n" * 31, b"c" * 31]
        assert [get(f"vgpuInfo[1].{name}") for name in ("eccSupported", "maxPixels", "gspHeapSize")] == [1, 77, 5]


def test_the_configuration_of_a_vgpu_is_its_own_and_leaves_the_rest_zero():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G") as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        vgpu = family.bootload(tenant, spec, lease)
        bodies: list[bytes] = []
        send = vgpu.rpc.send
        vgpu.rpc = SimpleNamespace(send=lambda message, body, what: (bodies.append(body), send(message, body, what))[1])
        family.configure(vgpu, spec)
        family.set_bus_master(vgpu, True)
        family.set_bus_master(vgpu, False)
        assert bodies[0] == b"" and bodies[2:] == [b"\1\0", b"\0\0"]
        words = (0x4101, 0, tenant.client, 468, 0, 0, 128, 1, 0, 0x4000, 4, 2)
        assert bodies[1] == uuid.UUID(int=1).bytes + struct.pack("<12IQ40x", *words, 4096)


def test_a_task_that_went_with_its_firmware_is_forgotten_and_asked_for_nothing():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G") as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        vgpu = family.bootload(tenant, spec, lease)
        session.declare_dead("a test")
        with pytest.raises(FirmwareDead):
            family.shutdown(vgpu)
        assert not lease.valid and tenant.tasks == {} and session.objects().get("vgpu") is None
        family.shutdown(vgpu)
        family.cleanup(vgpu)
        with pytest.raises(ContractError):
            family.reset(vgpu)


def test_two_vgpus_come_up_and_go_down_in_order():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G") as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        made = []
        for function in (1, 2):
            family, tenant, spec, lease = make(gpu, session, function)
            vgpu = family.bootload(tenant, spec, lease)
            assert family.configure(vgpu, spec).startswith("host-rpc 0x")
            family.set_bus_master(vgpu, True)
            family.reset(vgpu)
            made.append((tenant, vgpu, lease))
        assert session.objects()["vgpu"] == 2
        assert set(family.usage()) == {1, 2}
        for tenant, vgpu, lease in made:
            family.shutdown(vgpu)
            family.shutdown(vgpu)
            with pytest.raises(ContractError):
                family.reset(vgpu)
            family.cleanup(vgpu)
            family.cleanup(vgpu)
            assert not lease.valid
            tenant.close()
        assert session.objects() == {}
        assert gpu.violations() == [] and gpu.inspector.unknown_controls == {}
        assert session.unload().clean


def test_closing_the_tenant_ends_the_task_first():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G") as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        family.configure(family.bootload(tenant, spec, lease), spec)
        tenant.close()
        assert session.objects() == {} and not lease.valid and gpu.violations() == []
        family, tenant, spec, lease = make(gpu, session)
        family.bootload(tenant, spec, lease)  # the function can be used again
        assert session.unload().clean and gpu.violations() == []


def test_a_task_that_refuses_or_stays_silent_is_an_error_of_this_vgpu_alone():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G", scale=0.005) as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        vgpu = family.bootload(tenant, spec, lease)
        gpu.inspector.arm("vgpu-rpc-error")
        with pytest.raises(FirmwareRefused):
            family.configure(vgpu, spec)
        family.configure(vgpu, spec)
        gpu.inspector.arm("vgpu-rpc-silent")
        with pytest.raises(WaitTimeout):
            family.reset(vgpu)
        assert session.dead is None
        family.shutdown(vgpu)
        family.cleanup(vgpu)
        other = make(gpu, session, 2)
        family.bootload(other[1], other[2], other[3])


CONTROLS = {"shutdown": "0x20804002", "cleanup": "0x20804008", "forget": "0x20804005", "states": "0x2080400c"}


def asked(session) -> list[str]:  # type: ignore[no-untyped-def]
    """The controls of the vGPU manager that are sent from now on, by the names above."""
    names = {int(number, 0): name for name, number in CONTROLS.items()}
    control, sent = session.rm.control, []

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(rm, name)

        def control(self, client: int, target: int, command: int, params: bytes, what: str) -> bytes:
            if command in names:
                sent.append(names[command])
            return control(client, target, command, params, what)

    rm, session.rm = session.rm, Watched()
    return sent


def test_the_way_down_is_all_four_controls_in_their_order_and_nothing_is_kept_of_it():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G") as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        for _ in range(3):
            vgpu, sent = family.bootload(tenant, spec, lease), asked(session)
            family.shutdown(vgpu)
            family.cleanup(vgpu)
            assert sent == ["shutdown", "cleanup", "forget", "states"]
            assert tenant.tasks == {}


@pytest.mark.parametrize("refused", ["cleanup", "forget", "states"])
def test_one_refused_control_stops_none_of_the_others_and_is_asked_again(refused):
    with bench("ga100", "570.144", needs=NEEDS, vram="4G") as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        vgpu, sent = family.bootload(tenant, spec, lease), asked(session)
        family.shutdown(vgpu)
        gpu.inspector.arm(f"control-status:{CONTROLS[refused]},0x40")
        with pytest.raises(FirmwareRefused, match="INVALID_STATE"):
            family.cleanup(vgpu)
        assert sent == ["shutdown", "cleanup", "forget", "states"]
        assert lease.valid and session.objects()["vgpu"] == 1
        family.cleanup(vgpu)
        assert sent[4:] == [refused] and not lease.valid and session.objects().get("vgpu") is None
        family.bootload(*make(gpu, session)[1:])
        assert gpu.violations() == []


def test_a_task_that_was_cleaned_up_has_ended_whatever_was_said_of_its_shutdown():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G") as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        vgpu = family.bootload(tenant, spec, lease)
        manager = gpu.card.model.gsp._vgpus
        manager.crash(manager.tasks[1])
        gpu.inspector.arm("control-status:0x20804002,0x40")
        with pytest.raises(FirmwareRefused):
            family.shutdown(vgpu)
        gpu.inspector.arm("control-status:0x20804002,0x40")
        family.cleanup(vgpu)
        assert not lease.valid and tenant.tasks == {} and gpu.violations() == []


@contextmanager
def kept():  # type: ignore[no-untyped-def]
    """A session, and tenant and lease of a vGPU whose task the firmware refuses to clean up the first time."""
    with bench("ga100", "570.144", needs=NEEDS, vram="4G") as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        family.bootload(tenant, spec, lease)
        gpu.inspector.arm(f"control-status:{CONTROLS['cleanup']},0x40")
        yield session, tenant, lease
        assert gpu.inspector.faults_acted() == ["control-status"]


def test_a_task_that_the_firmware_keeps_is_the_failure_of_its_tenants_end():
    with kept() as (session, tenant, lease):
        with pytest.raises(FirmwareRefused, match="cleanup"):
            tenant.close()
        assert not tenant.open and lease.valid and session.objects() == {"vgpu": 1}
        assert session.unload().clean


def test_an_unload_goes_on_past_a_tenant_that_cannot_be_closed():
    with kept() as (session, tenant, _):
        assert session.unload().clean and not tenant.open


def test_a_start_whose_answer_is_late_is_undone():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G", scale=0.01) as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        gpu.inspector.arm("rpc-delay:0.4")
        with pytest.raises(WaitTimeout, match="start of the task"):
            family.bootload(tenant, spec, lease)
        assert gpu.inspector.view()["gsp"]["vgpus"] == []
        assert session.objects().get("vgpu") is None and tenant.tasks == {} and gpu.violations() == []
        family.bootload(*make(gpu, session)[1:])


def test_a_start_that_was_never_seen_leaves_nothing_to_undo():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G", scale=0.005) as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        gpu.inspector.arm("rpc-spoil:lost")
        with pytest.raises(WaitTimeout):
            family.bootload(tenant, spec, lease)
        assert session.objects().get("vgpu") is None and tenant.tasks == {}
        tenant.close()


def test_a_refused_start_is_not_taken_down():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G") as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        sent = asked(session)
        gpu.inspector.arm("control-status:0x20804001,0x63")
        with pytest.raises(FirmwareRefused, match="STATE_IN_USE"):
            family.bootload(tenant, spec, lease)
        assert sent == [] and tenant.tasks == {} and session.objects().get("vgpu") is None


def test_a_message_that_is_not_answered_is_the_crash_of_its_task():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G", scale=0.002) as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        vgpu = family.bootload(tenant, spec, lease)
        family.configure(vgpu, spec)
        gpu.inspector.arm("vgpu-rpc-silent")
        with pytest.raises(WaitTimeout):
            family.set_bus_master(vgpu, True)
        assert VgpuPluginEvent(1, "crashed") in gpu.events
        with pytest.raises(ContractError):
            family.reset(vgpu)  # it is asked nothing more
        family.shutdown(vgpu)
        family.cleanup(vgpu)
        family.bootload(*make(gpu, session)[1:])
        assert gpu.violations() == []


def test_a_heap_that_cannot_hold_the_channel_is_refused_before_the_firmware_is_asked():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G") as gpu:
        session = gpu.open()
        family, tenant, spec, lease = make(gpu, session)
        small = VgpuSpec(468, 1, spec.address, spec.uuid, spec.channels, 1, spec.framebuffer, Range(spec.heap.start, 0x274000))
        with pytest.raises(UsageError, match="heap"):
            family.bootload(tenant, small, lease)


def test_a_crashed_task_is_an_event_of_its_function_and_can_be_cleaned_up():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G", scale=0.002) as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        vgpu = family.bootload(tenant, spec, lease)
        gpu.inspector.arm("vgpu-crash")
        with pytest.raises(WaitTimeout):
            family.configure(vgpu, spec)
        session.receive()
        told = [event for event in gpu.events if isinstance(event, VgpuPluginEvent)]
        assert told and all(event.function == 1 for event in told)
        family.cleanup(vgpu)
        family, tenant, spec, lease = make(gpu, session)
        assert family.configure(family.bootload(tenant, spec, lease), spec)


def test_a_crash_that_the_firmware_told_ends_the_wait_for_the_task_at_once():
    with bench("ga100", "570.144", needs=NEEDS, vram="4G", scale=0.5) as gpu:  # 60 s for an answer
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        stop = threading.Event()

        def attend() -> None:
            while not stop.wait(0.005):
                session.receive()

        thread = threading.Thread(target=attend)
        thread.start()
        try:
            for _ in range(2):  # and one that is started after it is not taken for the one that crashed
                vgpu = family.bootload(tenant, spec, lease)
                begun = time.monotonic()
                gpu.inspector.arm("vgpu-crash")
                with pytest.raises(TaskGone, match=r"function 1 crashed during the negotiation.*NVC-2215"):
                    family.configure(vgpu, spec)
                assert time.monotonic() - begun < 10
                with pytest.raises(ContractError):
                    family.reset(vgpu)
                family.shutdown(vgpu)
                family.cleanup(vgpu)
            assert gpu.events.count(VgpuPluginEvent(1, "crashed")) == 2  # the firmware's word, and none of ours
            assert family.configure(family.bootload(tenant, spec, lease), spec)
        finally:
            stop.set()
            thread.join()
        assert gpu.violations() == []
