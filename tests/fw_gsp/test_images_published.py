"""The parsers read linux-firmware's real images; skipped where there are none (`nvcore firmware fetch` gets them)."""

import pytest

from nvcore_fw_gsp.images.container import GenericBootloader, HsUcode, RiscvUcode
from nvcore_fw_gsp.images.find import choose, find, search_roots
from nvcore_fw_gsp.images.fmc import Fmc
from nvcore_fw_gsp.images.verify import verify_sets

ROOTS = search_roots()
HAVE = any(one.problem is None and one.kind == "vendor" for one in find("GA100", ROOTS) + find("GH100", ROOTS))
pytestmark = pytest.mark.skipif(not HAVE, reason="no published images on this machine")

# chip, version → bytes of .fwimage, (image size, patch location) of booter_load and booter_unload: linux-firmware 20260916
PUBLISHED = {
    ("TU102", "570.144"): (28528288, (0xE700, 0x8700), (0x9900, 0x4E00)),
    ("TU102", "535.113.01"): (23737168, (0xE200, 0x8200), (0x9400, 0x4900)),
    ("GA100", "570.144"): (28528288, (0xEB00, 0x8900), (0x9C00, 0x4F00)),
    ("GA100", "535.113.01"): (23737168, (0xE500, 0x8300), (0x9600, 0x4900)),
    ("GA102", "570.144"): (63541248, (0xEC00, 0x8A10), (0x9D00, 0x5010)),
    ("GA102", "535.113.01"): (38043648, (0xE600, 0x8410), (0x9700, 0x4A10)),
    ("AD102", "570.144"): (63541248, (0xDE00, 0x7E10), (0x9F00, 0x5010)),
    ("GH100", "570.144"): (63541248, None, None),
}
BOOTLOADERS = {
    ("TU102", "570.144"): (4, 0x1000, 0, 0),
    ("GA102", "535.113.01"): (5, 0x5000, 0x1800, 0x800),
    ("GA102", "570.144"): (5, 0x6000, 0x1800, 0x800),
    ("AD102", "570.144"): (5, 0x9000, 0x4800, 0x800),
    ("GH100", "570.144"): (5, 0x29000, 0xB100, 0xA00),
}


def chosen(chip, version):
    found = [one for one in find(chip, ROOTS) if one.version == version and one.problem is None and one.kind == "vendor"]
    if not found:
        pytest.skip(f"no {chip} {version}")
    return found[0]


@pytest.mark.parametrize(("chip", "version"), PUBLISHED)
def test_published_sets_have_their_known_layout(chip, version):
    size, load, unload = PUBLISHED[chip, version]
    one = chosen(chip, version)
    image = one.open_gsp()
    assert (image.size, image.version) == (size, version)
    image.close()
    for role, expected in (("booter_load", load), ("booter_unload", unload)):
        if expected is not None:
            with one.open(role) as source:
                ucode = HsUcode(source)
                assert (ucode.size, ucode.patch_location) == expected
                assert ucode.pkc_data_offset == (0x10 if ucode.signatures == 2 else 0x200)
                assert ucode.code == (0, 0x100) and ucode.apps[0][0] == 0x100


@pytest.mark.parametrize(("chip", "version"), BOOTLOADERS)
def test_published_bootloaders_have_their_known_descriptor(chip, version):
    with chosen(chip, version).open("bootloader") as source:
        ucode = RiscvUcode(source)
        assert (ucode.version, ucode.size, ucode.code_offset, ucode.data_offset) == BOOTLOADERS[chip, version]


def test_the_two_generic_bootloaders_hold_the_same_code():
    with chosen("GA100", "570.144").open("generic") as new, chosen("GA100", "535.113.01").open("generic") as old:
        assert GenericBootloader(new).code_bytes() == GenericBootloader(old).code_bytes()


def test_the_published_fmc_carries_its_own_sums():
    with chosen("GH100", "570.144").open("fmc") as source:
        fmc = Fmc(source)
        fmc.verify()
        assert (fmc.size, len(fmc.signature), len(fmc.public_key)) == (165448, 384, 384)


def test_a_whole_image_is_read_as_another_elf_reader_reads_it():
    elffile = pytest.importorskip("elftools.elf.elffile")
    image = choose("GA100", ROOTS, "570.144").open_gsp()
    buffer = bytearray(image.size)
    image.read_into(memoryview(buffer))
    with choose("GA100", ROOTS, "570.144").open("gsp") as source, open(source.name, "rb") as file:
        elf = elffile.ELFFile(file)
        assert elf.get_section_by_name(".fwimage").data() == buffer
        assert elf.get_section_by_name(".fwsignature_ga100").data() == image.signature("ga100")
    image.close()


def test_published_files_verify():
    rows = verify_sets(one for chip in ("GA100", "GH100") for one in find(chip, ROOTS) if one.kind == "vendor")
    assert rows and all(row["ok"] for row in rows)
