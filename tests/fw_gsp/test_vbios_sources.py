"""The VBIOS is taken from the first source that can be used, and an error names every source with its own reason (field case F05)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore.api.errors import BootError, NvcoreError
from nvcore_fw_gsp.boot.fwsec import FwsecSb, prepare_fwsec
from nvcore_fw_gsp.boot.io import BootIo
from nvcore_fw_gsp.boot.memory import HostMemory
from nvcore_fw_gsp.boot.vbios_sources import vbios_sources
from nvcore_fw_gsp.images.container import GenericBootloader
from nvcore_fw_gsp.vbios.errors import FwsecMissing, VbiosUnreadable

from . import image_files, rom_files
from .memory_source import MemorySource
from .soft import bench
from .test_boot_memory import IDENTITY, PROM, SHADOW, Device, Rom
from .test_boot_recovery import leave_running
from .test_queue_rings import Clock

pytest.importorskip("nvcore_softgpu")

from nvcore_softgpu.chips import chip_named
from nvcore_softgpu.vbios import build_rom

DISPLAY_FUSE, WORKSPACE, WINDOW, PRAMIN = 0x820C04, 0x625F04, 0x001700, 0x700000
REASONS = {
    "vbios-missing": "PROM: no ROM, all ones in the first 512 bytes (NVC-2031)",
    "vbios-checksum": "PROM: the bytes of its PC-AT image do not add up to 0, 0x01 (NVC-2032)",
    "vbios-no-fwsec": "PROM: the falcon ucode table lists no FWSEC (NVC-2033)",
    "all-ones:0x088050,read": "PROM: register ROM_SHADOW cannot be read, 0xffffffff (NVC-2111)",
}
"""By fault: what the boot says of the PROM."""


def sound_rom() -> bytes:
    """The ROM of the model's GA100."""
    chip = chip_named("ga100")
    assert chip is not None
    return build_rom(chip).data


def with_sum(rom: bytes) -> bytes:
    """The ROM of a writer that leaves the byte sum of the first image to others, with that sum 0."""
    data = bytearray(rom)
    size = 512 * int.from_bytes(data[0x48:0x4A], "little")
    data[size - 1] = (data[size - 1] - sum(data[:size])) & 0xFF
    return bytes(data)


def detail_of(stages: object) -> str:
    return next(stage.detail for stage in stages if stage.name == "unload-bundle")  # type: ignore[attr-defined]


@pytest.mark.parametrize("fault", REASONS)
def test_where_the_prom_is_of_no_use_the_operators_file_is_taken_and_the_reason_is_told(fault: str, tmp_path: Path) -> None:
    file = tmp_path / "board.rom"
    file.write_bytes(sound_rom())
    with bench("ga100", "570.144", faults=[fault], vbios=["/nowhere/board.rom", str(file)]) as gpu:
        session = gpu.open()
        detail = detail_of(session.report.stages)
        assert f"ROM 92.00.22.11.01 from {file} ({REASONS[fault]}; copy in VRAM: no copy of the ROM, a GPU without display" in detail
        assert "/nowhere/board.rom: the file cannot be read, No such file or directory (NVC-2031)" in detail
        assert session.unload().clean and gpu.violations() == []


def test_a_sound_prom_is_taken_and_no_file_is_opened(tmp_path: Path) -> None:
    opened = []
    with bench("ga100", "570.144", vbios=[str(tmp_path)]) as gpu, pytest.MonkeyPatch.context() as patch:
        patch.setattr("nvcore_fw_gsp.boot.vbios_sources._content", opened.append)
        assert detail_of(gpu.open().report.stages).endswith("ROM 92.00.22.11.01 from PROM")
    assert opened == []


def test_a_rom_whose_bytes_do_not_add_up_is_taken_where_none_is_better(tmp_path: Path) -> None:
    with bench("ga100", "570.144", faults=["vbios-checksum"], vbios=["/nowhere/board.rom"]) as gpu:
        session = gpu.open()
        assert f"from PROM ({REASONS['vbios-checksum']}; copy in VRAM" in detail_of(session.report.stages)
        assert session.unload().clean and gpu.violations() == []


def bad_files(folder: Path) -> dict[str, str]:
    """Files that are of no use, each in its own way, by path: what is said of them."""
    chip = chip_named("ga100")
    assert chip is not None
    made = {
        "foreign": (
            build_rom(chip._replace(device_id=0x2235)).data,
            "the ROM of another device, 10de:2235, this GPU is 10de:20b0 (NVC-2034)",
        ),
        "no-fwsec": (build_rom(chip, without_fwsec=True).data, "the falcon ucode table lists no FWSEC (NVC-2033)"),
        "v3": (rom_files.rom(), "this chip's FWSEC can only be started through the generic bootloader, version 3 (NVC-2131)"),
        "header": (b"vendor".ljust(512, b"\1") + sound_rom(), "no ROM signature, 76 65 6e 64 at 0; an image begins at 0x400 (NVC-2031)"),
        "cut": (sound_rom()[:-1024], "an image is empty or cut off (images so far: PC-AT"),
        "empty": (b"", "no ROM, only 0 bytes (NVC-2031)"),
        "large": (bytes((16 << 20) + 1), "too large for a ROM, more than 16777216 bytes (NVC-2031)"),
    }
    said = {}
    for name, (data, words) in made.items():
        (folder / name).write_bytes(data)
        said[str(folder / name)] = words
    os.mkfifo(folder / "pipe")
    said[str(folder / "pipe")] = "the file cannot be read, not a regular file (NVC-2031)"
    said[str(folder)] = "the file cannot be read, Is a directory (NVC-2031)"
    said[str(folder / "absent")] = "the file cannot be read, No such file or directory (NVC-2031)"
    return said


@pytest.mark.parametrize(("fault", "code"), [("vbios-missing", "NVC-2031"), ("vbios-no-fwsec", "NVC-2033")])
def test_where_no_source_can_be_used_one_error_names_each_with_its_own_reason(fault: str, code: str, tmp_path: Path) -> None:
    said = bad_files(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    with bench("ga100", "570.144", faults=[fault], vbios=list(said)) as gpu:
        with pytest.raises(BootError) as caught:
            gpu.open()
        report, text = caught.value.report, str(caught.value)
        assert report is not None and report.code == code
        assert str(report.cause).startswith("unload-bundle: no source of the VBIOS can be used")
        assert REASONS[fault] in text and "copy in VRAM: no copy of the ROM, a GPU without display (NVC-2031)" in text
        for path, words in said.items():
            assert f"{path}: {words}" in text and f"{path}: {words}" in str(report.cause)
        assert "vbios in [plugins.fw_gsp]" in str(report.remedy)
        assert gpu.violations() == []
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_unload_of_an_earlier_run_takes_the_file_too(tmp_path: Path) -> None:
    file = tmp_path / "board.rom"
    file.write_bytes(sound_rom())
    with bench("ga100", "570.144", vbios=[str(file)]) as gpu:
        saved = leave_running(gpu)
        gpu.inspector.arm("vbios-missing")
        report = gpu.backend.recover(gpu.context(saved))
        assert report.clean and f"from {file} ({REASONS['vbios-missing']}" in detail_of(report.stages)
        assert next(stage for stage in report.stages if stage.name == "fwsec-sb").outcome == "ok"


class Board(Rom):
    """A GPU with a display: `vram`, seen through the window, holds a copy of the ROM."""

    def __init__(self, prom: bytes, copy: bytes = b"", at: int = 0, workspace: int = 0, window: int = 0) -> None:
        super().__init__(prom)
        self.values.update({SHADOW: 0xABC0_0000, DISPLAY_FUSE: 0, WORKSPACE: workspace, WINDOW: window})
        self.vram = bytes(at) + copy.ljust(0x200000, b"\xff")

    def read(self, offset: int, size: int) -> bytes:
        if PROM <= offset < PROM + 0x100000:
            return super().read(offset, size)
        assert offset >= PRAMIN and offset + size <= PRAMIN + 0x100000
        start = (self.values[WINDOW] << 16) + offset - PRAMIN
        return self.vram[start : start + size].ljust(size, b"\xff")


def prepared(bar: Rom, *files: str) -> FwsecSb:
    io = BootIo(bar, Clock(), 1.0)  # type: ignore[arg-type]
    generic = GenericBootloader(MemorySource(image_files.generic()))
    return prepare_fwsec(io, HostMemory(Device({}), 47), generic, vbios_sources(io, IDENTITY, files))  # type: ignore[arg-type]


@pytest.mark.parametrize(("workspace", "window", "at"), [(0x12 << 8 | 0b1001, 0x77, 0x12 << 16), (0b1001, 0x20, 0x20 << 16 | 0xF0000)])
def test_the_copy_in_vram_is_read_where_the_workspace_is_and_the_window_is_put_back(workspace: int, window: int, at: int) -> None:
    bar = Board(b"", with_sum(rom_files.rom(rom_files.ucode_v2())), at, workspace, window)
    found = prepared(bar)
    assert found.origin.startswith("ROM 92.00.22.11.01 from copy in VRAM (PROM: no ROM, all ones")
    assert [value for offset, value in bar.writes if offset == WINDOW][-1] == window
    assert {value for offset, value in bar.writes if offset == WINDOW} - {window} and bar.values[WINDOW] == window


@pytest.mark.parametrize(("workspace", "touched"), [(0, False), (0x1201, False), (0x120A, False), (0x1209, True)])
def test_without_a_workspace_in_vram_the_window_is_left_alone_and_a_copy_without_fwsec_is_said(workspace: int, touched: bool) -> None:
    bar = Board(b"", rom_files.rom(code_type=0x03), 0x12 << 16, workspace, 0x77)
    with pytest.raises(VbiosUnreadable) as caught:
        prepared(bar)
    said = "the ROM has no extended image (0xE0), so no FWSEC" if touched else "no copy of the ROM, VGA_WORKSPACE("
    assert f"copy in VRAM: {said}" in str(caught.value.seen), caught.value.seen
    assert (WINDOW in {offset for offset, _ in bar.writes}) is touched and bar.values[WINDOW] == 0x77


def test_the_error_is_of_the_first_sources_kind() -> None:
    with pytest.raises(FwsecMissing) as caught:
        prepared(Board(rom_files.rom(application=0x01)))
    assert caught.value.where == "PROM, copy in VRAM" and str(caught.value.seen).count("NVC-20") == 2


SOUND = with_sum(rom_files.rom(rom_files.ucode_v2()))


def spoiled(at: int, data: bytes) -> bytes:
    return SOUND[:at] + data + SOUND[at + len(data) :]


@given(
    st.one_of(
        st.tuples(st.sampled_from([b"", b"\x55\xaa", b"NVGI"]), st.binary(max_size=2000)).map(b"".join),
        st.tuples(st.integers(0, len(SOUND) - 8), st.binary(max_size=8)).map(lambda change: spoiled(*change)),
        st.integers(0, len(SOUND) - 1).map(lambda size: SOUND[:size]),
    )
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_in_the_operators_file_are_a_rom_or_a_declared_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.rom"
    file.write_bytes(data)
    try:
        assert prepared(Rom(b""), str(file)).origin.startswith("ROM ")
    except NvcoreError as error:
        assert type(error) is VbiosUnreadable and f"; {file}: " in str(error.seen)
