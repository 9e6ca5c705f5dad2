"""A quarter of all disturbed accesses and calls of a boot, another one for each chip and version; the whole product is in tests/system.

NVCORE_SWEEP_TURN (0 to 3) turns to the next quarter. A quarter, because that is half a minute on two busy cores.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.boots.rig import CASES
from tests.boots.sweep import run, undisturbed

SHARE = 4


@pytest.mark.parametrize(("chip", "version"), CASES)
def test_a_disturbed_boot_ends_in_the_same_inventory_or_in_a_named_state(
    chip: str, version: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    plain = undisturbed(chip, version, tmp_path)
    turn = (int(os.environ.get("NVCORE_SWEEP_TURN", "0")) + CASES.index((chip, version))) % SHARE
    chosen = list(plain.cases[turn::SHARE])
    tally = run(chip, version, chosen, plain.inventory, tmp_path, again=False)
    share = f"{len(chosen)} of {len(plain.cases)} cases (turn {turn})"
    tally.report(pytestconfig, f"{chip} {version}, {plain.places} places, {plain.calls} calls, {share}")
    assert not tally.failures, "\n".join([f"{len(tally.failures)} of {len(chosen)}:", *tally.failures[:30]])
    assert all(tally.outcomes[kind] > 0 for kind in ("harmless", "named failed", "named lost", "named client"))
    assert tally.outcomes["not reached"] * 20 <= len(chosen), "the places of a boot are found again"
