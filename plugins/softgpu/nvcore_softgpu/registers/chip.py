"""Identity, GFW boot, fuses and memory size: what a chip says about itself before anything runs.

Owns PMC, the start-up firmware's progress, fuses, the FB size and the MMU lock registers. Constants of the chip's row, except where a
fault acts.
Source: gsp-boot.md 1.1 to 1.7 (open-gpu-kernel-modules 570.144 dev_boot.h, dev_fuse.h, dev_fb.h, dev_gc6_island.h); device-model.md 4.1
to 4.6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nvcore.api.errors import UsageError
from nvcore_softgpu.chips import Chip
from nvcore_softgpu.ports import Faults
from nvcore_softgpu.registers.file import NOUVEAU, OGKM, RegisterFile

__all__ = ["add_chip_registers", "encode_fb_size"]

UNKNOWN_CHIP: Final = 0x175000A1


def encode_fb_size(layout: str, size: int) -> int:
    """The FB size register for `size` bytes: magnitude [9:4] << (scale [3:0] + 20) on Turing and GA100, MiB from GA102 on.

    Raises UsageError for a size that the register cannot say.
    """
    if size % (1 << 20) or size <= 0:
        raise UsageError("VRAM is not whole MiB", expected="a multiple of 1 MiB", seen=f"{size} bytes")
    mib = size >> 20
    if layout == "ampere":
        return mib
    scale = 0
    while mib > 0x3F and not mib & 1 and scale < 15:
        mib >>= 1
        scale += 1
    if mib > 0x3F:
        raise UsageError(
            "VRAM size has no encoding in the FB size register", expected="at most 63 times a power of two", seen=f"{size} bytes"
        )
    return mib << 4 | scale


def add_chip_registers(registers: RegisterFile, chip: Chip, vram_size: int, faults: Faults, awaited: Callable[[], None]) -> None:
    """Add the rows of these blocks. awaited: called when a driver reads that the start-up firmware is done."""
    stands = faults.stands

    def boot(offset: int) -> int:
        known = chip.boot0 if offset == 0 else chip.boot42
        return (UNKNOWN_CHIP if offset == 0 else 0x175A1000) if stands("chip-unknown") else known

    registers.handled(0x000000, "PMC_BOOT_0", "chip identification", OGKM + " dev_boot.h", read=boot)
    registers.constant(0x000004, "PMC_BOOT_1", "byte order 0, vGPU mode 0: a physical function", OGKM + " dev_boot.h", value=0)
    registers.handled(0x000A00, "PMC_BOOT_42", "extended chip identification", OGKM + " dev_boot.h", read=boot)
    registers.constant(0x101000, "STRAPS", "crystal 25 MHz", NOUVEAU + " engine/device/base.c", value=0x00400040)
    registers.stored(0x000200, "PMC_ENABLE", "engine enables; the firmware's business here", OGKM + " dev_boot.h")
    registers.stored(0x000600, "PMC_DEVICE_ENABLE", "engine enables; the firmware's business here", OGKM + " dev_boot.h")

    def progress(offset: int) -> int:
        if stands("gfw-never"):
            return 0x3F
        awaited()
        return registers.values[offset]

    for place, value in chip.gfw:
        if value == 0xFF:
            registers.handled(
                place, "GFW_BOOT_PROGRESS", "0xff: start-up firmware done", OGKM + " dev_gc6_island.h", read=progress, value=value
            )
        else:
            registers.constant(place, "GFW_BOOT_PLM", "bit 0: progress may be read", OGKM + " dev_gc6_island.h", value=value)
    registers.constant(chip.display_fuse, "FUSE_DISPLAY_DISABLE", "bit 0: no display", OGKM + " dev_fuse.h", value=1)
    registers.constant(chip.debug_fuse, "FUSE_GSP_DEBUG_DISABLE", "bit 0: production signatures", OGKM + " dev_fuse.h", value=1)
    for base, name in ((0x824100, "NVDEC"), (0x824140, "SEC2"), (0x8241C0, "GSP")):
        registers.constant(
            base, f"FUSE_UCODE_VERSION_{name}", "lowest ucode version, by ucode id - 1", OGKM + " dev_fuse.h", value=0, count=16
        )
    size = encode_fb_size(chip.fb_size, vram_size)
    if chip.fb_size == "turing":
        registers.constant(0x100CE0, "FB_LOCAL_MEMORY_RANGE", "VRAM size: magnitude, scale", OGKM + " dev_fb.h", value=size)
    else:
        registers.constant(0x1183A4, "FB_SIZE_MIB", "VRAM size in MiB", OGKM + " dev_gc6_island.h", value=size)
    registers.constant(0x1FA7C8, "MMU_LOCK_PLM", "bit 0: lock range may be read", OGKM + " dev_fb.h", value=1)
    registers.constant(0x1FA82C, "MMU_LOCK_LO", "low > high: no lock", OGKM + " dev_fb.h", value=0xFFFFFFF0)
    registers.constant(0x1FA830, "MMU_LOCK_HI", "low > high: no lock", OGKM + " dev_fb.h", value=0)
    registers.constant(0x625F04, "DISP_VGA_WORKSPACE", "0: no workspace", OGKM + " dev_disp.h", value=0)
    registers.stored(
        0x6013D4, "VGA_CRTC", "index and data of the VGA CRTC: byte writes that unlock it", NOUVEAU + " nvkm/engine/disp/vga.c"
    )
    if chip.flow == "fsp":
        registers.constant(0x1182CC, "CC_STATE", "confidential computing off", OGKM + " dev_gc6_island.h", value=0)
    registers.constant(0x1180FC, "SCRUBBER_HANDOFF", "[31:29] 3: VRAM scrubbed", OGKM + " dev_gc6_island.h", value=3 << 29)
