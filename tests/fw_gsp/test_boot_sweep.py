"""Every place where a boot touches a register, disturbed in five ways: the same inventory, or a named state with a cause; the unload works.

A place is (stage, register, direction); of a data port the first, the middle and the last access. Every fourteenth case is run; the whole
product, through a whole host, is in tests/system. NVCORE_SWEEP_TURN (0 to 13) turns to the next of them.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from nvcore.api.errors import BootError

from .soft import Bench, bench

KINDS = ("all-ones", "zero", "lost-write", "no-reply", "device-gone")
PORT = 32
PROM = range(0x300000, 0x400000)


def places(chip: str, version: str) -> list[tuple[str, int, bool, int]]:
    """(stage, register, write, nth access) of an undisturbed boot."""
    with bench(chip, version) as gpu:
        total: Counter[tuple[int, bool]] = Counter()
        found: list[tuple[str, int, bool, int]] = []

        def finished(stage) -> None:  # type: ignore[no-untyped-def]
            seen = gpu.inspector.trace(True)
            rom = sorted(key for key in seen if key[0] in PROM)  # words of the ROM are one data port in the order of their addresses
            for key, number in seen.items():
                offset, write = key
                if offset in PROM and key not in (rom[0], rom[len(rom) // 2], rom[-1]):
                    total[key] += number
                    continue
                nths = {1} if number < PORT else {1, (number + 1) // 2, number}
                found.extend((stage.name, offset, write, total[key] + nth) for nth in sorted(nths))
                total[key] += number

        gpu.stages = type("Told", (list,), {"append": lambda self, stage: finished(stage)})()
        gpu.inspector.trace(True)
        gpu.open()
    return found


def disturb(gpu: Bench, reference, fault: str) -> str:  # type: ignore[no-untyped-def]
    gpu.inspector.arm(fault)
    kind = fault.partition(":")[0]
    try:
        session = gpu.open()
    except BootError as error:
        report = error.report
        assert report is not None and report.cause and report.code, fault
        assert any(stage.outcome == "failed" for stage in report.stages)
        stages = {stage.name: stage for stage in report.stages}
        outcome = "named"
    else:
        try:
            same = session.family("inventory").read() == reference
        except Exception as error:  # the device may be lost by now
            assert hasattr(error, "code"), fault
            same = True
        assert same, f"{fault}: another inventory"
        report = session.unload()
        stages = {stage.name: stage for stage in report.stages}
        outcome = "harmless"
    assert stages["release-host"].outcome == "ok", fault
    if kind == "device-gone" and gpu.device.gone:
        return outcome
    gpu.inspector.disarm()
    objects = gpu.device.model.view()
    assert objects is not None
    saved = gpu.saved[-1] if gpu.saved else None
    again = gpu.open(saved)  # whatever happened, the GPU can be had again
    assert again.family("inventory").read() == reference, fault
    assert again.unload().clean, fault
    return outcome


@pytest.mark.parametrize(("chip", "version"), [("ga100", "570.144"), ("gh100", "570.144")])
def test_no_disturbed_access_ends_in_anything_but_the_same_inventory_or_a_named_state(chip, version):
    everything = [(place, kind) for place in places(chip, version) for kind in KINDS if kind != "lost-write" or place[2]]
    chosen = everything[int(os.environ.get("NVCORE_SWEEP_TURN", "0")) % 14 :: 14]
    counts: Counter[str] = Counter()
    failures: list[str] = []
    one_place = "2G&address=0000:41:00.0"  # which is in the UUID
    with bench(chip, version, vram=one_place) as plain:
        reference = plain.open().family("inventory").read()
    for (stage, offset, write, nth), kind in chosen:
        fault = f"{kind}:{offset:#x},{'write' if write else 'read'},{nth}"
        with bench(chip, version, scale=0.003, vram=one_place) as gpu:
            try:
                counts[disturb(gpu, reference, fault)] += 1
            except AssertionError as error:
                failures.append(f"{stage} {fault}: {str(error)[:300]}")
            except Exception as error:
                failures.append(f"{stage} {fault}: raised {type(error).__name__}: {str(error)[:300]}")
    print(dict(counts), len(chosen), "of", len(everything))
    assert not failures, "\n".join([f"{len(failures)} of {len(chosen)}:", *failures[:40]])
    assert counts["named"] > 0 and counts["harmless"] > 0
