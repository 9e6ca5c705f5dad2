"""`nvcore plugins footprint --deny 'drm*'` on a vGPU host: quiet when nothing is there, loud about each way of being there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Clean, Environments

DENIED = 6


@pytest.fixture(scope="module")
def host(environments: Environments) -> Clean:
    return environments.copy("vgpu-host", "deny")


@pytest.fixture
def put(host: Clean) -> Iterator[Callable[[str, str], Path]]:
    """Put a file into the site-packages of the host; gone afterwards, with the folder that was made for it."""
    made: list[Path] = []

    def place(name: str, text: str) -> Path:
        path = host.site / name
        if path.parent != host.site and not path.parent.exists():
            made.append(path.parent)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        made.append(path)
        return path

    yield place
    for path in reversed(made):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def footprint(host: Clean) -> tuple[int, str]:
    done = host.python("-m", "nvcore", "plugins", "footprint", "--deny", "drm*")
    return done.returncode, done.stdout + done.stderr


def test_a_vgpu_host_passes(host: Clean) -> None:
    status, said = footprint(host)
    assert status == 0, said


def test_a_distribution_is_found(host: Clean, put: Callable[[str, str], Path]) -> None:
    put("x_drm_y-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: x-drm-y\nVersion: 1\n")
    put("x_drm_y-1.dist-info/RECORD", "x_drm_y-1.dist-info/METADATA,,\nx_drm_y-1.dist-info/RECORD,,\n")
    status, said = footprint(host)
    assert status == DENIED and "x-drm-y" in said.replace("_", "-"), said


def test_a_module_that_no_distribution_owns_is_found(host: Clean, put: Callable[[str, str], Path]) -> None:
    put("x_drm.py", "")
    status, said = footprint(host)
    assert status == DENIED and "x_drm" in said, said


def test_what_an_uninstall_left_behind_is_found_by_path(host: Clean, put: Callable[[str, str], Path]) -> None:
    left = put("nvcore_drm/settings.toml", "")
    status, said = footprint(host)
    assert status == DENIED and str(left.parent) in said, said


def test_a_name_that_only_contains_the_word_is_not(host: Clean, put: Callable[[str, str], Path]) -> None:
    put("quadrmain.py", "")
    put("quadrmain-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: quadrmain\nVersion: 1\n")
    put("quadrmain-1.dist-info/RECORD", "quadrmain.py,,\n")
    status, said = footprint(host)
    assert status == 0, said
