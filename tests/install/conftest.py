"""Clean environments, each with one plugin set from wheels and nothing else: no pip, no tools, no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SETS = {
    "none": "nvcore",
    "fw-gsp": "nvcore[fw-gsp]",
    "vfio": "nvcore[vfio]",
    "softgpu": "nvcore[softgpu]",
    "vgpu-host": "nvcore[vgpu-host]",
    "demo": "nvcore[demo]",
    "all": "nvcore[all]",
}


@dataclass(frozen=True)
class Clean:
    """One clean environment."""

    folder: Path

    @property
    def site(self) -> Path:
        return next(self.folder.glob("lib/python3*/site-packages"))

    def python(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run its Python, isolated, in an empty folder and with an almost empty environment."""
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8", "XDG_RUNTIME_DIR": str(self.folder)}
        command = [str(self.folder / "bin/python"), "-I", *words]
        return subprocess.run(command, cwd=self.folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)

    def json(self, program: str, *words: str) -> Any:
        """What a small program prints as JSON; its own errors are the test's."""
        done = self.python("-c", program, *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def wheels() -> Path:
    """Our wheels, or a skip where the tests do not run through dev.py."""
    if "NVCORE_TEST_WHEELS" not in os.environ:
        pytest.skip("run through `python3 dev.py test`, which builds the wheels")
    return Path(os.environ["NVCORE_TEST_WHEELS"])


class Environments:
    """Makes an environment for a set when a test first asks for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Clean] = {}

    def __getitem__(self, name: str) -> Clean:
        if name not in self._made:
            self._made[name] = self.make(name, [SETS[name]])
        return self._made[name]

    def make(self, name: str, requirements: list[str]) -> Clean:
        """An environment of its own with these requirements."""
        links = ["--find-links", str(wheels()), "--find-links", os.environ["NVCORE_TEST_WHEELHOUSE"]]
        folder = self._folder / name
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
        pip = [sys.executable, os.environ["NVCORE_TEST_PIP"], "--python", str(folder / "bin/python"), "-q"]
        subprocess.run([*pip, "install", "--no-index", "--no-compile", *links, *requirements], check=True, timeout=300)
        return Clean(folder)


    def copy(self, name: str, to: str) -> Clean:
        """An environment like that of a set, to change: a third of the time of making it."""
        shutil.copytree(self[name].folder, self._folder / to, symlinks=True)
        return Clean(self._folder / to)


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Environments:
    return Environments(tmp_path_factory.mktemp("sets"))
