"""Falcon: the microcontroller behind GSP, SEC2 and FSP. Offsets are relative to a falcon's base.

Source: open-gpu-kernel-modules 570.144 dev_falcon_v4.h, dev_fbif_v4.h, dev_falcon_second_pri.h, dev_gsp.h, dev_fsp_pri.h; nova-core
regs.rs.
"""

from __future__ import annotations

from typing import Final

from nvcore.hw.register import Field, Register

GSP: Final = 0x110000  # base: the GPU system processor
SEC2: Final = 0x840000  # base: the security processor, which runs the booters
FSP: Final = 0x8F2000  # base: the foundation security processor, which boots GH100


class IRQSCLR(Register, offset=0x004):
    """Clears pending interrupts, write 1."""

    halt = Field(4, 4, "core halted")
    swgen0 = Field(6, 6, "software interrupt 0: the GSP posted a message")


class IRQSTAT(Register, offset=0x008):
    """Pending interrupts."""

    halt = Field(4, 4, "core halted")
    swgen0 = Field(6, 6, "software interrupt 0: the GSP posted a message")


class IRQMCLR(Register, offset=0x014):
    """Masks interrupts, write 1."""


class MAILBOX0(Register, offset=0x040):
    """First mailbox: an argument, then a result."""

    value = Field(31, 0, "all of it")


class MAILBOX1(Register, offset=0x044):
    """Second mailbox."""

    value = Field(31, 0, "all of it")


class OS(Register, offset=0x080):
    """Written by the driver: version of the running application."""

    value = Field(31, 0, "version")


class RM(Register, offset=0x084):
    """Written by the driver after a reset: PMC_BOOT_0."""

    value = Field(31, 0, "PMC_BOOT_0")


class DEBUGINFO(Register, offset=0x094):
    """Free for the ucode."""


class HWCFG2(Register, offset=0x0F4):
    """What this falcon has and how far its reset is."""

    riscv = Field(10, 10, "a RISC-V core is present")
    mem_scrubbing = Field(12, 12, "memories are being scrubbed (GA102 and later)")
    priv_lockdown = Field(13, 13, "the boot ROM locks the registers")
    reset_ready = Field(31, 31, "ready to be reset (GA102 and later)")


class CPUCTL(Register, offset=0x100):
    """Starts the core and tells whether it halted."""

    startcpu = Field(1, 1, "write 1 to start")
    halted = Field(4, 4, "halted")
    alias_enable = Field(6, 6, "start through CPUCTL_ALIAS instead")


class BOOTVEC(Register, offset=0x104):
    """Where the core starts."""

    value = Field(31, 0, "IMEM virtual address")


class DMACTL(Register, offset=0x10C):
    """DMA and, before GA102, the state of the memory scrub."""

    require_context = Field(0, 0, "DMA needs a context")
    dmem_scrubbing = Field(1, 1, "DMEM is being scrubbed")
    imem_scrubbing = Field(2, 2, "IMEM is being scrubbed")


class CPUCTL_ALIAS(Register, offset=0x130):
    """Start bit that stays reachable for a secure core."""

    startcpu = Field(1, 1, "write 1 to start")


class IMEMC(Register, offset=0x180, stride=16, count=4):
    """Instruction memory port: where the data port points."""

    offset = Field(7, 2, "word in the block")
    block = Field(23, 8, "256-byte block")
    increment_write = Field(24, 24, "advance on write")
    increment_read = Field(25, 25, "advance on read")
    secure = Field(28, 28, "the block is secure")


class IMEMD(Register, offset=0x184, stride=16, count=4):
    """Instruction memory data port."""


class IMEMT(Register, offset=0x188, stride=16, count=4):
    """Virtual tag of the block that is written next."""

    tag = Field(15, 0, "virtual address >> 8")


class DMEMC(Register, offset=0x1C0, stride=8, count=8):
    """Data memory port: where the data port points."""

    offset = Field(7, 2, "word in the block")
    block = Field(23, 8, "256-byte block")
    increment_write = Field(24, 24, "advance on write")
    increment_read = Field(25, 25, "advance on read")


class DMEMD(Register, offset=0x1C4, stride=8, count=8):
    """Data memory data port."""


class ENGINE(Register, offset=0x3C0):
    """Resets the unit."""

    reset = Field(0, 0, "1 holds it in reset")
    status = Field(10, 8, "GH100: 0 asserted, 2 released")


class INTR_RETRIGGER(Register, offset=0x3E8):
    """Write 1 after serving an interrupt (GA100 and later)."""

    trigger = Field(0, 0, "write 1")


class FBIF_TRANSCFG(Register, offset=0x600, stride=4, count=8):
    """How the DMA contexts reach memory."""

    target = Field(1, 0, "0 local memory, 1 coherent system memory, 2 non-coherent")
    physical = Field(2, 2, "1 physical addresses")


class FBIF_CTL(Register, offset=0x624):
    """DMA without a context."""

    allow_physical_no_context = Field(7, 7, "physical DMA needs no context")


class EMEMC(Register, offset=0xAC0, stride=8, count=8):
    """External memory port of the FSP: where the data port points."""

    offset = Field(7, 2, "word in the block")
    block = Field(15, 8, "256-byte block")
    increment_write = Field(24, 24, "advance on write")
    increment_read = Field(25, 25, "advance on read")


class EMEMD(Register, offset=0xAC4, stride=8, count=8):
    """External memory data port."""


class GSP_QUEUE_HEAD(Register, offset=0xC00, stride=8, count=8):
    """GSP only: a write tells the GSP to look at queue i."""

    value = Field(31, 0, "ignored; 0 is written")
