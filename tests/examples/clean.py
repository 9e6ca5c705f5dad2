"""A clean environment for a plugin that comes from outside: wheels of ours, wheels of theirs, pytest, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Clean"]


class Clean:
    """An environment below `folder`, and how its author's commands run in it."""

    def __init__(self, folder: Path) -> None:
        if "NVCORE_TEST_WHEELS" not in os.environ:
            pytest.skip("run through `python3 dev.py test`, which builds the wheels")
        self.folder, self.wheels, self.python = folder, folder / "wheels", folder / "env/bin/python"
        self.env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "NVCORE_SOCKET": str(folder / "socket"),  # no daemon of this machine may answer
            "STATE_DIRECTORY": str(folder / "state"),
        }

    def make(self, *requirements: str) -> None:
        """The environment with these requirements, from the wheelhouse, our wheels and what was built here."""
        self._call([sys.executable, "-m", "venv", "--without-pip", self.folder / "env"])
        self.install(*requirements)

    def copy(self, other: Clean) -> None:
        """An environment like another: a third of the time of making it."""
        shutil.copytree(other.folder / "env", self.folder / "env", symlinks=True)

    def build(self, *sources: Path, into: Path | None = None) -> None:
        """A wheel of each source folder, as its author would build it, with the hatchling of the tests' own environment."""
        words = ["--no-build-isolation", "--no-deps", "--no-index", "-w", into or self.wheels, *sources]
        self._call([*self._pip(Path(sys.executable)), "wheel", *words])

    def install(self, *requirements: str | Path, again: bool = False) -> None:
        """Install; `again` in the place of what is there."""
        links = [os.environ["NVCORE_TEST_WHEELS"], os.environ["NVCORE_TEST_WHEELHOUSE"], self.wheels]
        find = [word for link in links for word in ("--find-links", link)]
        how = ["--force-reinstall", "--no-deps"] if again else []
        self._call([*self._pip(self.python), "install", "--no-index", "--no-compile", *how, *find, *requirements])

    @staticmethod
    def _pip(python: Path) -> list[Any]:
        return [sys.executable, os.environ["NVCORE_TEST_PIP"], "-q", "--python", python]

    @staticmethod
    def _call(command: list[Any]) -> None:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Its Python, isolated, with an almost empty environment."""
        command = [str(self.python), "-I", *words]
        where = cwd or self.folder
        return subprocess.run(command, cwd=where, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    def start(self, *words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """The same, going on beside the test; whoever starts it ends it."""
        command = [str(self.python), "-I", *words]
        pipe = subprocess.PIPE
        where = cwd or self.folder
        return subprocess.Popen(command, cwd=where, env=self.env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)

    def started(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        """A daemon that answers at its socket."""
        end = time.monotonic() + 20
        while self.run("-m", "nvcore", "gpus").returncode:
            assert time.monotonic() < end and process.poll() is None, "the daemon does not answer"
            time.sleep(0.05)
        return process

    @staticmethod
    def stop(process: subprocess.Popen[str]) -> tuple[int, str]:
        """End a daemon in order: its exit code, and what it said."""
        process.send_signal(signal.SIGTERM)
        said = "".join(process.communicate(timeout=20))
        return process.returncode, said
