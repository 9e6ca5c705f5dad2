"""Linux's own nouveau probes the software GPU: the first judge of the model that nobody here wrote."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .nouveau import build_initrd, guest, kernel_log, kernel_version, served, trouble

if TYPE_CHECKING:
    from devtools.lab import Lab

UNLOAD = """
rmmod nouveau && echo "guest: unloaded"
insmod /lib/modules/nouveau.ko && echo "guest: loaded again"
rmmod nouveau && echo "guest: unloaded again"
"""
ALLOWED_UNKNOWN: dict[str, str] = {}
"""Registers that nouveau touches and that have no row, each with its reason; at most ten."""


@pytest.fixture(scope="module")
def initrd(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_initrd(lab, tmp_path_factory.mktemp("guest") / "initrd", chip="ga100", version="570.144", script=UNLOAD)


@pytest.fixture(scope="module")
def short_initrd(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_initrd(lab, tmp_path_factory.mktemp("guest") / "initrd", chip="ga100", version="570.144")


def test_nouveau_probes_ga100_copies_unloads_and_probes_again(lab: Lab, initrd: Path, tmp_path: Path) -> None:
    with served(tmp_path, "ga100") as gpu, guest(lab, initrd, gpu, log=tmp_path / "console") as machine:
        machine.wait("NVIDIA GA100 (170000a1)", 60)
        machine.wait("gsp: RM version: 570.144", 30)
        machine.wait("MM: using COPY for buffer copies", 60)
        machine.wait("Initialized nouveau", 30)
        machine.wait("guest: unloaded", 30)
        machine.wait("guest: unloaded again", 60)
        machine.wait("guest: end", 10)
        machine.finish(20)
        report = gpu.report()
    lines = machine.lines
    assert kernel_version(lines) >= (7, 3)
    assert sum("MM: using COPY" in line for _, line in kernel_log(lines)) == 2, "the second probe is as good as the first"
    assert not trouble(lines)
    assert report["violations"] == []
    assert len(ALLOWED_UNKNOWN) <= 10
    assert {entry["register"] for entry in report["unknown_registers"]} <= set(ALLOWED_UNKNOWN)
    assert report["unknown_controls"] == []
    assert report["counters"]["messages"] < 1000, "lines are levels: no storm"
    rows = {key: count for key, count in report["counters"].items() if key.startswith("rows_")}
    print(f"rows that merely store what was written: {rows['rows_stored']} of {sum(rows.values())}")


SUSPEND = """
echo devices > /sys/power/pm_test; echo freeze > /sys/power/state && echo "guest: resumed"
rmmod nouveau && echo "guest: unloaded"
"""


@pytest.mark.parametrize(("chip", "version", "line"), [("ga100", "535.113.01", "NVIDIA GA100"), ("gh100", "570.144", "NVIDIA GH100")])
def test_other_chips_and_firmware_probe_suspend_resume_and_unload(lab: Lab, tmp_path: Path, chip: str, version: str, line: str) -> None:
    initrd = build_initrd(lab, tmp_path / "initrd", chip=chip, version=version, script=SUSPEND)
    append = "no_console_suspend"  # a resume that hangs is to be seen
    with served(tmp_path, chip) as gpu, guest(lab, initrd, gpu, append=append) as machine:
        machine.wait(line, 60)
        machine.wait(f"gsp: RM version: {version}", 40)
        machine.wait("MM: using COPY for buffer copies", 60)
        machine.wait("guest: resumed", 60)
        machine.wait("guest: unloaded", 30)
        machine.wait("guest: end", 10)
        machine.finish(20)
        report = gpu.report()
    assert not trouble(machine.lines)
    assert (report["violations"], report["unknown_controls"], report["unknown_registers"]) == ([], [], [])


@pytest.mark.parametrize(
    ("fault", "lines"),
    [
        ("booter-mailbox:0x1234", [r"mbox 00001234", r"probe\b.*-5\b"]),
        ("rpc-result:65", [r"fn:65 len:\S+ res:0xff", r"probe\b.*-22\b"]),
    ],
)
def test_a_fault_makes_the_probe_fail_as_nouveau_does_on_hardware(
    lab: Lab, short_initrd: Path, tmp_path: Path, fault: str, lines: list[str]
) -> None:
    with served(tmp_path, "ga100", faults=[fault]) as gpu, guest(lab, short_initrd, gpu) as machine:
        machine.wait("guest: loaded 0 render node", 120)
        machine.wait("guest: end", 20)
        machine.finish(20)
        report = gpu.report()
    said = [text for _, text in kernel_log(machine.lines) if "nouveau" in text]
    assert all(any(re.search(line, text) for text in said) for line in lines), "\n".join(said)
    assert not any("Initialized nouveau" in text for text in said)
    assert set(report["faults"]) == {fault.split(":")[0]}, "the fault acted"
