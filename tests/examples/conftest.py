"""One environment with our wheels and pytest, made once and copied by whoever installs into it."""

from __future__ import annotations

import pytest

from .clean import Clean


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    made = Clean(tmp_path_factory.mktemp("base"))
    made.make("nvcore[fw-gsp,status]", "pytest")
    return made
