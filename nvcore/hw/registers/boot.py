"""What tells how far a GPU has come up: GFW, scratch words, fuses, handshake bits.

Source: open-gpu-kernel-modules 570.144 dev_gc6_island.h, dev_therm.h, dev_bus.h, dev_fuse.h, dev_fsp_pri.h; nova-core regs.rs.
"""

from __future__ import annotations

from nvcore.hw.register import Field, Register


class GFW_PLM(Register, offset=0x118128):
    """Whether GFW_PROGRESS may be read; before that it gives an error pattern."""

    readable = Field(0, 0, "level 0 may read")


class GFW_PROGRESS(Register, offset=0x118234):
    """Turing to Ada: progress of the GPU's own firmware; 0xff = done."""

    progress = Field(7, 0, "0xff = done")


class FSP_BOOT_COMPLETE(Register, offset=0x0200BC):
    """GH100, GB10x: 0xff = the FSP has booted the GPU's own firmware."""

    value = Field(31, 0, "0xff = done")


class SEQUENCER_HANDSHAKE(Register, offset=0x1180F8):
    """Set by SEC2 once it has resumed the GSP."""

    resumed = Field(26, 26, "done")


class FWSEC_SB_SCRATCH(Register, offset=0x001454):
    """Result of FWSEC-SB."""

    error = Field(15, 0, "0 = good")


class ROM_SHADOW(Register, offset=0x088050):
    """Turing to Ada, in the mirror of configuration space: whether the ROM is answered from a shadow, which may lack FWSEC."""

    enabled = Field(0, 0, "1 = the shadow answers; cleared while PROM is read")


class DEBUG_FUSE(Register, offset=0x82074C):
    """GA100 and later: which FWSEC the GSP accepts."""

    production = Field(0, 0, "0 = debug-signed, 1 = production-signed")


class SEC2_UCODE_VERSION(Register, offset=0x824140, stride=4, count=16):
    """Fuse: version of the newest ucode that SEC2 accepts, one register per ucode id (from 1)."""

    data = Field(15, 0, "one bit per version")


class GSP_UCODE_VERSION(Register, offset=0x8241C0, stride=4, count=16):
    """Fuse: version of the newest ucode that the GSP falcon accepts, one register per ucode id (from 1)."""

    data = Field(15, 0, "one bit per version")


class FSP_SCRATCH(Register, offset=0x8F0320, stride=4, count=4):
    """Words of the FSP to show when it does not come up."""


class FSP_QUEUE_HEAD(Register, offset=0x8F2C00, stride=8, count=8):
    """Command channel to the FSP: writing it rings."""

    value = Field(31, 0, "offset of the first byte")


class FSP_QUEUE_TAIL(Register, offset=0x8F2C04, stride=8, count=8):
    """Command channel to the FSP: offset of the last word."""

    value = Field(31, 0, "offset")


class FSP_MSGQ_HEAD(Register, offset=0x8F2C80):
    """Answers of the FSP: offset of the first byte."""

    value = Field(31, 0, "offset")


class FSP_MSGQ_TAIL(Register, offset=0x8F2C84):
    """Answers of the FSP: offset of the last word."""

    value = Field(31, 0, "offset")
