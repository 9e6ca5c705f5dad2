"""A private apt state: download Debian packages of any suite without root and without touching the machine's own package lists.

Takes the mirror from the machine's apt configuration. Owns one folder. Source of the options: apt.conf(5); reference page lab.md,
section 2.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["AptError", "AptState", "mirror"]

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SUITE = re.compile(r"^'(?P<uri>\S+?)/dists/[a-z]+/(?:In)?Release'")


class AptError(Exception):
    """Why packages cannot be had, in one line."""


def mirror() -> str:
    """The address of a Debian archive, as the machine's own configuration names it; works without package lists."""
    if shutil.which("apt-get") is None:
        raise AptError("no apt-get on this machine")
    try:
        result = subprocess.run(["apt-get", "--print-uris", "update"], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        raise AptError("apt-get did not name its sources within 60 s") from None
    for line in result.stdout.splitlines():
        match = _SUITE.match(line)
        if match and "security" not in match["uri"] and "debian" in match["uri"]:
            return match["uri"]
    raise AptError("apt's configuration names no Debian archive")


class AptState:
    """Lists and archives in `folder`, for these suites and components; nothing is ever installed."""

    def __init__(self, folder: Path, suites: Sequence[str], components: str) -> None:
        self.folder = folder
        if not KEYRING.exists():
            raise AptError(f"Debian's keyring is missing: {KEYRING}")
        for part in ("state/lists/partial", "cache/archives/partial", "etc"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text("")
        uri = mirror()
        lines = [f"deb [signed-by={KEYRING}] {uri} {suite} {components}" for suite in suites]
        (folder / "etc" / "sources.list").write_text("\n".join(lines) + "\n")
        self._options = [
            f"Dir::State={folder}/state",
            f"Dir::State::status={folder}/status",
            f"Dir::Cache={folder}/cache",
            f"Dir::Etc::sourcelist={folder}/etc/sources.list",
            "Dir::Etc::sourceparts=-",
            "Dir::Etc::preferences=-",
            "Dir::Etc::preferencesparts=-",
            "APT::Sandbox::User=",
            "APT::Architecture=amd64",
            "APT::Architectures=amd64",
            "APT::Install-Recommends=false",
            "APT::Update::Error-Mode=any",
            "Acquire::Languages=none",
            "Acquire::Retries=2",
        ]

    @property
    def archives(self) -> Path:
        """Where downloaded packages lie."""
        return self.folder / "cache" / "archives"

    def _run(self, tool: str, *arguments: str, timeout: float) -> str:
        command = [tool, *(word for option in self._options for word in ("-o", option)), *arguments]
        env = {**os.environ, "LC_ALL": "C"}  # its words are read below
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=self.archives, env=env, check=False)
        except subprocess.TimeoutExpired:
            raise AptError(f"{tool} {arguments[0]} did not end within {timeout:g} s") from None
        if result.returncode:
            words = [line for line in result.stderr.splitlines() if line.startswith("E:")] or result.stderr.splitlines()[-1:]
            raise AptError(f"{tool} {arguments[0]} failed: {' '.join(words)}")
        return result.stdout

    def update(self) -> None:
        """Fetch the lists."""
        self._run("apt-get", "update", timeout=300)

    def candidate(self, package: str, suite: str) -> str:
        """The version of `package` in `suite`."""
        text = self._run("apt-cache", "show", f"{package}/{suite}", timeout=60)
        match = re.search(r"^Version: (\S+)", text, re.MULTILINE)
        if match is None:
            raise AptError(f"{suite} has no package {package}")
        return match[1]

    def depends(self, package: str, suite: str, pattern: str) -> str:
        """The first dependency of `package` whose name matches `pattern`."""
        text = self._run("apt-cache", "show", f"{package}/{suite}", timeout=60)
        line = re.search(r"^Depends: (.*)", text, re.MULTILINE)
        for item in (line[1] if line else "").split(","):
            name = item.split("(")[0].strip()
            if re.fullmatch(pattern, name):
                return name
        raise AptError(f"{package} of {suite} depends on nothing like {pattern}")

    def download_with_dependencies(self, packages: Sequence[str], suite: str) -> None:
        """Packages and all they depend on."""
        self._run("apt-get", "-t", suite, "install", "-y", "--download-only", *packages, timeout=900)

    def download(self, package: str, suite: str) -> Path:
        """One package alone; its file."""
        before = set(self.archives.glob("*.deb"))
        self._run("apt-get", "download", f"{package}/{suite}", timeout=900)
        found = sorted(set(self.archives.glob("*.deb")) - before) or sorted(self.archives.glob(f"{package}_*.deb"))
        return found[-1]
