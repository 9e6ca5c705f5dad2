"""Framebuffer: size, protected regions, the flush page of system memory.

Source: open-gpu-kernel-modules 570.144 dev_fb.h, dev_fuse.h, dev_gc6_island.h (turing, ampere, hopper); nova-core fb/regs.rs.
"""

from __future__ import annotations

from nvcore.hw.register import Field, Register


class LOCAL_MEMORY_RANGE(Register, offset=0x100CE0):
    """Memory size, Turing and GA100: magnitude << (scale + 20) bytes."""

    scale = Field(3, 0, "power of two, MiB")
    magnitude = Field(9, 4, "units")
    ecc = Field(30, 30, "ECC takes one sixteenth")


class USABLE_FB_SIZE_MIB(Register, offset=0x1183A4):
    """Memory size, GA102 and later."""

    value = Field(31, 0, "MiB")


class WPR2_ADDR_LO(Register, offset=0x1FA824):
    """Start of the firmware's protected region."""

    value = Field(31, 4, "address >> 12")


class WPR2_ADDR_HI(Register, offset=0x1FA828):
    """End of the firmware's protected region; 0 = there is none."""

    value = Field(31, 4, "address >> 12")


class MMU_LOCK_PLM(Register, offset=0x1FA7C8):
    """Who may read the lock addresses."""

    readable = Field(0, 0, "level 0 may read")


class MMU_LOCK_LO(Register, offset=0x1FA82C):
    """Start of the locked region (GA100's row remapper); none when above HI."""

    value = Field(31, 4, "address >> 12")


class MMU_LOCK_HI(Register, offset=0x1FA830):
    """End of the locked region."""

    value = Field(31, 4, "address >> 12")


class DISPLAY_FUSE(Register, offset=0x820C04):
    """GA100 and later."""

    disabled = Field(0, 0, "1 = no display")


class VGA_WORKSPACE(Register, offset=0x625F04):
    """Where the VGA BIOS works."""

    target = Field(1, 0, "1 = video memory")
    valid = Field(3, 3, "set up")
    start = Field(31, 8, "address >> 16")


class FLUSH_PAGE_LO(Register, offset=0x100C10):
    """Ampere and Ada: system-memory flush page, address bits 39:8. Writing it latches both halves."""

    value = Field(31, 0, "address >> 8")


class FLUSH_PAGE_HI(Register, offset=0x100C40):
    """Ampere and Ada: address bits 63:40; written first."""

    value = Field(23, 0, "address >> 40")


class FLUSH_PAGE_LO_GH100(Register, offset=0x100A34):
    """Hopper: low 32 bits of the address."""

    value = Field(31, 0, "address")


class FLUSH_PAGE_HI_GH100(Register, offset=0x100A38):
    """Hopper: high bits of the address; written first."""

    value = Field(19, 0, "address >> 32")
