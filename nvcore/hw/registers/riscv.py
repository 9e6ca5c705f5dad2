"""The RISC-V core beside a falcon. Offsets are relative to the falcon's base.

Source: open-gpu-kernel-modules 570.144 dev_riscv_pri.h (turing, ampere, hopper); nova-core regs.rs.
"""

from __future__ import annotations

from nvcore.hw.register import Field, Register


class RISCV_CORE_SWITCH_STATUS(Register, offset=0x1240):
    """Turing and GA100: whether the RISC-V core runs."""

    active = Field(0, 0, "running")


class RISCV_CPUCTL(Register, offset=0x1388):
    """GA102 and later."""

    startcpu = Field(0, 0, "write 1 to start (GH100 and later)")
    halted = Field(4, 4, "halted")
    stopped = Field(5, 5, "stopped")
    active = Field(7, 7, "running")


class BCR_CTRL(Register, offset=0x1668):
    """Which core the unit runs (GA102 and later)."""

    valid = Field(0, 0, "the choice took effect")
    core_select = Field(4, 4, "0 falcon, 1 RISC-V")
    brfetch = Field(8, 8, "the boot ROM fetches")
