"""The arithmetic of the protected region, against the published worked examples, and the heap sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvcore_fw_gsp.boot.errors import LayoutError
from nvcore_fw_gsp.boot.layout import heap_size, plan_layout, vga_workspace

G, M = 1 << 30, 1 << 20
# chip: memory, version, libos, FRTS size, bootloader, image → wprEnd, frts, bootBin, image, heap, heap size, wprStart, non-WPR heap
EXAMPLES = {
    "TU102 570": (
        11 * G,
        "570.144",
        2,
        M,
        0x1000,
        28528288,
        0x2BFF00000,
        0x2BFE00000,
        0x2BFDFF000,
        0x2BE2C0000,
        0x2B7800000,
        0x6A00000,
        0x2B7700000,
        0x2B7600000,
    ),
    "GA102 535": (
        24 * G,
        "535.113.01",
        3,
        M,
        0x5000,
        38043648,
        0x5FFF00000,
        0x5FFE00000,
        0x5FFDFB000,
        0x5FD9B0000,
        0x5F5A00000,
        0x7F00000,
        0x5F5900000,
        0x5F5800000,
    ),
    "GA102 570": (
        24 * G,
        "570.144",
        3,
        M,
        0x6000,
        63541248,
        0x5FFF00000,
        0x5FFE00000,
        0x5FFDFA000,
        0x5FC160000,
        0x5F4000000,
        0x8100000,
        0x5F3F00000,
        0x5F3E00000,
    ),
    "AD102 570": (
        48 * G,
        "570.144",
        3,
        M,
        0x9000,
        63541248,
        0xBFFF00000,
        0xBFFE00000,
        0xBFFDF7000,
        0xBFC150000,
        0xBF3E00000,
        0x8300000,
        0xBF3D00000,
        0xBF3C00000,
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_layout_is_the_published_one(name):
    memory, version, libos, frts, loader, image, *want = EXAMPLES[name]
    heap = heap_size(version, libos=libos, base=8 * M, fb_size=memory, vgpu_host=False)
    plan = plan_layout(
        fb_size=memory, vga_start=vga_workspace(memory, None), lock_low=None, frts_size=frts, bootloader_size=loader, image_size=image,
        heap_bytes=heap,
    )  # fmt: skip
    assert [plan.wpr_end, plan.frts, plan.boot_bin, plan.image, plan.heap, plan.heap_size, plan.wpr_start, plan.non_wpr_heap] == want


@pytest.mark.parametrize(("memory", "want"), [(32, 0x8700000), (80, 0x8C00000), (192, 0x9600000)])
def test_hopper_s_heap_is_the_published_one(memory, want):
    assert heap_size("570.144", libos=3, base=14 * M, fb_size=memory * G, vgpu_host=False) == want


def test_a_vgpu_host_gets_the_version_s_default():
    assert heap_size("570.144", libos=3, base=8 * M, fb_size=24 * G, vgpu_host=True) == 581 * M
    assert heap_size("535.113.01", libos=3, base=8 * M, fb_size=24 * G, vgpu_host=True) == 549 * M


def test_a_version_without_sizes_is_refused():
    with pytest.raises(LayoutError):
        heap_size("550.163.01", libos=3, base=8 * M, fb_size=G, vgpu_host=False)


@given(
    memory=st.integers(1, 96).map(lambda g: g * G),
    vga=st.none() | st.integers(0, 128).map(lambda k: k * 0x10000),
    lock=st.none() | st.integers(1, 64).map(lambda m: m * M),
    loader=st.integers(1, 0x40000),
    image=st.integers(1, 80 * M),
    heap=st.integers(64 * M, 600 * M),
)
def test_nothing_overlaps_and_everything_is_aligned(memory, vga, lock, loader, image, heap):
    top = vga_workspace(memory, None if vga is None else memory - vga)
    try:
        plan = plan_layout(
            fb_size=memory, vga_start=top, lock_low=None if lock is None else memory - lock, frts_size=0, bootloader_size=loader,
            image_size=image, heap_bytes=heap,
        )  # fmt: skip
    except LayoutError:
        assert memory <= 2 * G
        return
    assert 0 < plan.non_wpr_heap < plan.wpr_start < plan.heap < plan.image < plan.boot_bin < plan.frts <= plan.wpr_end <= top <= memory
    assert plan.heap + plan.heap_size <= plan.image and plan.image + image <= plan.boot_bin and plan.boot_bin + loader <= plan.frts
    assert plan.wpr_end % 0x20000 == plan.wpr_start % M == plan.heap % M == plan.image % 0x10000 == plan.boot_bin % 0x1000 == 0
    if lock is not None:
        assert plan.wpr_end <= memory - lock
