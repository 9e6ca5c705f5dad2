"""What the plugin offers and what an operator can tell it: `[plugins.fw_gsp]`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nvcore.api.clock import SYSTEM
from nvcore.api.errors import ConfigError
from nvcore.api.offers import HostInfo
from nvcore.config.model import Configuration, Tables
from nvcore.config.sections import build
from nvcore_fw_gsp import operator, plugin
from nvcore_fw_gsp.boot.chips import BOOT_CHIPS
from nvcore_fw_gsp.images.errors import FirmwareMissing
from nvcore_fw_gsp.images.find import VERSIONS
from tests.config.spoiled import records


def host(state_dir: Path | None = None) -> HostInfo:
    return HostInfo("0", {}, "embedded", SYSTEM, state_dir=state_dir)


def configure(info: HostInfo, **table: object) -> HostInfo:
    [section] = operator.nvcore_config_sections(info)
    info.config = build(section, Configuration(Tables(), {"plugins": {"fw_gsp": table}}, {}, []))
    return info


def test_configured_folders_are_looked_in_before_all_others(tmp_path, monkeypatch):
    first, asked = str(tmp_path / "first"), str(tmp_path / "environment")
    for name in ("first", "environment", "second/nvidia"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("NVCORE_FIRMWARE", asked)
    info = host(tmp_path / "state")
    [offer] = plugin.nvcore_firmware_backends(info)
    backend = offer.open()
    assert backend.roots()[:2] == (asked, str(tmp_path / "state/firmware"))
    configure(info, firmware_dir=[first, str(tmp_path / "second")])
    assert backend.roots()[:4] == (first, str(tmp_path / "second/nvidia"), asked, str(tmp_path / "state/firmware"))


def test_a_named_folder_that_is_not_there_is_refused_and_no_other_is_taken_in_its_place(tmp_path, monkeypatch):
    monkeypatch.delenv("NVCORE_FIRMWARE", raising=False)
    info = host(tmp_path / "state")
    [offer] = plugin.nvcore_firmware_backends(info)
    backend = offer.open()
    backend.roots()  # folders that nobody named may be absent
    configure(info, firmware_dir=["/nowhere/one"])
    with pytest.raises(FirmwareMissing, match="/nowhere/one, named by firmware_dir, is no folder"):
        backend.roots()
    configure(info, firmware_dir=[])
    monkeypatch.setenv("NVCORE_FIRMWARE", "/nowhere/two")
    with pytest.raises(FirmwareMissing, match="/nowhere/two, named by NVCORE_FIRMWARE, is no folder"):
        backend.roots()


@pytest.mark.parametrize("wrong", ["/one", ["relative/folder"], [5], None])
def test_a_wrong_folder_is_refused_before_the_host_starts(wrong):
    with pytest.raises(ConfigError, match=r"value|refused") as caught:
        configure(host(), firmware_dir=wrong)
    assert caught.value.expected


def test_configured_roms_reach_the_backend(tmp_path):
    info = host(tmp_path / "state")
    [offer] = plugin.nvcore_firmware_backends(info)
    backend = offer.open()
    assert tuple(backend._vbios()) == ()
    configure(info, vbios=["/one.rom", "/two.rom"])
    assert backend._vbios() == ("/one.rom", "/two.rom")


@pytest.mark.parametrize("wrong", ["/one.rom", ["relative.rom"], [""], ["/a\0b"], [5], None])
def test_a_wrong_path_of_a_rom_is_refused_before_the_host_starts(wrong):
    with pytest.raises(ConfigError, match=r"value|refused") as caught:
        configure(host(), vbios=wrong)
    assert caught.value.expected


def test_without_a_section_nothing_is_configured():
    [section] = operator.nvcore_config_sections(host())
    record = build(section, None)
    assert record.firmware_dir == record.vbios == ()


def test_the_offer_names_what_the_backend_boots():
    """The plugin module repeats two small tables, because it may import nothing but the contracts."""
    [offer] = plugin.nvcore_firmware_backends(host())
    assert (set(offer.chips), tuple(offer.versions)) == (set(BOOT_CHIPS), VERSIONS)


VALID = b'[plugins.fw_gsp]\nfirmware_dir = ["/first", "/second/with space"]\nvbios = ["/board.rom"]\n'
VALUES = ("", "5", '"/a"', "[]", '["/a"]', "[[]]", '["a"]', "[true]", "{}", '{a = "/x"}', '["/a", 5]', "1979-05-27", "inf", '["/\\u0000"]')


def wrong(chooser: random.Random) -> bytes:
    """A section with one key of some value."""
    return f"[plugins.fw_gsp]\n{chooser.choice(('firmware_dir', 'vbios'))} = {chooser.choice(VALUES)}\n".encode()


def test_two_thousand_sections_of_any_bytes_or_values_are_a_record_or_a_named_error():
    [section] = operator.nvcore_config_sections(host())
    made = records(section, lambda chooser: VALID if chooser.random() >= 0.5 else wrong(chooser))
    assert all(isinstance(path, str) and path.startswith("/") for record in made for path in (*record.firmware_dir, *record.vbios))
    assert not any("\0" in path for record in made for path in record.vbios)
    assert 100 < len(made) < 1900
