"""`nvcore firmware`: what it prints is data, what it says is for people, and its exit codes are those of its documentation."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import jsonschema
import pytest

import nvcore_fw_gsp
from nvcore.api.errors import UsageError
from nvcore_fw_gsp.cli import command
from nvcore_fw_gsp.images.errors import FirmwareFormatError, FirmwareMissing
from nvcore_fw_gsp.images.fmc import Fmc
from nvcore_fw_gsp.provision.fetch import NOTE, fetch

from . import image_files as write
from . import rom_files
from .memory_source import MemorySource
from .test_provision_fetch import machine

__all__ = ["machine"]


class Screen:
    """The command line's side, as nvcore.api.command.CommandIO says; every document is held against its schema."""

    def __init__(self):
        self.shown, self.said = [], []
        self.folders = ()

    def section(self, offer):
        return offer.record(firmware_dir=self.folders)

    def say(self, text):
        self.said.append(text)

    def show(self, output, *, schema, key, rows, columns, name="name"):
        assert all(len(column) == 3 and column[2] in ("left", "right", "wide") for column in columns)
        assert all(column[0] in row for row in rows for column in columns) and all(name in row for row in rows)
        text = (Path(nvcore_fw_gsp.__file__).parent / "schemas" / f"{schema.replace('/', '.')}.json").read_text()
        jsonschema.validate(json.loads(json.dumps({"schema": schema, "generated_at": "", key: rows})), json.loads(text))
        self.shown.append((output, schema, key, rows))

    @property
    def rows(self):
        return self.shown[-1][3]


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No images but those of the test."""
    monkeypatch.setattr("nvcore_fw_gsp.images.find._SYSTEM", ())
    monkeypatch.delenv("NVCORE_FIRMWARE", raising=False)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))


def run(*argv, folders=()):
    screen = Screen()
    screen.folders = folders
    return command([str(word) for word in argv], screen), screen


def test_list_shows_usable_and_unusable_sets(tmp_path):
    write.write_set(str(tmp_path))
    write.write_set(str(tmp_path), version="550.163.01")
    code, screen = run("list", "--root", tmp_path, "--chip", "ga100", "-o", "json")
    assert code == 0 and screen.shown[-1][:3] == ("json", "nvcore.firmware.list/1", "images")
    assert [(row["name"], row["usable"]) for row in screen.rows] == [("GA100/570.144", True), ("GA100/550.163.01", False)]
    assert "not supported" in screen.rows[1]["state"]


def test_list_says_of_sets_of_one_name_which_is_taken_and_is_what_no_verb_means(tmp_path):
    write.write_set(str(tmp_path / "broken"), gsp=None)
    write.write_set(str(tmp_path / "one"))
    write.write_set(str(tmp_path / "two"))
    roots = tuple(str(tmp_path / name) for name in ("broken", "one", "two"))
    code, screen = run("--chip", "ga100", folders=roots)
    assert code == 0 and [row["taken"] for row in screen.rows] == [False, True, False]
    assert [row["name"] for row in screen.rows] == ["GA100/570.144"] * 3
    code, screen = run(folders=roots)
    assert code == 0 and len(screen.rows) >= 3


def test_list_says_which_named_folder_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("NVCORE_FIRMWARE", str(tmp_path / "two"))
    code, screen = run("list", "--root", tmp_path / "three", folders=(str(tmp_path / "one"),))
    assert code == 3
    assert screen.said[:3] == [
        f"{tmp_path}/one, named by firmware_dir, is no folder: no GPU is booted until that is mended",
        f"{tmp_path}/two, named by NVCORE_FIRMWARE, is no folder: no GPU is booted until that is mended",
        f"{tmp_path}/three, named by --root, is no folder",
    ]


def test_list_without_images_says_where_it_looked_and_ends_with_3(tmp_path):
    code, screen = run("list", "--root", tmp_path)
    assert code == 3 and str(tmp_path) in screen.said[0] and "fetch" in screen.said[1]


def test_list_says_which_folder_cannot_be_read(tmp_path):
    (tmp_path / "ga100").mkdir()
    (tmp_path / "ga100" / "gsp").write_text("a file")
    _, screen = run("list", "--root", tmp_path)
    assert f"{tmp_path}/ga100/gsp cannot be read: Not a directory" in screen.said


def test_inspect_tells_the_kind_by_the_bytes(tmp_path):
    files = {
        "gsp": write.gsp(), "fmc": write.fmc(), "ucode": write.hs(), "riscv": write.riscv(), "generic": write.generic(),
        "rom": rom_files.rom(ifr=0),
    }  # fmt: skip
    for kind, data in files.items():
        path = tmp_path / "file"
        path.write_bytes(data)
        code, screen = run("inspect", path)
        assert code == 0 and screen.rows[0]["name"] == "kind" and screen.rows[0]["value"] == kind


def test_inspect_tells_what_a_ucode_and_an_image_hold(tmp_path):
    (tmp_path / "ucode").write_bytes(write.hs())
    (tmp_path / "gsp").write_bytes(write.gsp(build_id=b""))
    values = {row["name"]: row["value"] for row in run("inspect", tmp_path / "ucode")[1].rows}
    assert (values["code"], values["data"], values["secure_code"]) == ([0, 0x100], [0x800, 0x800], [[0x100, 0x700]])
    assert (values["signatures"], values["patch_location"], values["ucode_id"]) == (2, 0xA00, 3)
    values = {row["name"]: row["value"] for row in run("inspect", tmp_path / "gsp")[1].rows}
    assert (values["release"], values["build_id"], values["image_bytes"]) == ("570.144", None, 10000)


def test_inspect_reads_a_rom_behind_an_ifr_header_and_behind_a_vendors(tmp_path):
    path = tmp_path / "rom"
    path.write_bytes(rom_files.rom(ifr=1))
    assert {row["name"]: row["value"] for row in run("inspect", path)[1].rows}["version"] == "92.00.22.11.01"
    path.write_bytes(bytes(1536) + rom_files.rom())
    code, screen = run("inspect", path, "--offset", "0x600")
    assert code == 0 and {row["name"]: row["value"] for row in screen.rows}["first_image"] == 0x600


def test_inspect_refuses_what_it_does_not_know(tmp_path):
    (tmp_path / "x").write_bytes(b"hello")
    with pytest.raises(FirmwareFormatError, match="68 65 6c 6c 6f"):
        run("inspect", tmp_path / "x")
    with pytest.raises(FirmwareMissing):
        run("inspect", tmp_path / "y")


def test_verify_reads_every_file_once_and_names_the_bad_one(tmp_path):
    folder = write.write_set(str(tmp_path))
    code, screen = run("verify", "--root", tmp_path)
    assert code == 0 and len(screen.rows) == 5 and all(row["ok"] for row in screen.rows)
    with open(f"{folder}/booter_load-570.144.bin", "r+b") as file:
        file.truncate(300)
    code, screen = run("verify", "--root", tmp_path)
    assert code == 1 and [os.path.basename(row["file"]) for row in screen.rows if not row["ok"]] == ["booter_load-570.144.bin"]


def test_verify_compares_an_fmc_with_its_own_sums_and_names_a_set_that_cannot_be_used(tmp_path):
    from .soft import synthetic_root

    shutil.copytree(synthetic_root(), tmp_path, symlinks=True, dirs_exist_ok=True)
    code, screen = run("verify", "--root", tmp_path, "--chip", "GH100")
    (fmc,) = [row for row in screen.rows if row["kind"] == "fmc"]
    assert code == 0 and (fmc["ok"], fmc["checked"]) == (True, "format, crc32, sha384")
    path = Path(fmc["file"])
    data = bytearray(path.read_bytes())
    data[data.index(Fmc(MemorySource(bytes(data))).image())] ^= 1
    path.write_bytes(data)
    code, screen = run("verify", "--root", tmp_path, "--chip", "GH100")
    assert code == 1 and [row["kind"] for row in screen.rows if not row["ok"]] == ["fmc"]
    next(tmp_path.glob("gh100/gsp/bootloader-570.144.bin")).unlink()
    code, screen = run("verify", "--root", tmp_path, "--chip", "GH100")
    (row,) = [row for row in screen.rows if row["kind"] == "set"]
    assert code == 1 and row["ok"] is False and "570.144" in row["file"] and "bootloader" in row["state"]


def test_verify_compares_with_the_note_of_the_fetch(tmp_path, machine):
    folder = tmp_path / "nvidia"
    fetch(str(folder), lambda _: None, environ=machine)
    write.write_set(str(folder))  # the links of the package now lead to whole files
    path = folder / "tu102/gsp/gsp-570.144.bin"
    path.write_bytes(write.gsp())
    note = json.loads((folder / NOTE).read_text())
    sound = {**note, "files": {**note["files"], "tu102/gsp/gsp-570.144.bin": hashlib.sha256(write.gsp()).hexdigest()}}
    (folder / NOTE).write_text(json.dumps(sound))
    code, screen = run("verify", "--root", folder, "--chip", "TU102")
    (row,) = [row for row in screen.rows if row["file"] == str(path)]
    assert (row["ok"], row["checked"]) == (True, "format, sha256")
    (folder / NOTE).write_text(json.dumps(note))
    code, screen = run("verify", "--root", folder, "--chip", "TU102")
    assert code == 1 and any("damaged: SHA-256" in row["state"] for row in screen.rows)


def test_fetch_puts_images_where_asked(tmp_path, machine, monkeypatch):
    for key, value in machine.items():
        monkeypatch.setenv(key, value)
    code, screen = run("fetch", "-o", "json")
    assert code == 0 and screen.shown[-1][1] == "nvcore.firmware.fetch/1"
    assert screen.rows[0]["name"] == str(tmp_path / "state/plugins/fw_gsp/firmware/nvidia") and screen.rows[0]["version"] == "1-2"
    assert any(line.startswith("downloading") for line in screen.said)
    assert screen.rows[0]["files"] == 2  # an image and a loader, each once; the licence is not one
    assert any(line.startswith("2 images in ") and line.endswith("/copyright") for line in screen.said)


@pytest.mark.parametrize("argv", [("--nope",), ("bogus",), ("inspect",), ("list", "--nope"), ("inspect", "f", "--offset", "x")])
def test_wrong_words_are_usage_errors(argv):
    with pytest.raises(UsageError):
        run(*argv)


def test_the_folders_of_the_configuration_are_looked_in_too(tmp_path):
    write.write_set(str(tmp_path / "configured"))
    write.write_set(str(tmp_path / "asked"))
    code, screen = run("list", "--chip", "ga100", folders=(str(tmp_path / "configured"),))
    assert code == 0 and [row["folder"] for row in screen.rows] == [str(tmp_path / "configured/ga100")]
    code, screen = run("verify", "--root", tmp_path / "asked", "--chip", "ga100", folders=(str(tmp_path / "configured"),))
    assert {Path(row["file"]).relative_to(tmp_path).parts[0] for row in screen.rows} == {"asked", "configured"}
    code, screen = run("list", "--root", tmp_path / "none", folders=(str(tmp_path / "empty"),))
    assert code == 3 and str(tmp_path / "empty") in screen.said[0]
