"""A ROM is found, followed and read to its FWSEC, or the reason why not is told (field cases F04, F05)."""

import errno
import struct

import pytest

from nvcore_fw_gsp.images.errors import SignatureUnusable
from nvcore_fw_gsp.vbios.bit import read_vbios
from nvcore_fw_gsp.vbios.errors import FwsecMissing, VbiosFormatError, VbiosUnreadable
from nvcore_fw_gsp.vbios.fwsec import Fwsec, find_fwsec
from nvcore_fw_gsp.vbios.rom import Rom, image_chain, open_rom

from . import rom_files as write


def opened(data, offset=None):
    return open_rom([("dump", lambda at, size: data[at : at + size], len(data))], offset)


def fwsec(data, debug=False):
    return Fwsec(read_vbios(opened(data)), debug=debug)


@pytest.mark.parametrize("npde", [True, False])
def test_the_chain_is_followed_by_its_own_lengths(npde):
    data = write.rom(npde=npde)
    images = image_chain(opened(data))
    assert [image.code_type for image in images] == [0, 3, 0xE0, 0xE0]
    assert sum(image.size for image in images) == len(data)
    assert [image.last for image in images] == [False, False, False, True]
    assert (images[0].vendor, images[0].device) == (0x10DE, 0x20B0)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_ifr_header_of_each_version_is_stepped_over(version):
    vbios = read_vbios(opened(write.rom(ifr=version)))
    assert len(vbios.images) == 4 and vbios.version == "92.00.22.11.01"
    assert Fwsec(vbios).version == 3


def test_an_ifr_header_of_another_version_is_refused():
    with pytest.raises(VbiosUnreadable, match=r"unknown version.*seen 4"):
        opened(write.rom(ifr=4))


def test_io_error_zeros_all_ones_and_bus_errors_are_different_reasons():
    def broken(at, size):
        raise OSError(errno.EIO, "Input/output error")

    cases = [
        ("prom", broken, 4096), ("shadow", lambda at, size: bytes(size), 4096), ("pci", lambda at, size: b"\xff" * size, 4096),
        ("acpi", lambda at, size: struct.pack("<I", 0xBADF1100) * (size // 4), 4096),
    ]  # fmt: skip
    with pytest.raises(VbiosUnreadable) as caught:
        open_rom(cases)
    for text in ("prom: I/O error: Input/output error", "shadow: zeros", "pci: all ones", "acpi: bus error pattern 0xbadf1100"):
        assert text in str(caught.value)


def test_the_next_source_is_tried_when_one_fails():
    data = write.rom()
    rom = open_rom([("prom", lambda at, size: bytes(size), 4096), ("dump", lambda at, size: data[at : at + size], len(data))])
    assert rom.name == "dump"


def test_a_source_that_fails_behind_its_beginning_is_followed_by_the_next():
    good = write.rom()

    def broken(at, size):
        if at:
            raise OSError(errno.EIO, "Input/output error")
        return good[at : at + size]

    without = write.rom(code_type=0x03)
    sources = [
        ("prom", broken, len(good)),
        ("shadow", lambda at, size: without[at : at + size], len(without)),
        ("dump", lambda at, size: good[at : at + size], len(good)),
    ]
    assert find_fwsec(sources)[0].name == "dump"
    with pytest.raises(VbiosUnreadable, match=r"prom: .*I/O error.*shadow: .*no extended image"):
        find_fwsec(sources[:2])
    with pytest.raises(FwsecMissing):
        find_fwsec(sources[1:2])
    with pytest.raises(VbiosUnreadable, match="no source"):
        find_fwsec([])


def test_a_vendors_header_is_named_and_an_offset_accepted():
    data = b"updater container".ljust(1536, b"\1") + write.rom()
    with pytest.raises(VbiosUnreadable, match="75 70 64 61 at 0; an image begins at 0x600"):
        opened(data)
    assert len(image_chain(opened(data, 1536))) == 4
    with pytest.raises(VbiosUnreadable, match="at 0x200"):
        opened(data, 512)
    with pytest.raises(VbiosUnreadable):
        opened(data, len(data))


def test_a_file_without_any_image_says_so():
    with pytest.raises(VbiosUnreadable, match="no image in it"):
        opened(b"hello world!" * 1000)
    with pytest.raises(VbiosUnreadable, match="only 4 bytes"):
        opened(b"\x55\xaa\1\1")


def test_a_chain_without_a_last_flag_ends_with_the_rom():
    assert len(image_chain(opened(write.rom(last=False)))) == 4
    assert len(image_chain(opened(write.rom(last=False) + b"\xff" * 4096))) == 4


def test_a_cut_off_image_is_told_with_the_images_so_far():
    with pytest.raises(VbiosFormatError, match=r"cut off \(images so far: PC-AT .* at 0x0, EFI"):
        image_chain(opened(write.rom()[:-512]))


def test_an_nbsi_image_ends_the_chain():
    data = write.image(bytes(10), 0, npde=0) + write.image(bytes(10), 0x70) + write.image(bytes(10), 0xE0, npde=0)
    assert [image.code_type for image in image_chain(opened(data))] == [0, 0x70]


def test_a_short_npde_that_shortens_its_image_is_not_the_last():
    data = write.image(bytes(10), 0, npde=0, last=True, npde_length=10) + write.image(bytes(10), 3, npde=0, last=True)
    assert [image.last for image in image_chain(opened(data))] == [False, True]


@pytest.mark.parametrize("token", [6, 8])
def test_both_token_sizes_lead_to_the_ucode(token):
    assert fwsec(write.rom(token=token)).ucode_id == 9


def test_a_bit_with_a_wrong_checksum_is_not_used():
    with pytest.raises(VbiosFormatError, match="no sound BIT"):
        fwsec(write.rom(checksum=1))


def test_pointers_run_over_the_seam_of_the_extended_images():
    data = write.rom(split=True)
    vbios = read_vbios(opened(data))
    first, second = (image for image in vbios.images if image.code_type == 0xE0)
    assert first.size == 1024 and second.offset == first.offset + 1024
    run = vbios.extended.read(vbios.images[0].size, vbios.extended.size, "all")
    assert run == data[first.offset : first.offset + first.size + second.size]
    assert vbios.extended.read(vbios.images[0].size + 1000, 100, "seam") == run[1000:1100]
    load = Fwsec(vbios).load("sb", fuse=1)
    assert load.code[0x34:0x94] == data[second.offset : second.offset + 0x60]
    assert load.code[0x94:] == bytes(i % 255 for i in range(0x94, 0x400))
    with pytest.raises(VbiosFormatError, match="outside the extended images"):
        vbios.extended.read(vbios.images[0].size - 1, 4, "word")


@pytest.mark.parametrize(
    ("application", "debug", "fits"),
    [(0x85, False, True), (0x45, True, True), (0x05, False, True), (0x05, True, True), (0x45, False, False), (0x85, True, False)],
)
def test_the_debug_fuse_chooses_the_variant(application, debug, fits):
    data = write.rom(application=application)
    if fits:
        fwsec(data, debug)
    else:
        with pytest.raises(FwsecMissing, match=f"{application:#04x}"):
            fwsec(data, debug)


def test_roms_without_fwsec_say_what_is_missing():
    with pytest.raises(FwsecMissing, match="no extended image"):
        fwsec(write.rom(code_type=0x03))
    with pytest.raises(FwsecMissing, match="lists no FWSEC"):
        fwsec(write.rom(application=0x01))
    with pytest.raises(VbiosFormatError, match="unknown form"):
        fwsec(write.rom(table=bytes(0x40)))


def test_frts_writes_command_arguments_and_signature():
    load = fwsec(write.rom()).load("frts", frts_address=0x5FFE00000, frts_size=0x100000, fuse=0b1)
    assert struct.unpack_from("<I", load.data, 0x100 + 0x2C) == (0x15,)
    assert struct.unpack_from("<IIQII5I", load.data, 0x200) == (1, 24, 0, 0, 2, 1, 20, 0x5FFE00, 0x100, 2)
    assert load.data[0x300 : 0x300 + 384] == b"\xa1" * 384
    assert load.data[0x480:] == b"\xee" * (0x800 - 0x480)
    assert load.code == bytes(i % 255 for i in range(0x400))


def test_sb_writes_the_first_part_of_the_arguments_only():
    load = fwsec(write.rom(write.ucode_v2())).load("sb")
    assert struct.unpack_from("<I", load.data, 0x100 + 0x2C) == (0x19,)
    assert struct.unpack_from("<IIQII", load.data, 0x200) == (1, 24, 0, 0, 2)
    assert load.data[0x218:0x240] == b"\xee" * 0x28


def test_a_version_2_descriptor_tells_the_secure_part():
    loaded = fwsec(write.rom(write.ucode_v2()))
    load = loaded.load("frts", frts_address=0x1000, frts_size=0x1000)
    assert (loaded.version, loaded.fuse_register, load.secure, len(load.code), loaded.entry) == (2, None, (0x100, 0x300), 0x400, 0x100)


@pytest.mark.parametrize(("engine", "register"), [(0x400, 0x8241C0 + 32), (0x1, 0x824140 + 32), (0x4, 0x824100 + 32)])
def test_the_fuse_register_follows_engine_and_ucode(engine, register):
    assert fwsec(write.rom(write.ucode_v3(engine=engine))).fuse_register == register


def test_an_engine_without_a_fuse_is_refused():
    with pytest.raises(VbiosFormatError, match="no engine with a fuse"):
        _ = fwsec(write.rom(write.ucode_v3(engine=0x100))).fuse_register


@pytest.mark.parametrize(
    ("versions", "fuse", "index"), [(0b11, 0, 0), (0b11, 1, 1), (0b110, 1, 0), (0b110, 0b10, 1), (0b1010, 0b100, 1), (0b11, 0x10001, 1)]
)
def test_the_signature_is_chosen_by_fuse_and_versions(versions, fuse, index):
    assert fwsec(write.rom(write.ucode_v3(versions=versions))).signature_index(fuse) == index


@pytest.mark.parametrize(("versions", "fuse", "count"), [(0b11, 0b10, 2), (0b10, 0, 2), (0, 0, 2), (0b111, 0b10, 2), (1, 0, 0)])
def test_no_fitting_signature_is_an_error_with_chip_fuse_and_versions(versions, fuse, count):
    with pytest.raises(SignatureUnusable, match=r"AD102.*fuse"):
        fwsec(write.rom(write.ucode_v3(count, versions))).load("sb", fuse=fuse, chip="AD102")


@pytest.mark.parametrize(
    "changes", [{"mark": b"XXXX"}, {"buffer_size": 16}, {"buffer": 0x7F0}, {"mapper": 0x7D0}, {"interface": 0x60}, {"buffer": 0xFFFFFFFF}]
)
def test_a_mapper_that_is_off_is_refused(changes):
    size = 0x800
    data = write.dmem(size + 64 if changes.get("mapper") else size, **changes)[:size]
    with pytest.raises(VbiosFormatError):
        fwsec(write.rom(write.ucode_v3(data=data))).load("frts", frts_address=0x1000, frts_size=0x1000)


def test_frts_off_a_page_is_refused():
    with pytest.raises(VbiosFormatError, match="pages"):
        fwsec(write.rom()).load("frts", frts_address=0x1001, frts_size=0x1000)


def test_only_what_is_needed_is_read():
    data = write.rom() + b"\xff" * (1 << 20)
    reads = []

    def read(at, size):
        reads.append((at, size))
        return data[at : at + size]

    Fwsec(read_vbios(open_rom([("prom", read, len(data))]))).load("sb")
    assert sum(size for _, size in reads) < len(data) // 16 and len(set(reads)) == len(reads)


def test_a_read_that_fails_in_the_middle_is_told():
    data = write.rom()

    def read(at, size):
        if at:
            raise OSError(errno.EIO, "Input/output error")
        return data[at : at + size]

    with pytest.raises(VbiosUnreadable, match="I/O error"):
        Fwsec(read_vbios(open_rom([("prom", read, len(data))]))).load("sb")
    with pytest.raises(VbiosUnreadable, match="ends early"):
        image_chain(Rom("short", lambda at, size: data[at : at + size - 1], len(data)))
