"""Firmware files are read as their formats say, and refused with a reason where they are not."""

import os

import pytest

from nvcore_fw_gsp.images.container import GenericBootloader, HsUcode, RiscvUcode
from nvcore_fw_gsp.images.errors import (
    ChipNotSupported,
    FirmwareDamaged,
    FirmwareFormatError,
    FirmwareMissing,
    FirmwareUnreadable,
    SignatureUnusable,
)
from nvcore_fw_gsp.images.fmc import Fmc
from nvcore_fw_gsp.images.gsp import GspImage
from nvcore_fw_gsp.images.source import FileSource

from . import image_files as write
from .memory_source import MemorySource


def test_a_booter_says_where_its_parts_are():
    ucode = HsUcode(MemorySource(write.hs()))
    assert (ucode.code, ucode.data, ucode.apps) == ((0, 0x100), (0x800, 0x800), ((0x100, 0x700, 0x100, 0),))
    assert (ucode.signatures, ucode.signature_size, ucode.patch_location, ucode.pkc_data_offset) == (2, 384, 0xA00, 0x200)
    assert (ucode.fuse_version, ucode.engine_mask, ucode.ucode_id) == (1, 1, 3)


def test_the_chosen_signature_is_put_in_place_and_nothing_else_changes():
    ucode = HsUcode(MemorySource(write.hs()))
    plain, signed = ucode.image(), ucode.image(1)
    assert signed[0xA00 : 0xA00 + 384] == b"\xa1" * 384
    assert plain[:0xA00] == signed[:0xA00] and plain[0xB80:] == signed[0xB80:]


@pytest.mark.parametrize(("fuse", "index"), [(0, 1), (1, 0)])
def test_the_fuse_chooses_the_signature(fuse, index):
    assert HsUcode(MemorySource(write.hs())).signature_index(fuse) == index


def test_one_signature_fits_whatever_the_fuse_says():
    assert HsUcode(MemorySource(write.hs(signatures=1, meta=(0, 1, 3)))).signature_index(0xFFFF) == 0


def test_a_fuse_newer_than_all_signatures_is_refused_with_both_numbers():
    with pytest.raises(SignatureUnusable, match=r"GA102.*fuse version 2"):
        HsUcode(MemorySource(write.hs())).signature_index(0b10, "GA102")


@pytest.mark.parametrize("changes", [{"patch": 0xF00}, {"patch": 0x7FF}, {"signatures": 0}, {"signatures": 17}, {"size": 0x900}])
def test_a_booter_whose_offsets_leave_the_image_is_refused(changes):
    with pytest.raises(FirmwareFormatError):
        HsUcode(MemorySource(write.hs(**changes)))


@pytest.mark.parametrize(("version", "reserved"), [(4, 0), (5, 0x6000), (6, 0x6000)])
def test_the_bootloader_descriptor_is_read_by_its_own_version(version, reserved):
    ucode = RiscvUcode(MemorySource(write.riscv(version)))
    assert (ucode.code_offset, ucode.data_offset, ucode.manifest_offset, ucode.app_version) == (0x1800, 0x800, 0, 7)
    assert ucode.fb_reserved == reserved and len(ucode.image()) == 0x6000


def test_an_unknown_descriptor_version_is_refused():
    with pytest.raises(FirmwareFormatError, match="unknown version"):
        RiscvUcode(MemorySource(write.riscv(7)))


@pytest.mark.parametrize("form", ["gen", "acr"])
def test_both_forms_of_the_generic_bootloader_hold_the_same_code(form):
    loader = GenericBootloader(MemorySource(write.generic(form)))
    assert loader.start_tag == 0xFD and loader.code_bytes() == bytes(i % 256 for i in range(0x200))


def test_the_gsp_image_is_read_by_section_names():
    image = GspImage(MemorySource(write.gsp()))
    assert (image.size, image.version, image.kind, image.signatures) == (10000, "570.144", "vendor", ("ga100", "tu10x"))
    assert image.signature("ga100").startswith(b"ga100\0")
    view = memoryview(bytearray(100))
    image.read_into(view, 9900)
    assert bytes(view) == b"\x97" * 100
    with pytest.raises(FirmwareFormatError, match="beyond"):
        image.read_into(view, 9901)


def test_a_made_up_image_says_so():
    assert GspImage(MemorySource(write.gsp(build_id=b"synthetic"))).kind == "synthetic"
    assert GspImage(MemorySource(write.gsp(build_id=b""))).kind == "vendor"


def test_an_image_without_the_chips_signature_is_refused():
    with pytest.raises(ChipNotSupported, match=r"\.fwsignature_gb20x.*ga100, tu10x"):
        GspImage(MemorySource(write.gsp())).signature("gb20x")


def test_the_fmc_checks_its_sums_only_when_asked():
    good = write.fmc()
    Fmc(MemorySource(good)).verify()
    bad = bytearray(good)
    bad[-1] ^= 1
    damaged = Fmc(MemorySource(bytes(bad)))
    assert damaged.size == 600
    with pytest.raises(FirmwareDamaged, match="CRC"):
        damaged.verify()


def test_an_interrupted_read_is_repeated(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)) * 64)
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: real(fd, [views[0][:7]], at))
    with FileSource(str(path)) as source:
        assert source.read(5, 1000, "piece") == (bytes(range(256)) * 64)[5:1005]


def test_a_file_that_shrinks_is_not_called_missing(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(8192))
    with FileSource(str(path)) as source:
        os.truncate(path, 100)
        with pytest.raises(FirmwareUnreadable, match="shorter"):
            source.read(0, 8192, "piece")


def test_absent_and_unreadable_are_told_apart(tmp_path):
    with pytest.raises(FirmwareMissing):
        FileSource(str(tmp_path / "no"))
    with FileSource(str(tmp_path)) as folder, pytest.raises(FirmwareUnreadable, match="EISDIR"):
        folder.read(0, 1, "byte")


def test_a_closed_file_is_closed_once_and_its_number_may_be_another_s(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"x")
    source = FileSource(str(path))
    number = source._fd
    source.close()
    other = os.open(path, os.O_RDONLY)
    try:
        assert other == number  # it was free again
        source.close()
        assert os.read(other, 1) == b"x"
    finally:
        os.close(other)


@pytest.mark.parametrize(
    ("at", "value", "text"),
    [(0, 0x10DF, "no firmware container"), (4, 2, "no firmware container"), (20, 0, "holds no ucode"), (16, 0x7FFFFFFF, "lies outside")],
)
def test_a_container_that_is_none_is_refused_for_what_it_is(at, value, text):
    data = bytearray(write.hs())
    data[at : at + 4] = value.to_bytes(4, "little")
    with pytest.raises(FirmwareFormatError, match=text):
        HsUcode(MemorySource(bytes(data)))


@pytest.mark.parametrize(("size", "text"), [(4095, "another size"), (4097, "too big")])
def test_a_signature_of_another_size_is_refused(size, text):
    sections = {".fwimage": bytes(4096), ".fwversion": b"570.144\0", ".fwsignature_ga100": bytes(size)}
    with pytest.raises(FirmwareFormatError, match=text):
        GspImage(MemorySource(write.elf64(sections))).signature("ga100")
