"""Synthetic images: read back by a parser that nobody here wrote, by the model's own, and by the command."""

from __future__ import annotations

import io as streams
import zlib
from hashlib import sha384
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore.api.errors import UsageError
from nvcore_softgpu.cli import VERBS, command
from nvcore_softgpu.images import open_shelf, synthetic
from nvcore_softgpu.images.parser import GspImage, ImageFormatError, parse_bin, parse_fmc, parse_hs, parse_riscv

GA570 = next(row for row in synthetic.SETS if (row.chip, row.version) == ("ga100", "570.144"))
GH570 = next(row for row in synthetic.SETS if row.chip == "gh100")


@pytest.mark.parametrize("which", synthetic.SETS, ids=lambda row: f"{row.chip}-{row.version}")
def test_pyelftools_reads_the_same_sections_as_the_models_parser(which: synthetic.SyntheticSet) -> None:
    data = synthetic.gsp(which, synthetic.DEFAULT_SIZE)
    oracle = ELFFile(streams.BytesIO(data))
    assert (oracle["e_type"], oracle["e_machine"], oracle.elfclass) == ("ET_REL", "EM_RISCV", 64)
    ours = GspImage(data)
    assert oracle.get_section_by_name(".fwimage").data() == bytes(ours.image)
    assert oracle.get_section_by_name(".fwversion").data() == which.version.encode() + b"\0"
    assert oracle.get_section_by_name(".fwimage")["sh_offset"] == 0x40
    names = [section.name for section in oracle.iter_sections() if section.name.startswith(".fwsignature_")]
    assert f".fwsignature_{which.chip}" in names
    for name in names:
        assert oracle.get_section_by_name(name).data() == ours.signature(name)
    assert ours.version == which.version and (bytes(ours.image[:4]) == b"\x7fELF") == (which.family == "tu10x")
    assert oracle.get_section_by_name(".note.gnu.build-id").data()[16:].rstrip(b"\0") == b"synthetic"
    assert list(oracle.iter_sections())[-1].name == ".shstrtab"


def test_the_image_inside_a_turing_style_file_is_an_elf_itself() -> None:
    inner = ELFFile(streams.BytesIO(bytes(GspImage(synthetic.gsp(GA570, 0x8000)).image)))
    assert (inner["e_type"], inner["e_phnum"], inner["e_entry"]) == ("ET_EXEC", 33, 0x4009000)


def test_a_booter_has_the_parts_of_the_real_one() -> None:
    load = parse_hs(synthetic.booter(GA570, "booter_load"))
    assert (len(load.image), load.os_data, load.apps) == (0xEB00, (0x8700, 0x6400), ((0x100, 0x8600, 0x100, 0),))
    assert (load.patch, len(load.signatures), len(load.signatures[0])) == (0x8900, 1, 384)
    assert len(parse_hs(synthetic.booter(GA570, "booter_unload")).image) == 0x9C00


def test_bootloaders_have_the_descriptors_of_the_real_ones() -> None:
    old, new = parse_riscv(synthetic.bootloader(GA570)), parse_riscv(synthetic.bootloader(GH570))
    assert (len(old.image), old.manifest) == (0x1000, (0, 0))
    assert (len(new.image), new.manifest, new.data, new.code) == (0x29000, (0, 0xA00), (0xA00, 0xA700), (0xB100, 0x1D500))


def test_an_fmc_carries_its_checksums_and_its_hash() -> None:
    data = synthetic.fmc(GH570)
    oracle = ELFFile(streams.BytesIO(data))
    for section in list(oracle.iter_sections())[2:]:
        assert section["sh_info"] == zlib.crc32(section.data())
    ours = parse_fmc(data)
    assert len(ours.image) == 165448 and ours.hash == sha384(oracle.get_section_by_name("image").data()).digest()
    spoiled = bytearray(data)
    spoiled[-1] ^= 1
    with pytest.raises(ImageFormatError, match="checksum of section image"):
        parse_fmc(spoiled)


def test_images_are_the_same_every_time_and_differ_between_releases() -> None:
    first = dict(synthetic.files(GA570))
    assert first == dict(synthetic.files(GA570))
    other = dict(synthetic.files(synthetic.SETS[0]))
    assert first["nvidia/ga100/gsp/booter_load-570.144.bin"] != other["nvidia/ga100/gsp/booter_load-535.113.01.bin"]


def test_a_full_size_image_has_the_size_of_the_real_one() -> None:
    assert len(GspImage(synthetic.gsp(GA570, synthetic.real_size(GA570))).image) == 28528288


PARSERS = (GspImage, parse_hs, parse_riscv, parse_fmc, parse_bin)
SAMPLES = (
    synthetic.gsp(GA570, 0x2000),
    synthetic.booter(GA570, "booter_load"),
    synthetic.bootloader(GH570),
    synthetic.fmc(GH570),
    synthetic.generic_bootloader(GA570, acr=True),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 4), st.lists(st.tuples(st.integers(0, 0x300), st.integers(0, 255)), max_size=12), st.integers(0, 1 << 17))
def test_no_damage_to_a_file_gets_past_a_parser_as_anything_but_a_format_error(which: int, damage: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(SAMPLES[which][: cut or None])
    for offset, value in damage:
        if offset < len(data):
            data[offset] = value
    try:
        parsed = PARSERS[which](bytes(data))
    except ImageFormatError as error:
        assert error.code == "NVC-7101" and error.seen is not None
        assert data != SAMPLES[which], "a sound file was refused"
    else:
        assert type(parsed) is type(PARSERS[which](SAMPLES[which]))


class Io:
    """The command line's side, recording."""

    def __init__(self) -> None:
        self.text, self.said = "", ""
        self.shown: dict[str, Any] = {}

    def out(self, text: str) -> None:
        self.text += text

    def say(self, text: str) -> None:
        self.said += text

    def show(self, output: str, **more: Any) -> None:
        self.shown = {"output": output, **more}


def test_the_command_writes_files_that_the_shelf_finds(tmp_path: Path) -> None:
    io = Io()
    assert command(["firmware", str(tmp_path)], io) == 0
    written = [Path(line) for line in io.text.splitlines()]
    assert len(written) == len(set(written)) == 13 and all(path.is_file() for path in written)
    shelf = open_shelf(tmp_path)
    assert sorted(image.version for image in shelf.candidates("GA100")) == ["535.113.01", "570.144"]
    assert [image.version for image in shelf.candidates("GH100")] == ["570.144"]
    assert open_shelf(tmp_path / "nvidia").candidates("GH100")[0].version == "570.144"
    assert list(open_shelf(tmp_path / "none").candidates("GH100")) == []


def test_the_command_never_replaces_firmware_that_it_did_not_write(tmp_path: Path) -> None:
    real = tmp_path / "nvidia/ga100/gsp/gsp-570.144.bin"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"precious")
    with pytest.raises(UsageError):
        command(["firmware", str(tmp_path)], Io())
    assert real.read_bytes() == b"precious"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no images can be written below"):
        command(["firmware", str(tmp_path / "file/images")], Io())


def test_the_command_writes_one_set_when_asked_and_says_what_there_is(tmp_path: Path) -> None:
    assert command(["firmware", "--chip=gh100", str(tmp_path)], Io()) == 0
    assert {path.name for path in (tmp_path / "nvidia").iterdir()} == {"gh100", "SYNTHETIC"}
    with pytest.raises(UsageError, match="ga100 535"):
        command(["firmware", "--chip", "gh100", "--version", "535.113.01", str(tmp_path)], Io())


def test_conventions_are_listed_with_their_reason() -> None:
    io = Io()
    assert command(["conventions", "-o", "json"], io) == 0
    rows = {row["what"]: row["value"] for row in io.shown["rows"]}
    assert rows["SR-IOV: size of VF bar 0"] == "256 KiB (GA100 and GH100)" and rows["channel ids"] == "2,048 on every runlist"
    assert rows["SR-IOV: sizes of VF bars 1 and 2"] == "4 GiB and 32 MiB (GA100), 8 GiB and 32 MiB (GH100)"
    assert "0x0c the falcon was not prepared" in rows["errors of booter, FWSEC and FMC in mailbox 0"]
    assert all(row["why"] for row in io.shown["rows"])


def test_violations_are_listed_with_their_meaning() -> None:
    io = Io()
    assert command(["violations", "-o", "json"], io) == 0
    rows = {row["name"]: row for row in io.shown["rows"]}
    assert rows["wpr2-access"] == {"name": "wpr2-access", "place": "memory", "meaning": "an access to the protected region"}
    with pytest.raises(UsageError, match="takes no argument"):
        command(["violations", "wpr2-access"], io)


def test_faults_are_listed_with_their_meaning() -> None:
    io = Io()
    assert command(["faults", "-o", "json"], io) == 0
    names = {row["name"] for row in io.shown["rows"]}
    assert {"rpc-delay", "gsp-halt@unset-pdb", "vgpu-crash", "stuck-invalidate"} <= names
    assert all(row["meaning"] for row in io.shown["rows"])


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_is_of_that_verb_alone(verb: str) -> None:
    whole, one = Io(), Io()
    assert command(["--help"], whole) == command([verb, "--help"], one) == 0
    assert one.text.startswith(f"usage: nvcore softgpu {verb} ") and len(one.text.splitlines()) == 4
    assert f"\n  {verb} " in whole.text and not any(f"\n  {other} " in one.text for other in VERBS)
    assert "--once: end" in one.text if verb == "serve" else "--once" not in one.text
