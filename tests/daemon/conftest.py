"""Fixtures: synthetic images, a host of two software GPUs for a whole module, and daemons of a test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.running import GPU0, GPU1, SET, Running, images


@pytest.fixture(scope="session")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def host(firmware: Path) -> Iterator[Running]:
    """Two GPUs, running, shared by the tests of one module: what a test makes, it takes away."""
    made = Running(*SET, "--gpu", f"{GPU0}&firmware={firmware}", "--gpu", f"{GPU1}&firmware={firmware}", firmware=firmware)
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture
def daemon(firmware: Path) -> Iterator[Callable[..., Running]]:
    """Makes daemons of the test's own, not yet started."""
    made: list[Running] = []

    def make(*words: str, **more: object) -> Running:
        made.append(Running(*words, firmware=firmware, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()
