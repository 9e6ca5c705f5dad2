"""What is in the wheels: all of the sources, nothing else, one version, the licence."""

from __future__ import annotations

import re
import tomllib
import zipfile
from pathlib import Path

import pytest

from .conftest import wheels

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "nvcore": CHECKOUT,
    "nvcore_fw_gsp": CHECKOUT / "plugins/fw_gsp",
    "nvcore_vfio": CHECKOUT / "plugins/vfio",
    "nvcore_softgpu": CHECKOUT / "plugins/softgpu",
}
MODULES = sorted(FOLDERS)


def names(module: str) -> set[str]:
    (wheel,) = wheels().glob(f"{module}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def metadata(module: str) -> str:
    (wheel,) = wheels().glob(f"{module}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))).decode()


def project(module: str) -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((FOLDERS[module] / "pyproject.toml").read_text())["project"]
    return table


@pytest.mark.parametrize("module", MODULES)
def test_a_wheel_holds_its_module_and_loses_no_file_of_it(module: str) -> None:
    inside = {name for name in names(module) if ".dist-info/" not in name}
    sources = (p for p in (FOLDERS[module] / module).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    assert inside == {str(p.relative_to(FOLDERS[module])) for p in sources}


@pytest.mark.parametrize("module", MODULES)
def test_a_wheel_is_typed_and_carries_the_licence(module: str) -> None:
    inside = names(module)
    assert f"{module}/py.typed" in inside
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in inside)
    assert "License-Expression: MIT" in metadata(module)


def test_all_distributions_carry_one_version() -> None:
    versions = {str(project(module)["version"]) for module in MODULES}
    stated = re.search(r'^__version__ = "(.+)"$', (CHECKOUT / "nvcore/__init__.py").read_text(), re.MULTILINE)
    assert stated is not None
    assert versions == {stated.group(1)}


def test_sets_pin_their_siblings_and_plugins_bound_the_host() -> None:
    version = project("nvcore")["version"]
    extras = project("nvcore")["optional-dependencies"]
    assert isinstance(extras, dict)
    siblings = {r for listed in extras.values() for r in listed if r.startswith("nvcore")}
    assert siblings == {f"nvcore-{name}=={version}" for name in ("fw-gsp", "vfio", "softgpu")}
    for module in ("nvcore_fw_gsp", "nvcore_vfio", "nvcore_softgpu"):
        assert "nvcore>=0.1,<0.2" in project(module)["dependencies"]  # type: ignore[operator]


def test_the_host_needs_pluggy_and_attrs_only() -> None:
    needed = re.findall(r"^Requires-Dist: ([\w.-]+)(?!.*extra ==).*$", metadata("nvcore"), re.MULTILINE)
    assert sorted(needed) == ["attrs", "pluggy"]
