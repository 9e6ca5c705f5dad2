"""This wrong step gives this violation."""

from __future__ import annotations

import pytest

from tests.softgpu import wrong_boots

CASES = [*wrong_boots.CASES]


@pytest.mark.parametrize(("name", "hint", "run"), CASES, ids=[f"{name}-{hint}".replace(" ", "_") for name, hint, _ in CASES])
def test_a_wrong_step_gives_its_violation(name, hint, run):
    said = run()
    assert any(text.startswith(f"{name}: ") and hint in text for text in said), said
