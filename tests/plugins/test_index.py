"""The index: equal to importlib.metadata, first place wins, damage named, nothing imported (F30, F31)."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore.plugins.index import Index, _entry_points, _fields, scan
from nvcore.plugins.select import Selection, inventory, select
from tests.plugins.building import distribution, plugin


def both(folder: Path, rest: list[str]) -> tuple[set[tuple[str, str, str]], set[tuple[str, str, str]]]:
    path = [str(folder), *rest]
    points = [point for dist in scan(path).plugins() for point in dist.entry_points]
    ours = {(f"nvcore.{point.family}.v{point.generation}", point.name, point.value) for point in points}
    seen: set[str] = set()
    theirs: set[tuple[str, str, str]] = set()
    for dist in metadata.distributions(path=path):
        name = dist.metadata["Name"].lower().replace("_", "-").replace(".", "-")
        if name in seen:
            continue
        seen.add(name)
        theirs |= {(point.group, point.name, point.value) for point in dist.entry_points if point.group.startswith("nvcore.")}
    return ours, theirs


def test_the_scan_says_what_importlib_metadata_says(tmp_path: Path, others: list[str]) -> None:
    distribution(tmp_path, "dash-ed.Name", points={"nvcore.client.v1": {"dashed": "dashed_mod"}, "console_scripts": {"x": "y:z"}})
    distribution(tmp_path, "two", points={"nvcore.operator.v1": {"two": "two.plugin:Thing"}, "nvcore.command.v1": {"noun": "two.cli:noun"}})
    egg = tmp_path / "old_style.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: old-style\nVersion: 3\n")
    (egg / "entry_points.txt").write_text("[nvcore.device.v1]\n# a comment\nold = old_mod\n")
    ours, theirs = both(tmp_path, others)
    assert ours == theirs
    assert len(ours) == 4


def test_an_egg_is_read_where_the_path_leads_into_it_and_named_where_it_is_damaged(tmp_path: Path, others: list[str]) -> None:
    good, bad = (tmp_path / f"{name}-4-py3.11.egg" for name in ("lays", "cracked"))
    for egg, headers in ((good, "Name: lays\nVersion: 4\n"), (bad, "Version: 4\n")):
        (egg / "EGG-INFO").mkdir(parents=True)
        (egg / "EGG-INFO" / "PKG-INFO").write_text(headers)
        (egg / "EGG-INFO" / "entry_points.txt").write_text("[nvcore.client.v1]\nlays = lays_mod\n")
    ours, theirs = both(good, others)
    assert ours == theirs == {("nvcore.client.v1", "lays", "lays_mod")}
    index = scan([str(bad), str(good)])
    assert [(plugin.name, plugin.version, plugin.location) for plugin in inventory(index)] == [("lays", "4", str(good))]
    assert [(p.code, p.where) for p in index.problems] == [("NVC-1110", str(bad / "EGG-INFO"))]


def test_a_dashed_folder_of_an_old_tool_keeps_its_name_and_version(tmp_path: Path) -> None:
    (tmp_path / "old-tool-dist-1.2.3.dist-info").mkdir()
    (tmp_path / "some_egg-2.0-py3.11.egg-info").write_text("Name: some-egg\nVersion: 2.0\n")
    (tmp_path / "unversioned.dist-info").mkdir()
    (tmp_path / "unversioned.dist-info" / "METADATA").write_text("Name: unversioned\nVersion: 7\n")
    found = {name: dist.version for name, dist in scan([str(tmp_path)]).distributions.items()}
    assert found == {"old-tool-dist": "1.2.3", "some-egg": "2.0", "unversioned": ""}


def test_requirements_of_an_egg_are_read_and_its_extras_are_not(tmp_path: Path) -> None:
    egg = tmp_path / "toy_egg.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Name: toy-egg\nVersion: 1\n")
    (egg / "entry_points.txt").write_text("[nvcore.client.v1]\negg = toy_egg\n")
    (egg / "requires.txt").write_text("nvcore>=0\n\n[:python_version > '3']\nabsent\n\n[docs]\nsphinx\n")
    index = scan([str(tmp_path)])
    assert index.distributions["toy-egg"].requires == ["nvcore>=0", "absent; python_version > '3'"]
    (only,) = inventory(index)
    assert only.state == "incompatible" and only.remedy == "pip install 'absent'"


def test_an_editable_install_is_found_like_importlib_metadata_finds_it(tmp_path: Path, others: list[str]) -> None:
    source, built = tmp_path / "source", tmp_path / "venv-site"
    (source / "toy_edit").mkdir(parents=True)
    (source / "toy_edit" / "__init__.py").write_text("")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n[project]\nname = "toy-edit"\nversion = "2.5"\n'
        '[project.entry-points."nvcore.client.v1"]\nedit = "toy_edit"\n'
        '[tool.hatch.build]\ndev-mode-dirs = ["."]\n'  # without it hatchling needs one package more
    )
    pip = [sys.executable, "-m", "pip"]
    if "NVCORE_TEST_PIP" in os.environ:  # dev.py's environments have no pip of their own
        pip = [sys.executable, os.environ["NVCORE_TEST_PIP"], "--python", sys.executable]
    done = subprocess.run(
        [*pip, "install", "-q", "--no-build-isolation", "--no-deps", "--no-index", "--target", str(built), "-e", str(source)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = both(built, others)
    assert ours == theirs == {("nvcore.client.v1", "edit", "toy_edit")}


def test_the_first_place_on_the_path_wins_and_the_shadowed_one_is_shown(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    plugin(one, "twin", "")
    shadow = plugin(two, "twin", "", version="0.9")
    index = scan([str(one), str(two)])
    (only,) = inventory(index)
    assert only.version == "1.0" and only.location == str(one)
    assert only.notes == [f"shadows {shadow}"]


def test_an_editable_beside_its_egg_info_is_one_plugin(tmp_path: Path) -> None:
    plugin(tmp_path / "site", "twin", "")
    egg = tmp_path / "src" / "toy_twin.egg-info"
    egg.mkdir(parents=True)
    (egg / "PKG-INFO").write_text("Name: toy_twin\nVersion: 1.0\n")
    (egg / "entry_points.txt").write_text("[nvcore.operator.v1]\ntwin = toy_twin\n")
    plugins = inventory(scan([str(tmp_path / "site"), str(tmp_path / "src")]))
    assert [(p.name, p.notes) for p in plugins] == [("twin", [f"shadows {egg}"])]


def test_one_folder_under_two_names_does_not_shadow_itself(tmp_path: Path) -> None:
    plugin(tmp_path / "lib", "twin", "")
    (tmp_path / "lib64").symlink_to("lib")
    (only,) = inventory(scan([str(tmp_path / "lib"), str(tmp_path / "lib64")]))
    assert only.notes == []


def test_two_versions_in_one_folder_are_both_reported(tmp_path: Path) -> None:
    old = plugin(tmp_path, "twin", "", version="1.9")
    plugin(tmp_path, "twin", "", version="1.10")
    index = scan([str(tmp_path)])
    assert index.distributions["toy-twin"].version == "1.10"
    assert [(p.code, p.where) for p in index.problems] == [("NVC-1111", str(old))]
    assert "1.9 and 1.10" in index.problems[0].what


def _undecodable(info: Path) -> None:
    (info / "METADATA").write_bytes(b"Name: \xff\xfe\n")


def _nameless(info: Path) -> None:
    (info / "METADATA").write_text("Version: 1\n\nName: too late\n")


def _gone(info: Path) -> None:
    (info / "METADATA").unlink()


def _bad_points(info: Path) -> None:
    (info / "entry_points.txt").write_bytes(b"[nvcore.client.v1]\nx = \xff\n")


def _stray_egg(info: Path) -> Path:
    (info / "METADATA").rename(info / "PKG-INFO")
    return info.rename(info.with_name("EGG-INFO"))


@pytest.mark.parametrize("damage", [_undecodable, _nameless, _gone, _bad_points, _stray_egg])
def test_damaged_metadata_is_named_and_skipped_and_the_rest_goes_on(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    info = plugin(tmp_path, "hurt", "")
    plugin(tmp_path, "well", "")
    info = damage(info) or info
    index = scan([str(tmp_path)])
    assert [plugin.name for plugin in inventory(index)] == ["well"]
    assert [(p.code, p.where) for p in index.problems] == [("NVC-1110", str(info))]
    assert index.problems[0].remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="by design: root reads everything")
def test_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    try:
        assert scan([str(tmp_path)]).problems[0].where == str(tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    (problem,) = scan([str(tmp_path)]).problems
    assert problem.where == str(tmp_path) and "Permission denied" in problem.what


def test_leftovers_of_pip_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "~oy_gone-1.0.dist-info").mkdir()
    (tmp_path / "~oy_gone-1.0.dist-info" / "entry_points.txt").write_text("[nvcore.client.v1]\ngone = toy_gone\n")
    index = scan([str(tmp_path)])
    assert index.plugins() == [] and index.leftovers == [str(tmp_path / "~oy_gone-1.0.dist-info")]


def test_a_generation_of_thousands_of_digits_is_none_of_ours() -> None:
    assert _entry_points(f"[nvcore.client.v{'9' * 5000}]\nx = y\n[nvcore.client.v1]\nz = y\n")[0].name == "z"


def test_paths_that_are_not_folders_are_no_problem(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert scan([str(tmp_path / "a.zip"), str(tmp_path / "absent"), "nul\0byte"]).problems[0].where == "nul\0byte"


def test_nothing_is_imported(site: Path) -> None:
    plugin(site, "loud", "raise SystemExit('imported')")
    before = set(sys.modules)
    select(inventory(scan()), Selection())
    assert not {name for name in set(sys.modules) - before if not name.startswith("nvcore.")}


def test_a_plugin_of_the_users_own_site_is_not_seen_by_the_daemon(tmp_path: Path) -> None:
    base = tmp_path / "base"
    environment = {**os.environ, "PYTHONUSERBASE": str(base), "PYTHONPATH": str(tmp_path / "extra"), "PYTHONDONTWRITEBYTECODE": "1"}
    code = (
        "import site, sys; site.ENABLE_USER_SITE = True; sys.path.append(site.USER_SITE or site.getusersitepackages())\n"
        "from nvcore.plugins.index import scan\nfrom nvcore.plugins.select import inventory\n"
        "print(*(p.name + '|' + ';'.join(p.notes) for p in inventory(scan())), sep='\\n')"
    )
    version = "python{}.{}".format(*sys.version_info[:2])
    plugin(base / "lib" / version / "site-packages", "mine", "")
    plugin(tmp_path / "extra", "path", "")
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({root!r})\n{code}"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = dict(line.split("|") for line in done.stdout.splitlines())
    assert found["mine"] == "not seen by the daemon: only in the user's own site directory (NVC-1117)", done.stderr
    assert found["path"] == "not seen by the daemon: only on PYTHONPATH (NVC-1117)"


@given(st.text())
def test_any_text_is_taken_apart_without_harm(text: str) -> None:
    for point in _entry_points(text):
        assert point.name and point.value and point.family
    assert all(key == key.strip().lower() for key in _fields(text))


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=3))
def test_any_bytes_as_metadata_leave_the_scan_standing(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    for number, content in enumerate(contents):
        info = folder / f"fuzz{number}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_bytes(content)
        (info / "entry_points.txt").write_bytes(b"[nvcore.client.v1]\nx = y\n" + content)
    index = scan([str(folder)])
    assert isinstance(index, Index)
    assert len(index.problems) + len(index.distributions) >= 1
    select(inventory(index), Selection())
