"""A third of all disturbed accesses and calls of a boot; the whole product is in tests/system. Each chip and version has another third.

NVCORE_SWEEP_TURN (0, 1 or 2) turns to the next third.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.boots.rig import CASES
from tests.boots.sweep import run, undisturbed


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_a_disturbed_boot_ends_in_the_same_inventory_or_in_a_named_state(chip: str, version: str, tmp_path: Path) -> None:
    plain = undisturbed(chip, version, tmp_path)
    turn = (int(os.environ.get("NVCORE_SWEEP_TURN", "0")) + CASES.index((chip, version))) % 3
    chosen = list(plain.cases[turn::3])
    tally = run(chip, version, chosen, plain.inventory, tmp_path, again=False)
    share = f"{len(chosen)} of {len(plain.cases)} cases (turn {turn})"
    print(f"{chip} {version}: {plain.places} places, {plain.calls} calls; {share}: {dict(tally.outcomes)}")
    assert not tally.failures, "\n".join([f"{len(tally.failures)} of {len(chosen)}:", *tally.failures[:30]])
    assert tally.outcomes["harmless"] > 0 and tally.outcomes["named failed"] > 0 and tally.outcomes["named lost"] > 0
    assert tally.outcomes["not reached"] * 20 <= len(chosen), "the places of a boot are found again"
