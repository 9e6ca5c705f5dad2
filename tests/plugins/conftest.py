"""A site folder on the path, forgotten again afterwards, with the modules that came from it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_OWN = ("nvcore_fw_gsp", "nvcore_vfio", "nvcore_softgpu", "nvcore_drm")


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The path without this repository's own plugins: what is installed beside a test must not change what it sees.

    Folders that hold one of them are replaced by folders of links to everything else in them.
    """
    path = []
    for number, place in enumerate(sys.path):
        folder = Path(place)
        hidden = [entry for entry in folder.iterdir() if entry.name.startswith(_OWN)] if folder.is_dir() else []
        if any(entry.name.endswith(".dist-info") for entry in hidden):
            mirror = tmp_path_factory.mktemp("path") / str(number)
            mirror.mkdir()
            for entry in folder.iterdir():
                if entry not in hidden:
                    (mirror / entry.name).symlink_to(entry)
            place = str(mirror)
        path.append(place)
    return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[str]) -> Iterator[Path]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *others])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("toy_") or name.startswith("broken_"):
            del sys.modules[name]
