"""`dev.py system`: the tests that need a whole system. Fresh Debian roots, QEMU with a recent kernel, drivers that nobody here wrote.

Fetches what they judge with (as root it installs mmdebstrap where that is missing), then runs pytest on tests/system. What cannot be
had is named, its tests are skipped with the reason, and with CI=true that is a failure. Arguments go to pytest.
"""

from __future__ import annotations

import os
import shutil

from devtools import lab
from devtools.layout import STATE
from devtools.say import Failed, clean_environment, say, step
from devtools.test import pytest

__all__ = ["main"]


def _machine_tools() -> None:
    """Debian packages that the harness itself needs; only root can add them."""
    if shutil.which("mmdebstrap") or os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    try:
        with step("install mmdebstrap, which makes the fresh roots") as this:
            env = clean_environment(DEBIAN_FRONTEND="noninteractive")
            this.run(["apt-get", "-q", "update"], env=env, timeout=300)
            this.run(["apt-get", "-q", "-y", "install", "--no-install-recommends", "mmdebstrap"], env=env, timeout=600)
    except Failed as error:
        say(f"  {error}")


def main(argv: list[str]) -> int:
    """Prepare and run; pytest's status."""
    _machine_tools()
    more = {"NVCORE_TEST_STATE": str(STATE)}
    if not argv or any("fresh_root" not in word for word in argv if word.startswith("tests/")):
        try:
            more["NVCORE_LAB"] = str(lab.build().root)
        except lab.LabUnavailable as problem:
            say(f"  the lab: {problem}")
    return pytest(argv if any(word.startswith("tests/") for word in argv) else ["-v", "tests/system", *argv], **more)
