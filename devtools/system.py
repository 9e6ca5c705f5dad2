"""`dev.py system`: the tests that need a whole system. Fresh Debian roots, QEMU with a recent kernel, drivers that nobody here wrote.

Fetches what they judge with (as root it installs mmdebstrap and valgrind where they are missing), then runs pytest on tests/system.
What cannot be had is named, its tests are skipped with the reason, and with CI=true that is a failure. Arguments go to pytest.
"""

from __future__ import annotations

from devtools import lab, machine
from devtools.layout import STATE
from devtools.say import say
from devtools.test import pytest

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Prepare and run; pytest's status."""
    machine.ensure("mmdebstrap", "valgrind")
    if not argv or any("fresh_root" not in word for word in argv if word.startswith("tests/")):
        try:
            lab.build()
        except lab.LabUnavailable as problem:
            say(f"  the lab: {problem}")
    words = argv if any(word.startswith("tests/") for word in argv) else ["-v", "tests/system", *argv]
    return pytest(["-rP", *words], NVCORE_TEST_STATE=str(STATE))  # what a test counted is part of what it shows
