"""Linux-firmware's real images: read by both parsers, fw_gsp's and the model's, and booted on the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nvcore_fw_gsp.images.container import GenericBootloader, HsUcode, RiscvUcode
from nvcore_fw_gsp.images.find import ImageSet, find, search_roots
from nvcore_fw_gsp.images.fmc import Fmc
from nvcore_fw_gsp.images.verify import verify_sets
from nvcore_softgpu.images import open_shelf, synthetic
from nvcore_softgpu.images.parser import parse_fmc, parse_hs, parse_riscv
from tests.fw_gsp.soft import CASES, bench

if TYPE_CHECKING:
    from devtools.lab import Lab

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


@pytest.fixture(scope="module")
def roots(lab: Lab) -> tuple[str, ...]:
    return search_roots([str(lab.firmware)])


def chosen(roots: tuple[str, ...], chip: str, version: str) -> ImageSet:
    """The first published set; one of a chip that the lab does not fetch is looked for on the machine as well."""
    found = [one for one in find(chip, roots) if one.version == version and one.problem is None and one.kind == "vendor"]
    if not found and chip == "AD102":
        pytest.skip("by design: the lab fetches the images of chips that are booted, and of their neighbours")
    assert found, f"no published images of {chip} {version} in {roots}"
    return found[0]


@pytest.mark.parametrize(("chip", "version"), PUBLISHED)
def test_published_sets_have_their_known_layout(roots: tuple[str, ...], chip: str, version: str) -> None:
    size, load, unload = PUBLISHED[chip, version]
    one = chosen(roots, chip, version)
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
def test_published_bootloaders_have_their_known_descriptor(roots: tuple[str, ...], chip: str, version: str) -> None:
    with chosen(roots, chip, version).open("bootloader") as source:
        ucode = RiscvUcode(source)
        assert (ucode.version, ucode.size, ucode.code_offset, ucode.data_offset) == BOOTLOADERS[chip, version]


def test_the_two_generic_bootloaders_hold_the_same_code(roots: tuple[str, ...]) -> None:
    with chosen(roots, "GA100", "570.144").open("generic") as new, chosen(roots, "GA100", "535.113.01").open("generic") as old:
        assert GenericBootloader(new).code_bytes() == GenericBootloader(old).code_bytes()


def test_the_published_fmc_carries_its_own_sums(roots: tuple[str, ...]) -> None:
    with chosen(roots, "GH100", "570.144").open("fmc") as source:
        fmc = Fmc(source)
        fmc.verify()
        assert (fmc.size, len(fmc.signature), len(fmc.public_key)) == (165448, 384, 384)


def test_a_whole_image_is_read_as_another_elf_reader_reads_it(roots: tuple[str, ...]) -> None:
    elffile = pytest.importorskip("elftools.elf.elffile")
    image = chosen(roots, "GA100", "570.144").open_gsp()
    buffer = bytearray(image.size)
    image.read_into(memoryview(buffer))
    with chosen(roots, "GA100", "570.144").open("gsp") as source, open(source.name, "rb") as file:
        elf = elffile.ELFFile(file)
        assert elf.get_section_by_name(".fwimage").data() == buffer
        assert elf.get_section_by_name(".fwsignature_ga100").data() == image.signature("ga100")
    image.close()


def test_published_files_verify(roots: tuple[str, ...]) -> None:
    rows = verify_sets(one for chip in ("GA100", "GH100") for one in find(chip, roots) if one.kind == "vendor")
    assert rows and all(row["ok"] for row in rows)


def test_the_models_parser_reads_them_and_the_synthetic_ones_are_made_alike(roots: tuple[str, ...]) -> None:
    made = {row.chip: row for row in synthetic.SETS if row.version == "570.144"}
    for chip in ("ga100", "gh100"):
        folder = Path(chosen(roots, chip.upper(), "570.144").folder).parent
        image = next(image for image in open_shelf(folder).candidates(chip.upper()) if image.version == "570.144")
        assert image.signature(f".fwsignature_{chip}") is not None
    ga100, gh100 = (chosen(roots, chip, "570.144").files for chip in ("GA100", "GH100"))
    booter, model = parse_hs(Path(ga100["booter_load"]).read_bytes()), parse_hs(synthetic.booter(made["ga100"], "booter_load"))
    assert booter._replace(image=model.image, signatures=model.signatures) == model
    loader, model_loader = parse_riscv(Path(gh100["bootloader"]).read_bytes()), parse_riscv(synthetic.bootloader(made["gh100"]))
    assert loader._replace(image=memoryview(b"")) == model_loader._replace(image=memoryview(b""))
    fmc, model_fmc = parse_fmc(Path(gh100["fmc"]).read_bytes()), parse_fmc(synthetic.fmc(made["gh100"]))
    assert bytes(fmc.image[:0x24]) == bytes(model_fmc.image[:0x24])


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_they_boot_without_a_violation(roots: tuple[str, ...], chip: str, version: str) -> None:
    root = str(Path(chosen(roots, chip.upper(), version).folder).parent)
    with bench(chip, version, root=root, vram="4G") as gpu:
        session = gpu.open()
        assert session.report.image.kind == "vendor"
        assert session.family("inventory").read().usable_memory > 1 << 30
        assert session.unload().clean
        assert gpu.violations() == [] and gpu.inspector.unknown_registers == {} and gpu.inspector.unknown_controls == {}
