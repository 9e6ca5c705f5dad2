"""A set brings what it names and nothing else; what it brings imports and answers."""

from __future__ import annotations

import fnmatch
import json
import re

import pytest

from .conftest import SETS, Environments

HOST = {"nvcore", "pluggy", "attrs"}
RICH = {"rich", "markdown-it-py", "mdurl", "pygments"}
BRINGS = {
    "none": HOST,
    "fw-gsp": HOST | {"nvcore-fw-gsp"},
    "vfio": HOST | {"nvcore-vfio"},
    "softgpu": HOST | {"nvcore-fw-gsp", "nvcore-softgpu"},
    "vgpu-host": HOST | {"nvcore-fw-gsp", "nvcore-vfio"},
    "demo": HOST | {"nvcore-fw-gsp", "nvcore-vfio", "nvcore-softgpu"} | RICH,
    "all": HOST | {"nvcore-fw-gsp", "nvcore-vfio", "nvcore-softgpu"} | RICH,
}
PLUGINS = {
    "none": set(),
    "fw-gsp": {"fw_gsp"},
    "vfio": {"vfio"},
    "softgpu": {"fw_gsp", "softgpu"},
    "vgpu-host": {"fw_gsp", "vfio"},
    "demo": {"fw_gsp", "vfio", "softgpu"},
    "all": {"fw_gsp", "vfio", "softgpu"},
}
OPTIONAL = {"rich", "pytest", "_pytest", "hypothesis"}
"""What single modules of the host may ask for beyond the set: its rich views and its test kit."""

IMPORT_ALL = """
import importlib, json, pkgutil, sys
names, failed = [], {}
for top in sys.argv[1:]:
    package = importlib.import_module(top)
    names.append(top)
    for found in pkgutil.walk_packages(package.__path__, top + ".", onerror=lambda name: None):
        if found.name.rpartition(".")[2] == "__main__":
            continue
        names.append(found.name)
        try:
            importlib.import_module(found.name)
        except Exception as error:
            failed[found.name] = [type(error).__name__, getattr(error, "name", None) or str(error)]
print(json.dumps({"names": names, "failed": failed, "loaded": sorted(sys.modules)}))
"""
IMPORTABLE = """
import json, pkgutil
print(json.dumps(sorted(m.name for m in pkgutil.iter_modules())))
"""
DISTRIBUTIONS = """
import importlib.metadata, json
print(json.dumps(sorted(d.metadata["Name"].lower().replace("_", "-") for d in importlib.metadata.distributions())))
"""
ENTRY_POINTS = """
import importlib.metadata, json
problems, seen = {}, []
for point in (p for d in importlib.metadata.distributions() for p in d.entry_points):
    if point.group.startswith("nvcore."):
        seen.append(f"{point.group}:{point.name}")
        try:
            point.load()
        except Exception as error:
            problems[point.name] = repr(error)
print(json.dumps({"seen": seen, "problems": problems}))
"""


def denied(name: str, pattern: str = "drm*") -> bool:
    """Whether any component of a name, split at `-`, `_` and `.`, matches."""
    return any(fnmatch.fnmatch(part, pattern) for part in re.split(r"[-_.]", name.lower()))


def modules_of(distributions: set[str]) -> list[str]:
    return sorted(name.replace("-", "_") for name in distributions if name.startswith("nvcore"))


@pytest.mark.parametrize("name", SETS)
def test_a_set_brings_exactly_its_distributions(environments: Environments, name: str) -> None:
    installed = environments[name].json(DISTRIBUTIONS)
    assert set(installed) == BRINGS[name]


@pytest.mark.parametrize("name", SETS)
def test_every_module_of_a_set_imports_with_that_set_alone(environments: Environments, name: str) -> None:
    answer = environments[name].json(IMPORT_ALL, *modules_of(BRINGS[name]))
    available = RICH & BRINGS[name]
    missing = {m: why for m, why in answer["failed"].items() if why[1].partition(".")[0] not in OPTIONAL - available}
    assert not missing
    assert len(answer["names"]) > len(answer["failed"])


@pytest.mark.parametrize("name", [n for n in SETS if n != "none"])
def test_every_entry_point_of_a_set_leads_somewhere(environments: Environments, name: str) -> None:
    answer = environments[name].json(ENTRY_POINTS)
    assert answer["problems"] == {}
    assert len(answer["seen"]) >= 2


@pytest.mark.parametrize("name", SETS)
def test_every_set_runs_and_lists_its_plugins(environments: Environments, name: str) -> None:
    done = environments[name].python("-m", "nvcore", "plugins", "list", "-o", "json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    rows = rows["plugins"] if isinstance(rows, dict) else rows
    assert {row["name"] for row in rows} == PLUGINS[name]


def test_the_console_script_is_there(environments: Environments) -> None:
    done = environments["none"].python(str(environments["none"].folder / "bin/nvcore"), "--version")
    assert done.returncode == 0, done.stderr
    assert "0.1.0" in done.stdout


class TestAVgpuHostHasNoDrm:
    def test_no_file_on_the_disk(self, environments: Environments) -> None:
        site = environments["vgpu-host"].site
        parts = {part for path in site.rglob("*") for part in path.relative_to(site).parts}
        assert len(parts) > 50
        assert not {part for part in parts if denied(part)}

    def test_no_distribution(self, environments: Environments) -> None:
        assert not [name for name in environments["vgpu-host"].json(DISTRIBUTIONS) if denied(name)]

    def test_nothing_importable(self, environments: Environments) -> None:
        importable = environments["vgpu-host"].json(IMPORTABLE)
        assert "nvcore_vfio" in importable
        assert not [name for name in importable if denied(name)]

    def test_nothing_loaded_with_every_module_imported(self, environments: Environments) -> None:
        loaded = environments["vgpu-host"].json(IMPORT_ALL, "nvcore", "nvcore_fw_gsp", "nvcore_vfio")["loaded"]
        assert "nvcore_vfio" in loaded
        assert not [name for name in loaded if denied(name)]

    def test_the_check_sees_what_it_must(self) -> None:
        assert denied("nvcore_drm") and denied("x-drm-y") and denied("nvcore.drm.kms") and denied("drmcore.so")
        assert not denied("quadrmain") and not denied("nvcore_vfio")
