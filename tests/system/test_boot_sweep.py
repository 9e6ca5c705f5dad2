"""Every place of a boot and every call of it, disturbed in five ways; afterwards the card boots for a second host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boots.rig import CASES
from tests.boots.sweep import run, undisturbed


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("chip", "version"), CASES)
def test_every_disturbed_boot_ends_in_the_same_inventory_or_in_a_named_state(
    chip: str, version: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    plain = undisturbed(chip, version, tmp_path)
    tally = run(chip, version, list(plain.cases), plain.inventory, tmp_path, again=True)
    tally.report(pytestconfig, f"{chip} {version}, {plain.places} places, {plain.calls} calls, {len(plain.cases)} cases")
    print("\n".join(tally.lines()))
    assert not tally.failures, "\n".join([f"{len(tally.failures)} of {len(plain.cases)}:", *tally.failures[:60]])
    assert all(tally.outcomes[kind] > 0 for kind in ("harmless", "named failed", "named lost", "named client"))
    assert tally.outcomes["not reached"] * 20 <= len(plain.cases), "the places of a boot are found again"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("chip", "version"), CASES)
def test_every_disturbed_unload_releases_the_host_and_leaves_a_clean_card_or_says_what_it_needs(
    chip: str, version: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    plain = undisturbed(chip, version, tmp_path)
    tally = run(chip, version, list(plain.unload), plain.inventory, tmp_path, again=True)
    tally.report(pytestconfig, f"{chip} {version}, {len(plain.unload)} cases of the unload")
    print("\n".join(tally.lines()))
    assert not tally.failures, "\n".join([f"{len(tally.failures)} of {len(plain.unload)}:", *tally.failures[:60]])
    assert tally.outcomes["clean"] > 0 and tally.outcomes["gone, the host released"] > 0
