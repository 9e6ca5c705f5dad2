"""The boot programs that a folder knows, against what a driver loads."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore.api.errors import FormatError
from nvcore_softgpu.programs import parse_program, read_programs
from tests.softgpu.device_kit import Driver, make_card, names

CODE, DATA, PATCH = 0x500, 0x300, 0x200


def container(fill: int) -> tuple[bytes, bytes, bytes, bytes]:
    """A booter file, and what of it belongs into IMEM, DMEM, and the signature's place."""
    code = bytes([fill]) * CODE
    data = bytes([fill + 1]) * PATCH + bytes(16) + bytes([fill + 2]) * (DATA - PATCH - 16)
    signature = bytes(range(16))
    head = struct.pack("<6I", 0x10DE, 1, 0, 0x18, 0x100, CODE + DATA)
    hs = struct.pack("<9I", 0x3C, 16, 0x80, 0x84, 0x90, 12, 0x88, 0xA0, 0x24)
    raw = bytearray(0x100) + code + data
    raw[0:24], raw[24:60], raw[0x3C:0x4C] = head, hs, signature
    struct.pack_into("<3I", raw, 0x80, CODE + PATCH, 0, 1)
    struct.pack_into("<9I", raw, 0xA0, 0, 0x100, CODE, DATA, 1, 0x100, CODE - 0x100, 0, 0)
    return bytes(raw), code, data[:PATCH] + signature + data[PATCH + 16 :], signature


@pytest.fixture
def gpu():
    programs = [parse_program(container(fill)[0], role, "570.144") for role, fill in (("load", 10), ("unload", 20))]
    device, gsp = make_card()
    device.card.model.programs = programs
    yield device, gsp, Driver(device)
    device.close()


def put(driver, fill: int, *, code: bytes | None = None, data: bytes | None = None, address: int) -> int:
    _, good_code, good_data, _ = container(fill)
    bar0 = driver.bar0
    driver.reset(0x840000)
    driver.load(0x840000, code or good_code)
    bar0.write32(0x8401C0, 0x01000000)
    bar0.write_port(0x8401C4, data or good_data)
    bar0.write32(0x840040, address & 0xFFFFFFFF)
    bar0.write32(0x840044, address >> 32)
    bar0.write32(0x840104, 0)
    bar0.write32(0x840100, 2)
    return bar0.read32(0x840040)


def test_the_right_programs_load_and_unload(gpu):
    device, _, driver = gpu
    driver.reset(0x110000)
    assert put(driver, 10, address=driver.meta()) == 0
    device.card.model.gsp.running = False
    driver.fwsec(0x19)
    assert put(driver, 20, address=0xFF000000FF) == 0
    assert names(device) == []


def test_the_unload_program_does_not_load(gpu):
    device, gsp, driver = gpu
    driver.reset(0x110000)
    assert put(driver, 20, address=driver.meta()) == 9
    assert names(device) == ["boot-program"] and gsp.calls == []


def test_other_code_is_refused(gpu):
    device, _, driver = gpu
    assert put(driver, 10, code=b"\x77" * CODE, address=driver.meta()) == 6
    assert names(device) == ["boot-program"]


def test_a_signature_that_was_not_patched_in_is_refused(gpu):
    device, _, driver = gpu
    _raw, _, data, signature = container(10)
    for wrong in (data.replace(signature, bytes(16)), data[:-1] + b"!", b"!" + data[1:]):
        assert put(driver, 10, data=wrong, address=driver.meta()) == 6
    assert set(names(device)) == {"bad-signature"}


def test_files_are_found_by_name(tmp_path):
    folder = tmp_path / "nvidia" / "ga100" / "gsp"
    folder.mkdir(parents=True)
    for role, fill in (("load", 10), ("unload", 20)):
        (folder / f"booter_{role}-535.113.01.bin").write_bytes(container(fill)[0])
    assert [(found.role, found.version) for found in read_programs(tmp_path, "GA100")] == [("load", "535.113.01"), ("unload", "535.113.01")]
    assert read_programs(tmp_path, "GH100") == []


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0xFF), st.integers(0, 255)), max_size=8), st.integers(0, 0x900))
def test_a_mutated_file_is_understood_or_refused(changes, length):
    raw = bytearray(container(10)[0])
    for place, value in changes:
        raw[place] = value
    try:
        program = parse_program(bytes(raw[:length]) if length else bytes(raw), "load", "x")
    except FormatError:
        return
    assert program.code and program.data and program.signatures
