"""Whether the firmware's core still runs, as the hardware shows it. Reads registers only; never raises, never writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvcore.api.errors import DeviceGone
from nvcore.hw.chips import BOOT_0
from nvcore.hw.register import is_bus_error
from nvcore.hw.registers import falcon as reg
from nvcore.hw.registers import riscv
from nvcore_fw_gsp.boot.chips import BootFlow

if TYPE_CHECKING:
    from nvcore_fw_gsp.boot.state import Boot

__all__ = ["core_stopped"]


def core_stopped(boot: Boot) -> str | None:
    """Why the firmware cannot be running any more, or None while it seems to."""
    if boot.locked():  # the firmware asked to keep off its registers
        return None
    read = boot.io.bar.read32
    try:
        match boot.chip.flow:
            case BootFlow.BOOTER_PIO:
                raw = read(riscv.RISCV_CORE_SWITCH_STATUS.address(reg.GSP))
                stopped = not raw & riscv.RISCV_CORE_SWITCH_STATUS.active.mask
            case BootFlow.FSP:
                raw = read(riscv.RISCV_CPUCTL.address(reg.GSP))
                stopped = bool(raw & riscv.RISCV_CPUCTL.halted.mask)
        if is_bus_error(raw):
            boot0 = read(BOOT_0.OFFSET)
            return f"the GPU does not answer any more (PMC_BOOT_0 {boot0:#010x})" if is_bus_error(boot0) else None
    except DeviceGone as gone:
        return str(gone)
    return f"the GSP's core stopped (status {raw:#010x})" if stopped else None
