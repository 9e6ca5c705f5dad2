"""The golden transcript of GA100: both firmware versions give the same lines, except where the manifest says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvcore.testing.transcript import Recorder, differences, record_script
from nvcore_fw_gsp.abi import manifest

from .soft import bench

GOLDEN = Path(__file__).parent / "golden"


def transcript(version: str) -> Recorder:
    with bench("ga100", version) as gpu:

        def cause_fault(token: int, channel: int) -> None:
            with gpu.card.lock:
                gpu.card.model.gsp.channel_fault(token >> 16, channel, "mmu-fault", 0x1234000)

        return record_script(gpu.backend, gpu.context(), gpu.device, cause_fault, entries=4)


def test_the_versions_differ_only_where_the_manifest_says_so():
    new, old = transcript("570.144"), transcript("535.113.01")
    assert differences(new, old, manifest("535.113.01").differs) == []
    assert differences(new, old), "two versions without any difference: the recorder is blind"
    assert manifest("570.144").differs == ()


def test_every_allowed_difference_is_one():
    new, old = transcript("570.144"), transcript("535.113.01")
    allowed = manifest("535.113.01").differs
    for index, path in enumerate(allowed):
        assert differences(new, old, allowed[:index] + allowed[index + 1 :]), f"{path} does not differ any more"


@pytest.mark.parametrize("version", ["570.144", "535.113.01"])
def test_the_transcript_is_the_recorded_one(version):
    recorded = (GOLDEN / f"ga100-{version}.jsonl").read_text()
    assert transcript(version).text() == recorded, "the contract between core and session changed: say so, then record it again"


def test_a_transcript_is_the_same_twice():
    assert transcript("570.144").text() == transcript("570.144").text()
