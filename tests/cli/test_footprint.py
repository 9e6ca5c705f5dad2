"""`nvcore plugins footprint`: what plugins brought, what is denied, what an uninstall left."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvcore.plugins.footprint import matches
from tests.cli.test_cli import GOOD, Site
from tests.plugins.building import distribution


@pytest.fixture
def site(tmp_path: Path) -> Site:
    found = Site(tmp_path)
    found.plugin("good", GOOD, family="client")
    return found


@pytest.mark.parametrize(
    ("name", "pattern", "hit"),
    [
        ("x-drm-y", "drm*", True),
        ("x_drm", "drm*", True),
        ("nvcore_drm", "drm*", True),
        ("quadrmain", "drm*", False),
        ("libdrm", "drm*", False),
        ("drmain", "drm*", True),
        ("DRM.py", "drm*", True),
        ("a.drm_x", "drm*", True),
        ("nvcore_drm", "nvcore_drm", True),
        ("nvcore_vfio", "nvcore_drm", False),
        ("nvcore-drm", "nvcore-*", True),
    ],
)
def test_a_pattern_is_matched_against_components(name: str, pattern: str, hit: bool) -> None:
    assert matches(name, pattern) == hit


@given(st.text(alphabet="drmx-_.", max_size=8), st.text(alphabet="drm*?x[]-", min_size=1, max_size=5))
def test_a_pattern_is_a_glob_over_every_component_or_with_a_mark_over_the_whole(name: str, pattern: str) -> None:
    parts = [part for part in re.split(r"[-_.]+", name) if part]
    whole = any(mark in pattern for mark in "-_.") and fnmatch.fnmatchcase(name, pattern)
    assert matches(name, pattern) == (any(fnmatch.fnmatchcase(part, pattern) for part in parts) or whole)


def deny(site: Site) -> tuple[int, set[tuple[str, str]]]:
    done = site.run("plugins", "footprint", "--deny", "drm*", "--json", PYTHONPATH=site.env["PYTHONPATH"])
    hits = {
        (hit["kind"], hit["name"])
        for hit in json.loads(done.stdout)["denied"]
        if str(site.folder) in hit["where"] or hit["kind"] == "loaded module"
    }
    return done.returncode, hits


def test_a_distribution_a_module_or_residue_is_denied_and_a_mere_likeness_is_not(site: Site) -> None:
    clean, _ = deny(site)
    distribution(site.folder, "quadrmain", modules={"quadrmain": ""})
    assert deny(site) == (clean, set())
    distribution(site.folder, "x-drm-y", modules={"harmless": ""})
    assert deny(site)[0] == 6
    assert ("distribution", "x-drm-y") in deny(site)[1]


@pytest.mark.parametrize("make", ["module", "residue", "file", "loaded"])
def test_each_kind_of_trace_is_found_by_path(site: Site, make: str) -> None:
    if make == "module":
        (site.folder / "x_drm.py").write_text("")
        expected = ("importable module", "x_drm")
    elif make == "residue":
        (site.folder / "nvcore_drm" / "__pycache__").mkdir(parents=True)
        expected = ("residue", "nvcore_drm")
    elif make == "file":
        distribution(site.folder, "plain", files=("plain/data/drm-modes.json",))
        expected = ("file", "drm-modes.json")
    else:
        site.plugin("hider", "import sys, types\nsys.modules['toy_drm'] = types.ModuleType('toy_drm')\n" + GOOD, family="client")
        expected = ("loaded module", "toy_drm")
    code, hits = deny(site)
    assert code == 6 and expected in hits


def test_the_table_has_one_line_for_all_files_of_a_distribution(site: Site) -> None:
    distribution(site.folder, "x-drm-y", modules={"harmless": ""}, files=tuple(f"harmless/drm-{number}.json" for number in range(7)))
    done = site.run("plugins", "footprint", "--deny", "drm*")
    lines = [line.split()[:3] for line in done.stdout.splitlines() if "x-drm-y" in line.split()]
    rows = json.loads(site.run("plugins", "footprint", "--deny", "drm*", "--json").stdout)["denied"]
    files = [row["name"] for row in rows if row["kind"] == "file" and row["of"] == "x-drm-y"]
    assert {f"drm-{number}.json" for number in range(7)} <= set(files), "every file stands in the document"
    assert done.returncode == 6 and lines == [["distribution", "x-drm-y", "1"], ["file", "x-drm-y", str(len(files))]]


def test_the_footprint_says_what_each_plugin_brought(site: Site) -> None:
    site.plugin(
        "hoards",
        "import colorsys, os\nkept = [bytearray(1 << 22), *(os.open('/dev/null', 0) for _ in range(7))]\n" + GOOD,
        family="client",
        requires=("nvcore", "toy-lib"),
    )
    distribution(site.folder, "toy-lib", modules={"toy_lib": "x = 1"})
    done = site.run("plugins", "footprint", "--json")
    assert done.returncode == 0, done.stdout
    rows = {row["name"]: row for row in json.loads(done.stdout)["plugins"]}
    hoards = rows["hoards"]
    assert hoards["distributions"] == ["toy-hoards", "toy-lib"] and hoards["descriptors"] == 7 and hoards["memory_bytes"] > 1 << 22
    assert {"toy_hoards", "colorsys"} <= set(hoards["modules"]) and hoards["files"] >= 3 and hoards["disk_bytes"] > 0
    assert rows["good"]["descriptors"] == 0
    assert site.run("plugins", "footprint").returncode == 0


@pytest.mark.parametrize("source", ["1 / 0", "import sys; sys.exit(3)", "import toy_absent"])
def test_a_plugin_that_cannot_be_imported_is_not_charged_with_the_words_about_it(site: Site, source: str) -> None:
    site.plugin("breaks", source, family="client")
    rows = {row["name"]: row for row in json.loads(site.run("plugins", "footprint", "--json").stdout)["plugins"]}
    assert (rows["breaks"]["state"], rows["breaks"]["modules"]) == ("failed", [])


def test_residue_is_named_without_a_pattern_too(site: Site) -> None:
    (site.folder / "nvcore_gone").mkdir()
    (site.folder / "~vcore_half-1.0.dist-info").mkdir()
    done = site.run("plugins", "footprint", "--json")
    residue = json.loads(done.stdout)["residue"]
    assert str(site.folder / "nvcore_gone") in residue and str(site.folder / "~vcore_half-1.0.dist-info") in residue


def test_the_configurations_deny_list_is_the_default(site: Site) -> None:
    (site.folder / "x_drm.py").write_text("")
    file = site.folder / "x.toml"
    file.write_text("[plugins]\ndeny = ['drm*']\n")
    done = site.run("plugins", "footprint", "--config", str(file))
    assert done.returncode == 6 and str(site.folder / "x_drm.py") in done.stdout
