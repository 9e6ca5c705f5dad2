"""The ROM as drivers read it: an independent walk along gsp-boot.md 2 and device-model.md 8."""

from __future__ import annotations

import struct

import pytest

from nvcore_softgpu.chips import chip_named
from nvcore_softgpu.vbios import build_rom
from tests.softgpu.device_kit import make_card


def prom(device, size: int = 16384) -> bytes:
    return device.bars[0].read(0x300000, size)


def images(rom: bytes) -> list[tuple[int, int, int]]:
    """(offset, size, code type) along the chain."""
    base = 0
    if rom[:4] == b"NVGI":
        fixed = struct.unpack_from("<I", rom, 4)[0] >> 16 & 0x7FFF
        base = struct.unpack_from("<I", rom, fixed + 4)[0]
    found = []
    while True:
        assert struct.unpack_from("<H", rom, base)[0] == 0xAA55
        pcir = base + struct.unpack_from("<H", rom, base + 0x18)[0]
        assert rom[pcir : pcir + 4] == b"PCIR"
        npde = pcir + struct.unpack_from("<H", rom, pcir + 10)[0] + 15 & ~15
        assert rom[npde : npde + 4] == b"NPDE"
        size = struct.unpack_from("<H", rom, npde + 8)[0] * 512
        found.append((base, size, rom[pcir + 0x14]))
        if rom[npde + 10] & 0x80:
            return found
        base += size


@pytest.fixture
def rom():
    device, _ = make_card()
    yield prom(device)
    device.close()


def test_the_chain_has_the_images_that_a_full_driver_wants(rom):
    assert [kind for _, _, kind in images(rom)] == [0x00, 0x03, 0xE0, 0xE0]
    assert rom[:4] == b"NVGI"
    assert images(rom)[-1][0] + images(rom)[-1][1] <= 16384


def test_bytes_behind_the_rom_are_ones(rom):
    end = images(rom)[-1][0] + images(rom)[-1][1]
    assert set(rom[end:]) == {0xFF}


def test_sums_are_zero(rom):
    base, size, _ = images(rom)[0]
    assert sum(rom[base : base + size]) & 0xFF == 0
    bit = rom.index(b"\xff\xb8BIT\0")
    assert sum(rom[bit : bit + 12]) & 0xFF == 0


def descriptor(rom: bytes) -> int:
    """Offset of the FWSEC descriptor by way of BIT, token p and the ucode table."""
    chain = images(rom)
    pcat, pcat_size, _ = chain[0]
    first_e0 = next(base for base, _, kind in chain if kind == 0xE0)
    bit = rom.index(b"\xff\xb8BIT\0", pcat)
    tokens = {}
    for index in range(rom[bit + 10]):
        kind, version, size, pointer = struct.unpack_from("<BBHH", rom, bit + rom[bit + 8] + index * rom[bit + 9])
        tokens[kind] = (version, size, pcat + pointer)
    assert tokens[0x69][1] >= 4 and tokens[0x70][0] == 2
    assert rom[tokens[0x69][2] : tokens[0x69][2] + 5] == bytes((0x11, 0x22, 0x00, 0x92, 0x01))
    (pointer,) = struct.unpack_from("<I", rom, tokens[0x70][2])
    table = first_e0 - pcat_size + pointer
    version, header, entry, count = rom[table : table + 4]
    assert (version, header, entry) == (1, 6, 6)
    for index in range(count):
        kind, _, pointer = struct.unpack_from("<BBI", rom, table + header + index * entry)
        if kind == 0x85:
            return first_e0 - pcat_size + pointer
    raise LookupError


def test_fwsec_is_found_and_its_mapper_lies_where_the_descriptor_says(rom):
    place = descriptor(rom)
    words = struct.unpack_from("<15I", rom, place)
    assert words[0] == 60 << 16 | 2 << 8 | 1
    ucode = place + 60
    data = ucode + words[10]
    interface = data + words[4]
    version, header, entry, count = rom[interface : interface + 4]
    assert (version, header, entry) == (1, 4, 8) and count >= 2
    entries = dict(struct.unpack_from("<II", rom, interface + 4 + 8 * index) for index in range(count))
    mapper = data + entries[4]
    assert rom[mapper : mapper + 4] == b"DMAP"
    assert struct.unpack_from("<HH", rom, mapper + 4) == (3, 64)
    assert words[6] % 256 == 0 and words[9] % 256 == 0 and words[12] % 256 == 0


def test_the_rom_is_the_same_every_time():
    row = chip_named("GA100")
    assert build_rom(row) == build_rom(row)


def test_a_rom_without_fwsec_and_one_with_a_wrong_sum():
    for fault, check in (("vbios-no-fwsec", "fwsec"), ("vbios-checksum", "sum"), ("vbios-missing", "ones")):
        device, _ = make_card(faults=(fault,))
        rom = prom(device)
        if check == "fwsec":
            with pytest.raises(LookupError):
                descriptor(rom)
        elif check == "sum":
            base, size, _ = images(rom)[0]
            assert sum(rom[base : base + size]) & 0xFF == 1
        else:
            assert set(rom) == {0xFF}
        device.close()


def test_a_chip_without_rom_reads_ones():
    device, _ = make_card("GH100")
    assert set(prom(device, 4096)) == {0xFF}
    device.close()
