"""The developers' own tools, importable without putting the checkout's packages on the path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def devtools_importable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`devtools` alone, through a folder that holds a link to it."""
    folder = tmp_path_factory.mktemp("devtools")
    (folder / "devtools").symlink_to(CHECKOUT / "devtools")
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
