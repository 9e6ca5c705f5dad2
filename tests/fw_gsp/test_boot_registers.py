"""What a boot makes of single registers: sizes and places of memory, a falcon's reset and start, and who does not answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nvcore.api.errors import DeviceGone
from nvcore_fw_gsp.boot import common
from nvcore_fw_gsp.boot.chips import BootFlow
from nvcore_fw_gsp.boot.errors import BootTimeout, LayoutError, RegisterBlocked
from nvcore_fw_gsp.boot.falcon import Falcon
from nvcore_fw_gsp.boot.health import core_stopped
from nvcore_fw_gsp.boot.io import BootIo

from .test_boot_sequencer import Bar
from .test_queue_rings import Clock

G, M, K = 1 << 30, 1 << 20, 1 << 10
MEMORY, FUSE, WORKSPACE = 0x100CE0, 0x820C04, 0x625F04
LOCK_PLM, LOCK_LO, LOCK_HI = 0x1FA7C8, 0x1FA82C, 0x1FA830
FALCON = 0x840000
DMACTL, CPUCTL, CPUCTL_ALIAS = FALCON + 0x10C, FALCON + 0x100, FALCON + 0x130


def booted(values: dict[int, int], flow: BootFlow = BootFlow.BOOTER_PIO) -> Any:
    """A boot that has nothing but registers."""
    bar = Bar()
    bar.values.update(values)
    return SimpleNamespace(io=BootIo(bar, Clock(), 1.0), chip=SimpleNamespace(flow=flow), memory_size=0, locked=lambda: False)  # type: ignore[arg-type]


@pytest.mark.parametrize(("scale", "magnitude", "ecc", "size"), [(10, 40, 0, 40 * G), (10, 32, 1, 30 * G), (5, 8, 0, 256 * M)])
def test_the_memory_s_size_is_magnitude_times_scale_less_a_sixteenth_for_ecc(scale, magnitude, ecc, size):
    boot = booted({MEMORY: scale | magnitude << 4 | ecc << 30})
    assert common.memory_size(boot) == boot.memory_size == size


def test_a_size_that_no_such_gpu_has_is_refused():
    with pytest.raises(LayoutError, match="impossible memory size"):
        common.memory_size(booted({MEMORY: 4 | 15 << 4}))


@pytest.mark.parametrize(
    ("fuse", "workspace", "start"),
    [
        (1, 0xFFF000 << 4 | 0x9, G - M),
        (0, 0x3FFF00 | 0x9, 0x3FFF0000),
        (0, 0x3FF000 | 0x9, 0x3FF00000),
        (0, 0x3FE000 | 0x9, G - 128 * K),
        (0, 0x3FFF00 | 0x1, G - M),
        (0, 0x3FFF00 | 0xA, G - M),
    ],
    ids=["no display", "at the end", "the last place that counts", "too low", "not set up", "not in video memory"],
)
def test_the_vga_workspace_is_where_the_display_says_if_that_can_be(fuse, workspace, start):
    assert common.vga_start(booted({FUSE: fuse, WORKSPACE: workspace}), G) == start


@pytest.mark.parametrize(
    ("readable", "low", "high", "start"),
    [(1, 0x3FF00, 0x3FFFF, 0x3FF00000), (1, 0x3FF00, 0x3FF00, 0x3FF00000), (1, 0x3FF00, 0x3FEFF, None), (1, 0, 0, None), (0, 1, 2, None)],
)
def test_a_locked_top_of_memory_counts_where_its_end_is_not_below_its_start(readable, low, high, start):
    assert common.lock_low(booted({LOCK_PLM: readable, LOCK_LO: low << 4, LOCK_HI: high << 4})) == start


@pytest.mark.parametrize("busy", [1 << 1, 1 << 2])
def test_a_reset_waits_for_the_scrub_of_either_memory(busy):
    bar, clock = Bar(), Clock()
    bar.values[DMACTL] = busy
    falcon = Falcon(BootIo(bar, clock, 1.0), "SEC2", FALCON)  # type: ignore[arg-type]
    with pytest.raises(BootTimeout, match="memory scrub of SEC2"):
        falcon.reset()
    assert 0.010 <= clock.time < 0.011
    clock.on_sleep.append(lambda: bar.values.__setitem__(DMACTL, 0))
    falcon.reset()
    assert bar.writes[-1] == (FALCON + 0x84, bar.values[0])


@pytest.mark.parametrize(("control", "wanted"), [(0, (CPUCTL, 2)), (1 << 6, (CPUCTL_ALIAS, 2))])
def test_a_core_is_started_by_the_alias_where_the_unit_wants_that(control, wanted):
    bar = Bar()
    bar.values[CPUCTL] = control
    Falcon(BootIo(bar, Clock(), 1.0), "SEC2", FALCON).start(0x100)  # type: ignore[arg-type]
    assert bar.writes == [(FALCON + 0x104, 0x100), wanted]


@pytest.mark.parametrize("raw", [0xFFFFFFFF, 0xBADF1301])
def test_an_error_pattern_is_the_register_s_where_the_chip_still_says_who_it_is_and_the_device_s_where_not(raw):
    boot = booted({MEMORY: raw})
    with pytest.raises(RegisterBlocked, match="LOCAL_MEMORY_RANGE"):
        common.memory_size(boot)
    boot.io.bar.values[0] = 0xFFFFFFFF
    with pytest.raises(DeviceGone, match="does not answer any more"):
        common.memory_size(boot)


STATUS = {BootFlow.BOOTER_PIO: (0x111240, 1, 0), BootFlow.FSP: (0x111388, 1 << 7, 1 << 4)}


@pytest.mark.parametrize("flow", STATUS)
def test_a_core_has_stopped_where_its_own_register_says_so_and_nothing_hides_that(flow):
    register, running, stopped = STATUS[flow]
    boot = booted({register: running}, flow)
    assert core_stopped(boot) is None
    boot.io.bar.values[register] = stopped
    assert core_stopped(boot) == f"the GSP's core stopped (status {stopped:#010x})"
    boot.locked = lambda: True  # the firmware asked to keep off its registers: nothing is asked
    boot.io.bar.read32 = None
    assert core_stopped(boot) is None


@pytest.mark.parametrize("flow", STATUS)
def test_a_blocked_status_says_nothing_and_a_gpu_that_is_gone_does(flow):
    boot = booted({STATUS[flow][0]: 0xBADF5040}, flow)
    assert core_stopped(boot) is None
    boot.io.bar.values[0] = 0xFFFFFFFF
    assert "does not answer any more" in (core_stopped(boot) or "")
