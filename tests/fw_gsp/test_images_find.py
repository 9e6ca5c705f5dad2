"""What is missing is told with what was looked for, where, and which versions are there; no neighbour is used (field cases F06, F07)."""

import os

import pytest

from nvcore_fw_gsp.images import find as room
from nvcore_fw_gsp.images.chips import CHIPS, image_chip
from nvcore_fw_gsp.images.errors import ChipNotSupported, FirmwareMissing, ReleaseMismatch, VersionNotSupported

from . import image_files as write


def test_sets_come_in_the_order_of_folders_and_versions(tmp_path):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    write.write_set(one, version="535.113.01")
    write.write_set(two, version="535.113.01")
    write.write_set(two, version="570.144")
    found = room.find("GA100", [one, two])
    assert [(s.version, s.folder.startswith(one), s.problem) for s in found] == [
        ("535.113.01", True, None), ("570.144", False, None), ("535.113.01", False, None),
    ]  # fmt: skip
    assert room.choose("GA100", [one, two]).version == "535.113.01"
    assert room.choose("GA100", [one, two], "570.144").folder.startswith(two)


def test_a_missing_file_is_named_with_its_path(tmp_path):
    write.write_set(str(tmp_path), booter_unload=None, gen_bootloader=None)
    (found,) = room.find("GA100", [str(tmp_path)])
    assert found.problem == "missing: booter_unload-570.144.bin, gen_bootloader or acr/bl.bin"
    assert f"{tmp_path}/ga100/gsp/booter_unload-570.144.bin: missing" in found.looked_for
    with pytest.raises(FirmwareMissing, match=r"booter_unload-570\.144\.bin"):
        room.choose("GA100", [str(tmp_path)])


def test_the_generic_bootloader_may_be_the_acr_one(tmp_path):
    write.write_set(str(tmp_path), gen_bootloader=None)
    os.makedirs(tmp_path / "ga100" / "acr")
    (tmp_path / "ga100" / "acr" / "bl.bin").write_bytes(write.generic("acr"))
    assert room.choose("GA100", [str(tmp_path)]).files["generic"].endswith("acr/bl.bin")


def test_another_version_that_is_there_is_named_not_used(tmp_path):
    write.write_set(str(tmp_path), version="570.172.08")
    (found,) = room.find("GA100", [str(tmp_path)])
    assert "570.172.08 is not supported" in (found.problem or "")
    with pytest.raises(FirmwareMissing, match=r"570\.172\.08 in"):
        room.choose("GA100", [str(tmp_path)])
    with pytest.raises(VersionNotSupported):
        room.choose("GA100", [str(tmp_path)], "570.172.08")


def test_a_folder_in_the_place_of_a_version_is_told_where_folders_go(tmp_path):
    with pytest.raises(VersionNotSupported) as refused:
        room.choose("GA100", [], str(tmp_path))
    assert "firmware_dir" in str(refused.value.remedy)


def test_compressed_files_and_broken_links_are_not_called_missing(tmp_path):
    folder = write.write_set(str(tmp_path), gsp=None, bootloader=None)
    with open(f"{folder}/gsp-570.144.bin.xz", "wb") as file:
        file.write(b"\xfd7zXZ\0")
    os.symlink("../../nowhere", f"{folder}/bootloader-570.144.bin")
    (found,) = room.find("GA100", [str(tmp_path)])
    assert "gsp-570.144.bin (only as .xz, compressed)" in (found.problem or "")
    assert any(line.endswith("bootloader-570.144.bin: a broken link") for line in found.looked_for)


def test_a_folder_that_cannot_be_read_is_not_called_empty(tmp_path, monkeypatch):
    locked, plain = str(tmp_path / "locked"), str(tmp_path / "plain")
    write.write_set(locked)
    os.makedirs(f"{plain}/ga100")
    (tmp_path / "plain" / "ga100" / "gsp").write_text("a file")
    listdir = os.listdir

    def refuse(path):
        if str(path).startswith(locked):
            raise PermissionError(13, "Permission denied", path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)  # the tests may run as root, who may read everything
    with pytest.raises(FirmwareMissing) as caught:
        room.choose("GA100", [locked, plain, str(tmp_path / "nowhere")])
    seen = caught.value.seen
    assert seen == f"{locked}/ga100/gsp cannot be read: Permission denied; {plain}/ga100/gsp cannot be read: Not a directory"
    with pytest.raises(FirmwareMissing, match=f"no version in {tmp_path}/nowhere, {tmp_path}/other.*list shows the sets"):
        room.choose("GA100", [str(tmp_path / "nowhere"), str(tmp_path / "other")])


def test_an_image_of_another_release_is_refused(tmp_path):
    write.write_set(str(tmp_path), gsp=write.gsp("570.133.20"))
    (found,) = room.find("GA100", [str(tmp_path)])
    assert "another release" in (found.problem or "")
    with pytest.raises(ReleaseMismatch):
        found.open_gsp()


def test_an_image_that_is_not_for_the_chip_is_refused(tmp_path):
    write.write_set(str(tmp_path), gsp=write.gsp(families=("ga10x",)))
    (found,) = room.find("GA100", [str(tmp_path)])
    assert "no signature for ga100" in (found.problem or "")


def test_a_chip_without_a_row_gets_no_neighbours_files(tmp_path):
    write.write_set(str(tmp_path), chip="ga100")
    with pytest.raises(ChipNotSupported, match="ga101/gsp/"):
        room.find("GA101", [str(tmp_path)])
    assert room.find("GA102", [str(tmp_path)]) == []


def test_made_up_images_are_of_kind_synthetic(tmp_path):
    write.write_set(str(tmp_path), gsp=write.gsp(build_id=b"synthetic 1"))
    assert room.choose("GA100", [str(tmp_path)]).kind == "synthetic"


def test_every_row_of_the_chip_table_is_complete():
    assert len({chip.name for chip in CHIPS}) == len(CHIPS)
    for chip in CHIPS:
        assert {"gsp", "bootloader"} < set(chip.required)
        assert ("fmc" in chip.required) != ("booter_load" in chip.required)
        assert chip.generic == (chip.libos == 2)
    assert image_chip("GH100").signature == "gh100"


def test_folders_are_looked_at_in_order_and_once(tmp_path):
    (tmp_path / "a" / "nvidia").mkdir(parents=True)
    environ = {"NVCORE_FIRMWARE": str(tmp_path / "b"), "STATE_DIRECTORY": str(tmp_path / "s"), "HOME": "/nowhere"}
    roots = room.search_roots([str(tmp_path / "a")], environ)
    assert roots[:3] == (str(tmp_path / "a" / "nvidia"), str(tmp_path / "b"), str(tmp_path / "s" / "plugins/fw_gsp/firmware/nvidia"))
    assert roots[3] == "/lib/firmware/nvidia"
    assert len({os.path.realpath(root) for root in roots}) == len(roots)
