"""A firmware found running: the saved unload when an earlier run of this host left it, a refusal with the reason otherwise.

Reads the protected region as evidence. The opener's thread. Never starts a firmware, never resets what may belong to somebody else.
Source: field case F01 (open-gpu-kernel-modules issues 1104 and 1058, tinygrad issue 13263).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nvcore.api.errors import NvcoreError
from nvcore.api.firmware import BootStage, OpenContext, UnloadReport
from nvcore.hw.registers import fb as fbreg
from nvcore_fw_gsp.boot import common, wpr
from nvcore_fw_gsp.boot.chips import BootFlow
from nvcore_fw_gsp.boot.errors import BootTimeout, ForeignFirmware, WprStillUp
from nvcore_fw_gsp.boot.fwsec import prepare_fwsec
from nvcore_fw_gsp.boot.io import BootIo
from nvcore_fw_gsp.boot.stages import SKIPPED, Stage, StageLog
from nvcore_fw_gsp.boot.state import Boot, UnloadBundle
from nvcore_fw_gsp.boot.ucode import load_ucode
from nvcore_fw_gsp.boot.unload import run_unload
from nvcore_fw_gsp.boot.vbios_sources import vbios_sources
from nvcore_fw_gsp.images.container import GenericBootloader
from nvcore_fw_gsp.images.find import ImageSet

__all__ = ["look_only", "precheck", "recover"]

LINGER_TIMEOUT: Final = 2.0


def precheck(boot: Boot) -> str:
    """No firmware may be up before the boot begins; one that an earlier run of ours left is taken down.

    Raises ForeignFirmware or WprStillUp.
    """
    region = wpr.wpr2(boot.io)
    if region is None:
        return "no protected region"
    saved = boot.context.saved
    where = f"{region[0]:#x} to {region[1]:#x}"
    if saved is None or not wpr.is_ours(saved, boot.chip.name, boot.device.identity.address, region):
        if _goes_by_itself(boot):
            return f"a protected region {where} that a reset had taken down went"
        raise ForeignFirmware(
            "a firmware that this host did not start runs on the GPU",
            expected="no protected region",
            seen=f"protected region {where}",
            where="WPR2",
            remedy="unload the driver that owns it; if there is none any more: nvcore gpus reset GPU",
        )
    report = _saved_unload(boot.context, boot.resolve(saved.version), None, boot.vbios)
    if not report.clean:
        raise WprStillUp(
            "a firmware of an earlier run of this host is still up and could not be taken down",
            expected="no protected region",
            seen=report.cause,
            where=where,
            remedy="nvcore gpus reset GPU",
        )
    return f"a firmware of an earlier run of this host ({saved.version}, {where}) was taken down"


def _goes_by_itself(boot: Boot) -> bool:
    """Whether the region goes while it is only watched: after a reset it takes its time."""
    io = boot.io
    try:
        io.wait(
            lambda: io.read(fbreg.WPR2_ADDR_HI), lambda v: not v.value, timeout=LINGER_TIMEOUT, what="a protected region to go by itself"
        )
    except BootTimeout:
        return False
    return True


def recover(context: OpenContext, images: ImageSet, vbios: Sequence[str]) -> UnloadReport:
    """As `FirmwareBackend.recover`, with the files of the saved version; vbios: as in `Boot`. Never raises for the device's behaviour."""
    boot = Boot(context, images, lambda *_: None, lambda *_: None, lambda _: None)
    log = StageLog(context.clock, context.progress)
    regions: list[tuple[int, int] | None] = []

    def look(state: Boot) -> str:
        regions.append(wpr.wpr2(state.io))
        return SKIPPED + "no firmware is up" if regions[0] is None else f"protected region {regions[0][0]:#x} to {regions[0][1]:#x}"

    error = log.one(Stage("wpr2-precheck", look), boot, boot.io)
    if error is not None:
        return UnloadReport(tuple(log.stages), clean=False, needs_reset=True, cause=str(error))
    if regions[0] is None:
        return UnloadReport(tuple(log.stages), clean=True)
    if not wpr.is_ours(context.saved, boot.chip.name, boot.device.identity.address, regions[0]):
        cause = "the firmware is not one that an earlier run of this host started: its driver must unload it, or an operator reset the GPU"
        return UnloadReport(tuple(log.stages), clean=False, needs_reset=False, cause=cause)
    return _saved_unload(context, images, log.stages, vbios)


def look_only(context: OpenContext, error: NvcoreError) -> UnloadReport:
    """Without files nothing can be taken down: say whether anything is up. error: why there are none."""
    io = BootIo(context.device.bars[0], context.clock, context.time_scale)
    try:
        region = wpr.wpr2(io)
    except NvcoreError as blocked:
        return UnloadReport((), clean=False, needs_reset=True, cause=str(blocked))
    return UnloadReport(
        (), clean=region is None, cause=None if region is None else f"a firmware is up and there is nothing to unload it with: {error}"
    )


def _saved_unload(context: OpenContext, images: ImageSet, before: list[BootStage] | None, vbios: Sequence[str]) -> UnloadReport:
    """Unload with nothing but the files: the queues of the earlier run are gone with its memory."""
    boot = Boot(context, images, lambda *_: None, lambda *_: None, lambda _: None, vbios)
    log = StageLog(context.clock, context.progress)
    boot.touched = True
    error = log.run((Stage("unload-files", _files), Stage("flush-page", common.flush_page), Stage("unload-bundle", _bundle)), boot, boot.io)
    report = run_unload(boot, context.progress)
    stages = (*(before or ()), *log.stages, *report.stages)
    return UnloadReport(stages, report.clean, report.needs_reset, report.cause if error is None else str(error))


def _files(boot: Boot) -> str:
    match boot.chip.flow:
        case BootFlow.BOOTER_PIO:
            boot.sources += [boot.images.open("booter_unload"), boot.images.open("generic")]
            return f"{boot.images.version} in {boot.images.folder}"
        case BootFlow.FSP:
            return SKIPPED + "this chip needs none: only a function reset ends a firmware whose queues are gone"


def _bundle(boot: Boot) -> str:
    if boot.chip.flow is not BootFlow.BOOTER_PIO:
        return SKIPPED + "this chip has none"
    booter, generic = boot.sources
    boot.started = True
    loaded = load_ucode(boot.io, booter, boot.chip.name)
    try:
        sources = vbios_sources(boot.io, boot.device.identity, boot.vbios)
        fwsec = prepare_fwsec(boot.io, boot.memory, GenericBootloader(generic), sources)
    except NvcoreError as error:  # the reference driver goes on without it too
        boot.bundle = UnloadBundle(loaded, None, f"no FWSEC-SB: {error}")
        return boot.bundle.no_fwsec
    boot.bundle = UnloadBundle(loaded, fwsec)
    return fwsec.origin
