"""The lab for tests: outside programs, or a skip that says why there are none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY))  # last: `devtools` is found here, nvcore stays the installed one

if TYPE_CHECKING:
    from devtools.lab import Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The built lab."""
    from devtools.lab import LabUnavailable, build

    try:
        return build()
    except LabUnavailable as problem:
        pytest.skip(f"no lab: {problem}")
