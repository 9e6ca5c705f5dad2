"""Taking a firmware down, from wherever its boot or its life stopped.

Tables of stages over `Boot`; every stage is tried, whatever became of the ones before it. DMA is stopped and the host's side released
even when a bug or an interrupt ends a stage. Runs on the GPU's life-cycle thread. Never raises for the device's or the firmware's
behaviour.
Source: nova-core gsp/boot.rs (unload), open-gpu-kernel-modules 570.144 kernel_gsp_tu102.c (kgspTeardown).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nvcore.api.errors import NvcoreError
from nvcore.api.firmware import BootStage, UnloadReport
from nvcore.hw.registers import falcon as reg
from nvcore.hw.registers import fb as fbreg
from nvcore.hw.registers import riscv
from nvcore_fw_gsp.boot import wpr
from nvcore_fw_gsp.boot.chips import BootFlow
from nvcore_fw_gsp.boot.errors import WprStillUp
from nvcore_fw_gsp.boot.stages import SKIPPED, Stage, StageLog
from nvcore_fw_gsp.boot.state import Boot
from nvcore_fw_gsp.boot.ucode import run_on_sec2

__all__ = ["run_unload"]

UNLOADING: Final = 0x2F
GOODBYE_TIMEOUT: Final = 10.0
STOP_TIMEOUT: Final = 5.0
RESET_TIMEOUT: Final = 5.0
_UNLOAD_MAILBOX: Final = (0xFF, 0xFF)


def goodbye(boot: Boot) -> str:
    """Tell the firmware, if there is one that can still be told, and wait until it has stopped."""
    port = boot.port
    if port is None or boot.init_done != 0 or not boot.started:
        return SKIPPED + "no firmware came up"
    if port.dead is not None:
        return f"{SKIPPED}the firmware is dead: {port.dead}"
    port.leave_receiver()
    layout = boot.abi.struct("rpc_unloading_guest_driver_v1F_07")
    port.call(UNLOADING, bytes(layout.pack()), "the unload", GOODBYE_TIMEOUT)
    port.close("the firmware was unloaded")
    io = boot.io
    match boot.chip.flow:
        case BootFlow.BOOTER_PIO:
            io.wait(
                lambda: io.read(reg.MAILBOX0, reg.GSP, unit="GSP."),
                lambda v: bool(v.raw & 0x80000000),
                timeout=STOP_TIMEOUT,
                what="the firmware's farewell in mailbox 0",
            )
        case BootFlow.FSP:
            io.wait(
                lambda: io.read(riscv.RISCV_CPUCTL, reg.GSP, unit="GSP."),
                lambda v: bool(v.halted),
                timeout=STOP_TIMEOUT,
                what="the halt of the GSP's core",
            )
    return "the firmware stopped"


def fwsec_sb(boot: Boot) -> str:
    """FWSEC-SB on the GSP falcon: puts back what the firmware's start changed."""
    if not boot.started or boot.bundle is None:
        return SKIPPED + "nothing was started"
    if boot.bundle.fwsec is None:
        boot.gsp.reset()
        return SKIPPED + boot.bundle.no_fwsec
    boot.bundle.fwsec.run(boot.gsp)
    return "done"


def booter_unload(boot: Boot) -> str:
    """The booter's unload part on SEC2 takes the protected region down."""
    if not boot.started or boot.bundle is None:
        return SKIPPED + "nothing was started"
    run_on_sec2(boot.sec2, boot.bundle.booter, _UNLOAD_MAILBOX, "the booter's unload part")
    return "done"


def region_down(boot: Boot) -> str:
    """The protected region must be gone; if it is not, the function is reset and given time."""
    if not boot.touched:
        return SKIPPED + "nothing was protected"
    io = boot.io
    if wpr.wpr2(io) is None and not boot.in_doubt:
        return "no protected region"
    boot.device.reset()
    io.wait(
        lambda: io.read(fbreg.WPR2_ADDR_HI), lambda v: not v.value, timeout=RESET_TIMEOUT, what="the protected region to go after the reset"
    )
    return "gone after a function reset"


def clear_flush_page(boot: Boot) -> str:
    """The GPU must forget the page before it is freed."""
    if not boot.flush_page_set:
        return SKIPPED + "never set"
    io = boot.io
    match boot.chip.flow:
        case BootFlow.BOOTER_PIO:
            io.write(fbreg.FLUSH_PAGE_HI.zero())
            io.write(fbreg.FLUSH_PAGE_LO.zero())
        case BootFlow.FSP:
            io.write(fbreg.FLUSH_PAGE_HI_GH100.zero())
            io.write(fbreg.FLUSH_PAGE_LO_GH100.zero())
    return "cleared"


def stop_dma(boot: Boot) -> str:
    """No access of the device reaches host memory any more."""
    boot.device.set_bus_master(False)
    return "stopped"


def release_host(boot: Boot) -> str:
    """Memory and files of this side."""
    count = len(boot.memory.buffers)
    boot.release()
    return f"{count} buffers"


def region_proof(boot: Boot) -> str:
    """The last look, for the report: is the device as it was?"""
    if not boot.touched:
        return SKIPPED + "nothing was protected"
    if not wpr.wpr2_is_down(boot.io):
        raise WprStillUp(
            "the protected region of the firmware is still up",
            expected="none",
            seen=boot.io.last.get("WPR2_ADDR_HI", "?"),
            remedy="reset the device: nvcore gpus reset GPU",
        )
    return "none left"


_BOOTER: Final = (
    Stage("goodbye", goodbye),
    Stage("fwsec-sb", fwsec_sb),
    Stage("booter-unload", booter_unload),
    Stage("region-down", region_down),
    Stage("region-proof", region_proof),
    Stage("flush-page-clear", clear_flush_page),
)
_FSP: Final = (
    Stage("goodbye", goodbye),
    Stage("region-down", region_down),
    Stage("region-proof", region_proof),
    Stage("flush-page-clear", clear_flush_page),
)


def run_unload(boot: Boot, progress: Callable[[BootStage], None]) -> UnloadReport:
    """All stages of the chip's unload. clean: nothing of the firmware is left on the device."""
    table: tuple[Stage, ...]
    match boot.chip.flow:
        case BootFlow.BOOTER_PIO:
            table = _BOOTER
        case BootFlow.FSP:
            table = _FSP
    log = StageLog(boot.context.clock, progress)
    errors: dict[str, NvcoreError] = {}

    def attempt(stage: Stage) -> None:
        error = log.one(stage, boot, boot.io)
        if error is not None:
            errors[stage.name] = error

    try:
        for stage in table:
            attempt(stage)
    finally:
        try:
            attempt(Stage("stop-dma", stop_dma))
        finally:
            attempt(Stage("release-host", release_host))
    decisive = errors.get("region-proof") or errors.get("stop-dma")  # on a device that is gone the latter fails at the latest
    first = next(iter(errors.values()), None)
    return UnloadReport(
        tuple(log.stages), clean=decisive is None, needs_reset=decisive is not None, cause=None if first is None else str(first)
    )
