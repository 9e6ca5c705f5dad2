"""Faults by name, the unknown-register counters and the registers that simply answer."""

from __future__ import annotations

import pytest

from nvcore.api.errors import ContractError, DeviceGone, NotSupportedError, UsageError
from nvcore.testing import VirtualClock
from nvcore_softgpu.chips import CHIPS
from nvcore_softgpu.conventions import CONVENTIONS
from nvcore_softgpu.faults import FAULTS, ArmedFaults, UnknownFault
from tests.softgpu.device_kit import Driver, make_card, names


@pytest.fixture
def gpu():
    clock = VirtualClock()
    device, _ = make_card(clock=clock)
    yield device, device.bars[0], clock
    device.close()


def test_every_fault_can_be_armed_and_disarmed():
    faults = ArmedFaults()
    for row in FAULTS:
        faults.arm(row.name + (":0x110c00" if row.place == "BAR0 access" else ""))
    assert len(faults.armed()) == len(FAULTS) == len({row.name for row in FAULTS})
    faults.disarm()
    assert faults.armed() == ()


ACCESS = ["all-ones", "all-ones:xyz", "zero:0x10,both", "zero:0x10,read,0", "lost-write:1,write,2,3"]
ARGUMENTS = ["booter-mailbox:zz", "booter-halt:1", "rpc-delay:soon", "rpc-delay:-1", "wpr2-lingers:nan", "rpc-no-reply:x"]


@pytest.mark.parametrize("text", ["no-such", *ACCESS, *ARGUMENTS])
def test_a_fault_that_is_not_understood_is_refused(text):
    with pytest.raises(UnknownFault):
        ArmedFaults().arm(text)


def test_a_fault_that_acts_once_acts_once():
    faults = ArmedFaults()
    faults.arm("rpc-result:65")
    assert faults.peek("rpc-result") == "65"
    assert faults.take("rpc-result") == "65"
    assert faults.take("rpc-result") is None
    faults.arm("stuck-invalidate")
    assert faults.take("stuck-invalidate") == faults.take("stuck-invalidate") == ""


@pytest.mark.parametrize(
    ("fault", "register", "write", "result"),
    [("gfw-never", 0x118234, None, 0x3F), ("chip-unknown", 0, None, 0x175000A1), ("flush-stuck", 0x70000, 1, 2),
     ("stuck-invalidate", 0xB830B0, 0x80000001, 0x80000001)],
)  # fmt: skip
def test_faults_at_a_register(gpu, fault, register, write, result):
    device, bar0, _ = gpu
    if write is not None:
        bar0.write32(register, write)
    assert bar0.read32(register) != result
    device.model.arm(fault)
    if write is not None:
        bar0.write32(register, write)
    assert bar0.read32(register) == result


def test_the_firmware_can_die_at_an_invalidate_which_completes(gpu):
    device, bar0, _ = gpu
    Driver(device).boot()
    device.model.arm("gsp-halt@invalidate")
    bar0.write32(0xB830B0, 0x80000001)
    assert not bar0.read32(0xB830B0) >> 31
    assert not device.card.model.gsp.running


def test_the_firmware_can_die_at_an_invalidate_that_never_ends(gpu):
    device, bar0, _ = gpu
    Driver(device).boot()
    device.model.arm("stuck-invalidate")
    device.model.arm("gsp-halt@invalidate")
    bar0.write32(0xB830B0, 0x00000001)
    assert device.card.model.gsp.running, "nothing was triggered"
    bar0.write32(0xB830B0, 0x80000001)
    assert bar0.read32(0xB830B0) >> 31
    assert not device.card.model.gsp.running


def test_the_timer_advances_and_can_be_frozen(gpu):
    device, bar0, clock = gpu
    first = bar0.read32(0x9400)
    clock.advance(0.001)
    assert bar0.read32(0x9400) - first == 1_000_000 - 1_000_000 % 32
    assert bar0.read32(0xBB0080) & 0x1F == 0
    device.model.arm("timer-frozen")
    frozen = bar0.read32(0x9400)
    clock.advance(1.0)
    assert bar0.read32(0x9400) == frozen


def test_a_driver_sets_the_time(gpu):
    _, bar0, _ = gpu
    bar0.write32(0x9410, 0x123)
    bar0.write32(0x9400, 0x45678900)
    assert (bar0.read32(0x9410), bar0.read32(0x9400)) == (0x123, 0x45678900)


def test_access_faults_hit_the_nth_access_in_their_direction(gpu):
    device, bar0, _ = gpu
    device.model.arm("all-ones:0x0,read,2")
    assert [bar0.read32(0) for _ in range(3)] == [0x170000A1, 0xFFFFFFFF, 0x170000A1]
    device.model.arm("zero:0x0")
    assert [bar0.read32(0) for _ in range(2)] == [0, 0x170000A1]
    bar0.write32(0x110080, 5)
    device.model.arm("lost-write:0x110080")
    assert bar0.read32(0x110080) == 5
    bar0.write32(0x110080, 6)
    assert bar0.read32(0x110080) == 5
    assert device.model.faults_acted() == ["all-ones", "zero", "lost-write"]


def test_access_faults_reach_into_data_ports(gpu):
    device, bar0, _ = gpu
    device.model.arm("lost-write:0x8401c4,write,2")
    bar0.write32(0x8401C0, 0x01000000)
    bar0.write_port(0x8401C4, b"aaaabbbbcccc")
    bar0.write32(0x8401C0, 0x02000000)
    assert bar0.read_port(0x8401C4, 3) == b"aaaacccc\0\0\0\0"


def test_no_reply_lasts(gpu):
    device, bar0, _ = gpu
    device.model.arm("no-reply:0x110040")
    assert bar0.read32(0x110040) == bar0.read32(0x110040) == 0xFFFFFFFF
    device.model.disarm()
    assert bar0.read32(0x110040) == 0


def test_a_device_that_goes_raises_from_then_on(gpu):
    device, bar0, _ = gpu
    device.model.arm("device-gone:0x110c00,write")
    bar0.read32(0)
    with pytest.raises(DeviceGone):
        bar0.write32(0x110C00, 0)
    assert device.gone
    for call in (lambda: bar0.read32(0), lambda: device.config_read(0, 4), lambda: device.bars[1].read(0, 4), device.reset):
        with pytest.raises(DeviceGone):
            call()


def test_a_trace_counts_accesses_by_register_and_direction(gpu):
    device, bar0, _ = gpu
    device.model.trace(True)
    bar0.read32(0)
    bar0.read32(0)
    bar0.write_port(0x8401C4, b"12345678")
    assert device.model.trace(False) == {(0, False): 2, (0x8401C4, True): 2}


def test_unknown_registers_are_counted_and_keep_the_last_value(gpu):
    device, bar0, _ = gpu
    assert bar0.read32(0x123450) == 0
    bar0.write32(0x123450, 77)
    assert bar0.read32(0x123450) == 77
    assert device.model.unknown_registers == {(0x123450, False): 2, (0x123450, True): 1}
    assert names(device) == []


def test_writing_what_the_firmware_protects_is_a_violation(gpu):
    device, bar0, _ = gpu
    bar0.write32(0x1FA828, 0)
    bar0.write32(0x100CE0, 0)
    assert names(device) == ["write-to-protected", "write-to-constant"]


def test_bytes_and_halves_reach_the_registers(gpu):
    device, bar0, _ = gpu
    bar0.write(0x6013D4, b"\x3f")
    bar0.write(0x6013D5, b"\x57")
    assert bar0.read(0x6013D4, 2) == b"\x3f\x57"
    assert bar0.read(0x1, 2) == (0x170000A1).to_bytes(4, "little")[1:3]
    assert device.model.unknown_registers == {}


def test_pramin_and_physical_bars_show_one_memory(gpu):
    device, bar0, _ = gpu
    bar0.write32(0x1700, 0x120)
    bar0.write32(0x700010, 0xCAFE)
    assert device.bars[3].read32(0x1200010) == 0xCAFE
    device.bars[1].write(0x1200014, b"12345678")
    assert bar0.read32(0x700014) == int.from_bytes(b"1234", "little")


def test_nothing_reaches_into_wpr2(gpu):
    device, bar0, _ = gpu
    Driver(device).boot()
    start = bar0.read32(0x1FA824) >> 4 << 12
    bar0.write32(0x1700, start >> 16)
    assert bar0.read32(0x700000) == 0xFFFFFFFF
    assert names(device) == ["wpr2-access"]


def test_accesses_outside_a_bar_do_not_reach_the_device(gpu):
    device, bar0, _ = gpu
    for call in (
        lambda: bar0.read32(2), lambda: bar0.read32(16 << 20), lambda: bar0.read(-4, 4),
        lambda: device.bars[1].read(device.bars[1].size - 2, 4),
    ):  # fmt: skip
        with pytest.raises(ContractError):
            call()
    with pytest.raises(NotSupportedError):
        device.bars[1].view(0, 4096)
    with pytest.raises(UsageError):
        device.connect_interrupt("msix", 0, 1)


ARRAYS = {
    "CPU_INTR_LEAF": "a register for 32 vectors each, as many as the chip has", "CPU_INTR_LEAF_EN_SET": "as the leaves",
    "CPU_INTR_LEAF_EN_CLEAR": "as the leaves", "FUSE_UCODE_VERSION_NVDEC": "a fuse for each ucode id",
    "FUSE_UCODE_VERSION_SEC2": "a fuse for each ucode id", "FUSE_UCODE_VERSION_GSP": "a fuse for each ucode id",
    "PBUS_SW_SCRATCH": "NV_PBUS_SW_SCRATCH(i): hardware gives none of them a meaning", "FSP_SCRATCH": "NV_PFSP_..._SCRATCH_GROUP_2(i)",
    "COMMON_SCRATCH_GROUP_0": "a group of four", "COMMON_SCRATCH_GROUP_1": "a group of four", "COMMON_SCRATCH_GROUP_2": "a group of four",
    "COMMON_SCRATCH_GROUP_3": "a group of four", "FBIF_TRANSCFG": "one for each DMA context", "PGSP_QUEUE_TAIL": "one for each queue",
    "PGSP_QUEUE_HEAD_1": "one for each queue but the first", "PGSP_MAILBOX": "NV_PGSP_MAILBOX(i)",
}  # fmt: skip
"""Rows that stand for several registers of one kind, the falcon's name left out, and why; a range of different ones is none of these."""
WINDOWS = {"PROM", "PRAMIN", "CONFIG_MIRROR"}


def test_every_row_has_a_source_and_a_meaning_no_two_share_a_place_and_none_is_a_range():
    arrays = set()
    for chip in CHIPS:
        device, _ = make_card(chip.name)
        rows = device.model.rows()
        assert all(name and meaning and source for _, name, _, meaning, source, _ in rows)
        assert {name for _, name, kind, *_ in rows if kind == "window"} <= WINDOWS
        arrays |= {name.removeprefix("GSP_").removeprefix("SEC2_") for _, name, kind, *_, number in rows if number > 1 and kind != "window"}
        counters = device.model.counters
        for kind in ("stored", "constant", "handled"):
            assert counters[f"rows_{kind}"] == sum(row[5] for row in rows if row[2] == kind)
        assert counters["rows_window"] == sum(row[2] == "window" for row in rows)
        device.close()
    assert arrays == set(ARRAYS)


def test_conventions_say_what_value_and_why():
    assert all(row.what and row.value and row.why for row in CONVENTIONS)
    assert len({row.what for row in CONVENTIONS}) == len(CONVENTIONS)
