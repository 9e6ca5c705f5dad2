"""A ROM is found, followed and read to its FWSEC, or the reason why not is told (field cases F04, F05)."""

import errno
import struct

import pytest

from nvcore_fw_gsp.vbios.bit import read_vbios
from nvcore_fw_gsp.vbios.errors import FwsecMissing, VbiosFormatError, VbiosUnreadable
from nvcore_fw_gsp.vbios.fwsec import Fwsec
from nvcore_fw_gsp.vbios.rom import Rom, image_chain, open_rom

from . import rom_files as write


def opened(data, offset=None):
    return open_rom("dump", lambda at, size: data[at : at + size], len(data), offset)


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
    with pytest.raises(VbiosFormatError, match=r"unknown version.*seen 4"):
        opened(write.rom(ifr=4))


def broken(at, size):
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (broken, "I/O error: Input/output error"),
        (lambda at, size: bytes(size), "zeros in the first 512 bytes"),
        (lambda at, size: b"\xff" * size, "all ones in the first 512 bytes"),
        (lambda at, size: struct.pack("<I", 0xBADF1100) * (size // 4), "bus error pattern 0xbadf1100"),
    ],
)
def test_io_error_zeros_all_ones_and_bus_errors_are_different_reasons(read, reason):
    with pytest.raises(VbiosUnreadable) as caught:
        open_rom("PROM", read, 4096)
    assert (caught.value.seen, caught.value.where) == (reason, "PROM")


def test_a_vendors_header_is_named_and_an_offset_accepted():
    data = b"updater container".ljust(1536, b"\1") + write.rom()
    with pytest.raises(VbiosUnreadable, match="75 70 64 61 at 0; an image begins at 0x600"):
        opened(data)
    assert len(image_chain(opened(data, 1536))) == 4
    with pytest.raises(VbiosUnreadable, match="at 0x200"):
        opened(data, 512)
    with pytest.raises(VbiosFormatError, match="outside the ROM"):
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
    assert fwsec(write.rom(token=token)).signature_count == 2


def test_a_bit_with_a_wrong_checksum_is_not_used():
    with pytest.raises(VbiosFormatError, match="no sound BIT"):
        fwsec(write.rom(checksum=1))


def test_pointers_run_over_the_seam_of_the_extended_images():
    data = write.rom(write.ucode_v2(), split=True)
    vbios = read_vbios(opened(data))
    first, second = (image for image in vbios.images if image.code_type == 0xE0)
    assert first.size == 1024 and second.offset == first.offset + 1024
    run = vbios.extended.read(vbios.images[0].size, vbios.extended.size, "all")
    assert run == data[first.offset : first.offset + first.size + second.size]
    assert vbios.extended.read(vbios.images[0].size + 1000, 100, "seam") == run[1000:1100]
    code, _ = Fwsec(vbios).load_sb()
    assert code[0x324:0x384] == data[second.offset : second.offset + 0x60]
    assert code[0x384:] == bytes(i % 255 for i in range(0x384, 0x400))
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


def test_sb_writes_the_command_and_the_first_part_of_the_arguments_only():
    loaded = fwsec(write.rom(write.ucode_v2()))
    code, data = loaded.load_sb()
    assert code == bytes(i % 255 for i in range(0x400)) and len(data) == 0x800
    assert struct.unpack_from("<I", data, 0x100 + 0x2C) == (0x19,)
    assert struct.unpack_from("<IIQII", data, 0x200) == (1, 24, 0, 0, 2)
    assert data[0x218:] == b"\xee" * (0x800 - 0x218)
    assert (loaded.version, loaded.imem_base, loaded.secure_base, loaded.secure_size) == (2, 0, 0x1100, 0x300)


def test_a_version_3_descriptor_is_read_for_what_it_is():
    loaded = fwsec(write.rom())
    assert (loaded.version, loaded.imem_size, loaded.dmem_size, loaded.signature_count) == (3, 0x400, 0x800, 2)


@pytest.mark.parametrize(
    "changes", [{"mark": b"XXXX"}, {"buffer_size": 16}, {"buffer": 0x7F0}, {"mapper": 0x7D0}, {"interface": 0x60}, {"buffer": 0xFFFFFFFF}]
)
def test_a_mapper_that_is_off_is_refused(changes):
    size = 0x800
    data = write.dmem(size + 64 if changes.get("mapper") else size, **changes)[:size]
    with pytest.raises(VbiosFormatError):
        fwsec(write.rom(write.ucode_v2(data))).load_sb()


def test_only_what_is_needed_is_read():
    data = write.rom(write.ucode_v2()) + b"\xff" * (1 << 20)
    reads = []

    def read(at, size):
        reads.append((at, size))
        return data[at : at + size]

    Fwsec(read_vbios(open_rom("prom", read, len(data)))).load_sb()
    assert sum(size for _, size in reads) < len(data) // 16 and len(set(reads)) == len(reads)


def test_a_read_that_fails_in_the_middle_is_told():
    data = write.rom()

    def read(at, size):
        if at:
            raise OSError(errno.EIO, "Input/output error")
        return data[at : at + size]

    with pytest.raises(VbiosUnreadable, match="I/O error"):
        Fwsec(read_vbios(open_rom("prom", read, len(data))))
    with pytest.raises(VbiosUnreadable, match="ends early"):
        image_chain(Rom("short", lambda at, size: data[at : at + size - 1], len(data)))
