"""From reset to a released RISC-V core: what the boot programs accept and what they refuse."""

from __future__ import annotations

import struct
from hashlib import sha384
from itertools import pairwise

import pytest

from nvcore_softgpu.booter import SUSPEND_MAGIC
from tests.softgpu.device_kit import MIB, Driver, Shelf, make_card, names

WPR2_LO, WPR2_HI, RISCV = 0x1FA824, 0x1FA828, 0x111240


@pytest.fixture
def gpu():
    device, gsp = make_card(scattered=True)
    yield device, gsp, Driver(device)
    device.close()


def test_a_cold_boot_raises_wpr2_and_starts_the_firmware(gpu):
    device, gsp, driver = gpu
    assert driver.boot() == 0
    assert device.bars[0].read32(RISCV) & 1
    assert device.bars[0].read32(WPR2_LO) >> 4 << 12 == gsp.meta["gspFwWprStart"]
    assert device.bars[0].read32(WPR2_HI) >> 4 << 12 == gsp.meta["gspFwWprEnd"]
    assert gsp.calls[-1] == ("start", 0x12345000)
    assert names(device) == []
    copy = device.model.read_vram(gsp.meta["gspFwWprStart"], 256)
    assert copy[248:] == b"\xa0" * 8


def test_unload_brings_wpr2_down_and_a_second_boot_works(gpu):
    device, _gsp, driver = gpu
    driver.boot()
    assert driver.unload() == 0
    assert device.bars[0].read32(WPR2_HI) == 0
    assert driver.boot() == 0
    assert names(device) == []


@pytest.mark.parametrize(
    ("changes", "code", "name"),
    [
        ({"magic": 1}, 1, "booter-mailbox"),
        ({"revision": 2}, 2, "wpr-meta-revision"),
        ({"start": 0x3BD01000}, 3, "unaligned-wpr"),
        ({"fb": 1 << 31}, 5, "fb-size"),
        ({"frts_size": MIB}, 5, "frts-size"),
        ({"heap_size": 128 * MIB}, 5, "wpr-overlap"),
        ({"signature_size": 8}, 6, "signature-size"),
        ({"size": 0}, 4, "empty-image"),
        ({"code": 0x2000}, 4, "bootloader-offset"),
    ],
)
def test_a_wrong_meta_is_refused_with_a_reason(gpu, changes, code, name):
    device, gsp, driver = gpu
    assert driver.boot(**changes) in (code, 0x0A)
    assert name in names(device)
    assert device.bars[0].read32(WPR2_HI) == 0
    assert not device.bars[0].read32(RISCV) & 1
    assert ("start", 0x12345000) not in gsp.calls


def test_wpr2_already_up_is_refused(gpu):
    device, _, driver = gpu
    driver.boot()
    assert driver.boot() == 8
    assert "wpr2-already-up" in names(device)


def image_and_shelf(pages: int = 5, tail: int = 100):
    image = b"\x7fELF" + b"".join(bytes([page + 1]) * 4096 for page in range(pages))[4:] + b"z" * tail
    signature = b"sign" * 1024
    return image, signature, Shelf(image, signature, ".fwsignature_ga100")


def test_the_image_is_compared_with_its_file_page_by_page():
    image, signature, shelf = image_and_shelf()
    device, _ = make_card(shelf=shelf, scattered=True)
    assert Driver(device, image, signature).boot() == 0
    device.close()


@pytest.mark.parametrize("where", [0, 4096 * 3 + 7, 4096 * 5 + 50])
def test_one_wrong_byte_of_the_image_is_found(where):
    image, signature, shelf = image_and_shelf()
    device, _ = make_card(shelf=shelf)
    wrong = bytearray(image)
    wrong[where] ^= 1
    assert Driver(device, bytes(wrong), signature).boot() == 7
    assert names(device) == ["image-differs"]
    device.close()


def test_the_signature_of_another_chip_is_refused():
    image, _signature, shelf = image_and_shelf()
    device, _ = make_card(shelf=shelf)
    assert Driver(device, image, b"else" * 1024).boot() == 6
    assert names(device) == ["bad-signature"]
    device.close()


def test_bytes_behind_the_image_are_found(gpu):
    device, _, driver = gpu
    meta = driver.meta()
    image = next(buffer for buffer in driver.buffers if buffer.label == "image")
    image.view[len(driver.image)] = 1
    driver.reset(0x110000)
    assert driver.run_sec2(meta) == 7
    assert names(device) == ["image-padding"]


def test_a_booter_without_code_is_refused(gpu):
    device, _, driver = gpu
    meta = driver.meta()
    bar0 = device.bars[0]
    driver.reset(0x840000)
    bar0.write32(0x840040, meta & 0xFFFFFFFF)
    bar0.write32(0x840044, meta >> 32)
    bar0.write32(0x840100, 2)
    assert bar0.read32(0x840040) == 9


def test_suspend_and_resume_keep_the_firmwares_state(gpu):
    device, gsp, driver = gpu
    driver.boot()
    meta = driver.buffer(struct.pack("<QQ", SUSPEND_MAGIC, 2) + bytes(240), "sr").bus_address()
    gsp.running = False
    driver.reset(0x110000)
    assert driver.run_sec2(meta) == 0
    assert device.bars[0].read32(WPR2_HI) == 0
    stops = gsp.calls.count(("stop",))
    assert driver.run_sec2(meta) == 0
    assert gsp.calls[-1] == ("resume",) and gsp.calls.count(("stop",)) == stops
    assert device.bars[0].read32(WPR2_HI) and device.bars[0].read32(RISCV) & 1


def test_resetting_the_running_falcon_stops_the_firmware(gpu):
    device, gsp, driver = gpu
    driver.boot()
    driver.reset(0x110000)
    assert not gsp.running
    assert not device.bars[0].read32(RISCV) & 1


def test_a_bare_start_of_the_gsp_falcon_halts(gpu):
    device, _, driver = gpu
    driver.reset(0x110000)
    device.bars[0].write32(0x110100, 2)
    assert device.bars[0].read32(0x110100) & 0x10
    assert names(device) == []


def fwsec(driver, command: int, secure: bytes | None = None) -> int:
    return driver.fwsec(command, secure)


def test_fwsec_sb_runs_from_the_roms_own_ucode(gpu):
    device, _, driver = gpu
    device.bars[0].write32(0x1454, 0xDEAD)
    assert fwsec(driver, 0x19) == 0
    assert device.bars[0].read32(0x1454) & 0xFFFF == 0
    assert names(device) == []


def test_fwsec_with_other_secure_code_is_refused(gpu):
    device, _, driver = gpu
    assert fwsec(driver, 0x19, secure=b"evil" * 64) == 6
    assert names(device) == ["fwsec-code"]


def test_a_booter_of_two_blocks_is_one(gpu):
    device, _, driver = gpu
    meta = driver.meta()
    driver.reset(0x110000)
    driver.reset(0x840000)
    driver.load(0x840000, b"\xaa" * 512)
    driver.bar0.write32(0x840040, meta & 0xFFFFFFFF)
    driver.bar0.write32(0x840044, meta >> 32)
    driver.bar0.write32(0x840100, 2)
    assert driver.bar0.read32(0x840040) == 0 and names(device) == []


@pytest.mark.parametrize("target", [5, 6])
def test_fwsec_reaches_host_memory_coherently_or_not(gpu, target):
    device, _, driver = gpu
    generic = driver.load_generic

    def load(base):
        generic(base)
        driver.bar0.write32(base + 0x610, target)

    driver.load_generic = load
    assert driver.fwsec(0x19) == 0 and names(device) == []


def test_fwsec_frts_is_refused_on_a_chip_without_frts(gpu):
    _, _, driver = gpu
    assert fwsec(driver, 0x15) == 5


FMC = struct.pack("<18I", 0x00480403, 0x1100, 0, 0x300, 0, 0x400, 0x104, *[0] * 11) + bytes(range(256)) * 17


def fsp_boot(
    device, driver, *, digest: bytes | None = None, fmc: bytes = FMC, version: int = 1, patch: dict[int, bytes] | None = None,
    boot_patch: dict[int, bytes] | None = None, **changes,
) -> tuple[int, int]:  # fmt: skip
    """patch, boot_patch: bytes to put over the message and over the FMC's parameters, by offset. changes: of the WPR meta."""
    bar0 = device.bars[0]
    meta = driver.meta(**changes)
    boot = bytearray(80)
    struct.pack_into("<IIQ", boot, 8, 1, 256, meta)
    boot[36] = 1
    struct.pack_into("<IxxxxQ", boot, 40, 2, 0x12345000)
    for offset, data in (boot_patch or {}).items():
        boot[offset : offset + len(data)] = data
    parameters = driver.buffer(bytes(boot), "params").bus_address()
    image = driver.buffer(fmc, "fmc").bus_address()
    payload = struct.pack("<HHQQIQI", version, 860, image, 0, 0, 2 * MIB, MIB) + (digest or sha384(FMC).digest())
    payload += b"k" * 384 + b"s" * 384 + struct.pack("<Q", parameters)
    for offset, data in (patch or {}).items():
        payload = payload[:offset] + data + payload[offset + len(data) :]
    packet = struct.pack("<II", 0xC0000000, 0x1410DE7E) + payload
    assert len(packet) == 868
    bar0.write32(0x8F2AC0, 1 << 24)
    bar0.write_port(0x8F2AC4, packet)
    bar0.write32(0x8F2C04, len(packet) - 4)
    bar0.write32(0x8F2C00, 0)
    if bar0.read32(0x8F2C80) == bar0.read32(0x8F2C84):
        return -1, bar0.read32(0x110040)
    bar0.write32(0x8F2AC0, 1 << 25)
    answer = struct.unpack("<5I", bar0.read_port(0x8F2AC4, 5))
    assert answer[:4] == (0xC0000000, 0x1510DE7E, 0, 0x14)
    bar0.write32(0x8F2C84, 0)
    bar0.write32(0x8F2C80, 0)
    return answer[4], bar0.read32(0x110040)


@pytest.fixture
def hopper():
    device, gsp = make_card("GH100")
    yield device, gsp, Driver(device, image=b"\x97\x00\x00\x00" * 3000)
    device.close()


def test_a_chain_of_trust_boots_hopper_and_releases_the_lockdown(hopper):
    device, gsp, driver = hopper
    assert device.bars[0].read32(0x1100F4) & 1 << 13
    assert fsp_boot(device, driver) == (0, 0)
    assert not device.bars[0].read32(0x1100F4) & 1 << 13
    assert device.bars[0].read32(0x111388) & 0x80
    assert gsp.meta["frtsOffset"] == device.card.model.memory.vram_size - 2 * MIB
    assert names(device) == []
    meta, vram = gsp.meta, device.card.model.memory.vram_size
    assert (meta["gspFwWprStart"], meta["gspFwWprEnd"]) == (meta["gspFwHeapOffset"] - MIB, meta["frtsOffset"] + meta["frtsSize"])
    assert meta["vgaWorkspaceOffset"] + meta["vgaWorkspaceSize"] == meta["fbSize"] == vram
    parts = (
        ("nonWprHeapOffset", "nonWprHeapSize", MIB), ("gspFwHeapOffset", "gspFwHeapSize", MIB), ("gspFwOffset", "sizeOfRadix3Elf", 0x10000),
        ("bootBinOffset", "sizeOfBootloader", 4096), ("frtsOffset", "frtsSize", 4096),
    )  # fmt: skip
    assert all(meta[place] % unit == 0 for place, _, unit in parts)
    assert all(meta[place] + meta[size] <= meta[after] for (place, size, _), (after, _, _) in pairwise(parts))
    assert meta["gspFwRsvdStart"] == meta["nonWprHeapOffset"] and meta["nonWprHeapOffset"] + 2 * MIB <= meta["gspFwWprStart"]
    device.card.model.set_halted(True)
    assert device.bars[0].read32(0x111388) & 0x90 == 0x10
    assert device.bars[0].read32(WPR2_HI) == 0


def test_the_hash_of_the_fmc_is_checked_for_real(hopper):
    device, gsp, driver = hopper
    assert fsp_boot(device, driver, fmc=FMC[:-1] + b"!")[0] == 0xA1
    assert names(device) == ["fmc-hash"]
    assert ("start", 0x12345000) not in gsp.calls


def test_a_wrong_message_version_is_refused(hopper):
    device, _, driver = hopper
    assert fsp_boot(device, driver, version=2)[0] == 0xA1


@pytest.mark.parametrize(
    ("fault", "result"), [("fsp-silent", (-1, 0)), ("fsp-error", (0xA1, 0)), ("fmc-error", (0, 0x1234)), ("bad-signature", (0xA1, 0))]
)
def test_faults_of_the_security_processor(hopper, fault, result):
    device, _, driver = hopper
    device.model.arm(fault)
    assert fsp_boot(device, driver) == result
    assert device.model.faults_acted() == [fault]


def test_a_stuck_lockdown_stays(hopper):
    device, _, driver = hopper
    device.model.arm("lockdown-stuck")
    fsp_boot(device, driver)
    assert device.bars[0].read32(0x1100F4) & 1 << 13


@pytest.mark.parametrize(
    ("fault", "mailbox"), [("booter-mailbox", 0x1234), ("booter-mailbox:0x77", 0x77), ("bad-signature", 6), ("riscv-inactive", 0)]
)
def test_faults_of_the_booter(gpu, fault, mailbox):
    device, gsp, driver = gpu
    device.model.arm(fault)
    assert driver.boot() == mailbox
    assert not device.bars[0].read32(RISCV) & 1
    assert ("start", 0x12345000) not in gsp.calls


def test_a_booter_that_never_halts(gpu):
    device, _, driver = gpu
    device.model.arm("booter-halt")
    with pytest.raises(AssertionError):
        driver.boot()
    assert not device.bars[0].read32(0x840100) & 0x10


def test_wpr2_left_up_by_an_unload_blocks_the_next_boot_until_a_reset(gpu):
    device, _, driver = gpu
    driver.boot()
    device.model.arm("wpr2-left-up")
    driver.unload()
    assert device.bars[0].read32(WPR2_HI)
    assert driver.boot() == 8
    device.reset()
    device.set_bus_master(True)
    assert device.bars[0].read32(WPR2_HI) == 0
    assert driver.boot() == 0


def test_a_reset_gives_back_every_register_and_can_be_made_to_leave_wpr2_up(gpu):
    device, _, driver = gpu
    bar0 = device.bars[0]
    driver.boot()
    device.model.arm("stuck-invalidate")
    for place, value in ((0xB830B0, 0x80000001), (0x1700, 0x120), (0x100C10, 7), (0x123450, 9), (0x1454, 3)):
        bar0.write32(place, value)
    device.model.arm("wpr2-left-up")
    device.reset()
    assert [bar0.read32(place) for place in (0xB830B0, 0x1700, 0x100C10, 0x123450, 0x1454)] == [0] * 5
    assert bar0.read32(WPR2_HI)
    device.reset()
    assert bar0.read32(WPR2_HI) == 0
    bar0.write32(0x700000, 5)
    assert device.model.read_vram(0, 1) == b"\x05"


def test_fwsec_error_is_left_in_the_scratch_register(gpu):
    device, _, driver = gpu
    device.model.arm("fwsec-error:0x42")
    fwsec(driver, 0x19)
    assert device.bars[0].read32(0x1454) & 0xFFFF == 0x42


def test_scrubbing_that_never_ends(gpu):
    device, _, _ = gpu
    device.model.arm("scrub-never:gsp")
    assert device.bars[0].read32(0x11010C) & 6
    assert not device.bars[0].read32(0x84010C) & 6
