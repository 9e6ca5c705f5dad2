"""A hundred boots and unloads of a GA100 leave nothing behind: no memory, no descriptor, no thread."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.boots.rig import Slot, Usage, differences, leftovers, slot

if TYPE_CHECKING:
    from devtools.lab import Lab

CYCLES, WARM = 100, 10
MIB = 1 << 20


class Memory:
    """What this process holds, in bytes: anonymous and shared pages, and blocks of memfds, mapped or not."""

    def __init__(self) -> None:
        gc.collect()
        with open("/proc/self/status", encoding="ascii") as status:
            fields = dict(line.split(":", 1) for line in status)
        self.anonymous, self.shared = (int(fields[name].split()[0]) << 10 for name in ("RssAnon", "RssShmem"))
        self.memfds = sum(_blocks(number) for number in os.listdir("/proc/self/fd"))

    @property
    def total(self) -> int:
        return self.anonymous + self.shared + self.memfds

    def __str__(self) -> str:
        return f"RssAnon {self.anonymous >> 10} KiB, RssShmem {self.shared >> 10} KiB, memfds {self.memfds >> 10} KiB"


def _blocks(number: str) -> int:
    try:
        if not os.readlink(f"/proc/self/fd/{number}").startswith("/memfd:"):
            return 0
        return os.fstat(int(number)).st_blocks * 512
    except (FileNotFoundError, OSError):  # the descriptor of the listing itself
        return 0


def cycles(card: Slot, folder: Path) -> None:
    """The card stays in its slot; a host comes, boots, serves its tenants, unloads and goes."""
    marks: list[tuple[Memory, Usage]] = []
    for number in range(1, CYCLES + 1):
        host = card.host(folder, card.settings())
        host.host.start()
        try:
            assert host.settle() == "running", host.gpu.state.cause
            fence = host.a.tenant.bind(1, number)
            assert fence.wait(10.0) and fence.error is None
            assert differences(host) == []
        finally:
            hung = host.stop()
        assert hung == [] and host.gpu.unload_report is not None and host.gpu.unload_report.clean
        assert leftovers(card.inspector.view()) == []
        del host, fence
        if number in (WARM, CYCLES):
            marks.append((Memory(), Usage()))
    (before, used), (after, now) = marks
    print(f"cycle {WARM}: {before}; cycle {CYCLES}: {after}; {after.total - before.total:+} bytes")
    assert now.more(used) == [] and len(now.files) == len(used.files) and len(now.threads) == len(used.threads)
    assert after.total - before.total <= MIB, f"{before} at cycle {WARM}, {after} at cycle {CYCLES}"


@pytest.mark.timeout(600)
def test_a_hundred_cycles_on_synthetic_images_leave_nothing(tmp_path: Path) -> None:
    with slot("ga100", "570.144") as card:
        cycles(card, tmp_path)


@pytest.mark.timeout(1200)
def test_a_hundred_cycles_on_published_images_leave_nothing(lab: Lab, tmp_path: Path) -> None:
    with slot("ga100", "570.144", images=lab.firmware.parent if lab.firmware.name == "nvidia" else lab.firmware) as card:
        cycles(card, tmp_path)
