"""Where the firmware lies in VRAM: sizes of the heap, offsets of the protected region. Pure arithmetic.

Owns nothing; any thread. All numbers in bytes; addresses are offsets in VRAM.
Source: open-gpu-kernel-modules 570.144 kernel_gsp_tu102.c (kgspCalculateFbLayout), gsp_fw_heap.h, gsp_fw_wpr_meta.h.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nvcore_fw_gsp.boot.errors import LayoutError

__all__ = ["HeapLimits", "HopperSizes", "Layout", "heap_limits", "heap_size", "plan_layout", "vga_workspace"]

_K: Final = 1 << 10
_M: Final = 1 << 20
_G: Final = 1 << 30


class HeapLimits(NamedTuple):
    """Of one firmware version: `os` part of a libos3 image (bare, as vGPU host), limits without (libos2, libos3) and as vGPU host."""

    os: int
    os_vgpu: int
    libos2: tuple[int, int]
    libos3: tuple[int, int]
    vgpu_default: int


_LIMITS: Final = {
    "535.113.01": HeapLimits(20 * _M, 20 * _M, (64 * _M, 256 * _M), (84 * _M, 276 * _M), 549 * _M),
    "570.144": HeapLimits(22 * _M, 36 * _M, (64 * _M, 256 * _M), (88 * _M, 280 * _M), 581 * _M),
}


def heap_limits(version: str) -> HeapLimits:
    """The limits of a firmware version that this backend boots. Raises LayoutError."""
    found = _LIMITS.get(version)
    if found is None:
        raise LayoutError("no heap sizes for this firmware version", expected=" or ".join(_LIMITS), seen=version)
    return found


def up(value: int, align: int) -> int:
    """Round up to a multiple."""
    return -(-value // align) * align


def down(value: int, align: int) -> int:
    """Round down to a multiple."""
    return value // align * align


def heap_size(version: str, *, libos: int, base: int, fb_size: int, vgpu_host: bool) -> int:
    """Heap of the firmware. base: 8 MiB to Ada, 14 MiB from Hopper on."""
    limits = heap_limits(version)
    if vgpu_host:
        return limits.vgpu_default  # a libos2 image as vGPU host is a convention of ours: no source has one
    low, high = limits.libos2 if libos == 2 else limits.libos3
    size = (limits.os if libos == 3 else 0) + base + up(96 * _K * -(-fb_size // _G), _M) + up(48 * _K * 2048, _M)
    return min(max(size, low), high)


def vga_workspace(fb_size: int, address: int | None) -> int:
    """Start of the VGA workspace. address: what the display unit says, None without a display or when not set up."""
    if address is None:
        return fb_size - _M
    return fb_size - 128 * _K if address < fb_size - _M else address


class Layout(NamedTuple):
    """The protected region and what lies below it, top down. `wpr_start` and `wpr_end` are what WPR2 will show."""

    fb_size: int
    vga_start: int
    wpr_end: int
    frts: int
    frts_size: int
    boot_bin: int
    image: int
    heap: int
    heap_size: int
    wpr_start: int
    non_wpr_heap: int
    non_wpr_heap_size: int


def plan_layout(
    *, fb_size: int, vga_start: int, lock_low: int | None, frts_size: int, bootloader_size: int, image_size: int, heap_bytes: int
) -> Layout:
    """Lay out the region for Turing to Ada. lock_low: start of a locked top, None without one. Raises LayoutError."""
    reserved = vga_start if lock_low is None else min(vga_start, lock_low)
    wpr_end = down(reserved, 128 * _K)
    frts = wpr_end - frts_size
    boot_bin = down(frts - bootloader_size, 4 * _K)
    image = down(boot_bin - image_size, 64 * _K)
    heap = down(image - heap_bytes, _M)
    wpr_start = heap - _M
    non_wpr = wpr_start - _M
    if non_wpr <= 0:
        raise LayoutError(
            "the firmware does not fit into this GPU's memory",
            expected=f"at least {reserved - non_wpr:#x} bytes",
            seen=f"{fb_size:#x} bytes",
            remedy="a GPU with more memory, or no vGPU host on this one",
        )
    return Layout(fb_size, vga_start, wpr_end, frts, frts_size, boot_bin, image, heap, down(image - heap, _M), wpr_start, non_wpr, _M)


class HopperSizes(NamedTuple):
    """What the driver tells Hopper's FMC: sizes only, the FMC places things."""

    vga_workspace: int = 0x20000
    non_wpr_heap: int = 0x200000
    frts: int = 0x100000
    frts_from_end: int = 0x200000
