"""The firmware backend for GSP-RM: which images there are, and how a device gets from reset to a session.

Owns the names of the search folders and of the ROM files. `open` and `recover` run on a GPU's life-cycle thread; two GPUs are opened by
two threads at the same time, so nothing here is shared but these names. Never starts a firmware that it cannot take down again.
Source: nvcore.api.firmware.FirmwareBackend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nvcore.api.errors import BootError, NvcoreError
from nvcore.api.firmware import BootReport, FirmwareImage, OpenContext, UnloadReport
from nvcore.api.identity import ChipId
from nvcore.api.marks import may_sleep
from nvcore_fw_gsp.boot.chips import BOOT_CHIPS, BootFlow

if TYPE_CHECKING:
    from nvcore_fw_gsp.boot.stages import Stage
    from nvcore_fw_gsp.boot.state import Boot
    from nvcore_fw_gsp.images.find import ImageSet
    from nvcore_fw_gsp.session.gsp import GspSession

__all__ = ["FREED_AFTER_BOOT", "GspBackend"]


FREED_AFTER_BOOT = ("image", "radix3", "signature", "bootloader", "FMC")
"""Host memory that nobody reads once the firmware runs from its protected region: tens of MiB per GPU."""


class GspBackend:
    """See `nvcore.api.firmware.FirmwareBackend`. roots: folders to search; None = the usual ones. vbios: files with ROMs, for GPUs whose
    own is of no use. Both are asked for at each use."""

    name = "fw_gsp"

    def __init__(self, roots: Callable[[], Sequence[str]] | None = None, vbios: Callable[[], Sequence[str]] = tuple) -> None:
        self._roots, self._vbios = roots, vbios

    def roots(self) -> Sequence[str]:
        """Folders that are searched, in order."""
        if self._roots is not None:
            return self._roots()
        from nvcore_fw_gsp.images.find import search_roots

        return search_roots()

    @may_sleep
    def supports(self, chip: ChipId) -> Sequence[FirmwareImage]:
        """Images for this chip, preferred first; those with a problem are listed too."""
        if chip.name not in BOOT_CHIPS:
            return ()
        from nvcore_fw_gsp.images.find import find

        return [_image(found) for found in find(chip.name, self.roots())]

    @may_sleep
    def open(self, context: OpenContext) -> GspSession:
        """Start the firmware. Raises BootError carrying the report; the device is then as far unloaded as could be done."""
        from nvcore_fw_gsp.boot.errors import StageFailed
        from nvcore_fw_gsp.boot.stages import StageLog
        from nvcore_fw_gsp.boot.state import Boot
        from nvcore_fw_gsp.boot.unload import run_unload
        from nvcore_fw_gsp.session.engines import EngineNumbers
        from nvcore_fw_gsp.session.events import EventDesk
        from nvcore_fw_gsp.session.gsp import GspSession

        images = self._choose(context)
        image = _image(images)
        desk_box: list[EventDesk] = []
        boot = Boot(
            context,
            images,
            lambda *event: desk_box[0].handle(*event),
            lambda *note: desk_box[0].note(*note),
            lambda cause: desk_box[0].halted(cause),
            self._vbios(),
        )
        boot.resolve = lambda version: self._resolve(context.chip.name, version, images)
        desk = EventDesk(boot.abi, EngineNumbers(boot.abi, boot.manifest), context.deliver)
        desk_box.append(desk)
        boot.locked = lambda: desk.lockdown
        log = StageLog(context.clock, context.progress)
        try:
            error = log.run(_flow(boot), boot, boot.io)
            if error is None:
                boot.close_files()
                for name in FREED_AFTER_BOOT:
                    boot.memory.free(name)
                return GspSession(boot, desk, BootReport(context.chip.name, image, tuple(log.stages), logs=_logs(boot)), image)
        except BaseException:  # a bug or an interrupt: no firmware is left running without a session, nor the host's memory
            run_unload(boot, context.progress)
            raise
        failed = log.stages[-1].name
        logs = _logs(boot)
        unloaded = run_unload(boot, context.progress)
        report = BootReport(
            context.chip.name,
            image,
            (*log.stages, *unloaded.stages),
            cause=f"{failed}: {error.what}" + (f" ({error.seen})" if error.seen else ""),
            code=error.code,
            remedy=error.remedy,
            logs=logs,
            unload=unloaded,
        )
        raise StageFailed(
            f"{context.chip.name} did not boot {images.version}: {error.what}",
            report=report,
            expected=error.expected,
            seen=error.seen,
            where=f"stage {failed}" + (f", {error.where}" if error.where else ""),
            remedy=error.remedy if unloaded.clean else f"{error.remedy or ''}; the device needs a reset: {unloaded.cause}".lstrip("; "),
        ) from error

    @may_sleep
    def recover(self, context: OpenContext) -> UnloadReport:
        """Take down a firmware found running: with `context.saved` by the saved unload, else say whose it may be."""
        from nvcore_fw_gsp.boot.recover import look_only, recover

        saved = context.saved
        try:
            ours = saved is not None and saved.backend == self.name
            images = self._resolve(context.chip.name, saved.version, None) if saved is not None and ours else self._choose(context)
        except NvcoreError as error:
            return look_only(context, error)
        return recover(context, images, self._vbios())

    def _choose(self, context: OpenContext) -> ImageSet:
        from nvcore_fw_gsp.images.find import choose

        chip, version = context.chip.name, context.version
        try:
            if chip not in BOOT_CHIPS:
                from nvcore_fw_gsp.images.errors import ChipNotSupported

                raise ChipNotSupported(f"{chip} is not booted by this backend", expected=", ".join(BOOT_CHIPS), seen=chip)
            return choose(chip, self.roots(), version)
        except NvcoreError as error:
            image = FirmwareImage(chip, version or "none", "vendor", "", problem=str(error))
            report = BootReport(chip, image, (), cause=error.what, code=error.code, remedy=error.remedy)
            raise BootError(
                error.what, report=report, expected=error.expected, seen=error.seen, where=error.where, remedy=error.remedy
            ) from error

    def _resolve(self, chip: str, version: str, fallback: ImageSet | None) -> ImageSet:
        """The files of a saved version; the ones at hand where they are gone (any release's unload part takes a firmware down)."""
        from nvcore_fw_gsp.images.find import choose

        try:
            return choose(chip, self.roots(), version)
        except NvcoreError:
            return fallback if fallback is not None else choose(chip, self.roots())


def _flow(boot: Boot) -> tuple[Stage, ...]:
    match boot.chip.flow:
        case BootFlow.BOOTER_PIO:
            from nvcore_fw_gsp.boot.booter_flow import BOOTER_FLOW

            return BOOTER_FLOW
        case BootFlow.FSP:
            from nvcore_fw_gsp.boot.fsp_flow import FSP_FLOW

            return FSP_FLOW


def _image(found: ImageSet) -> FirmwareImage:
    return FirmwareImage(found.chip.name, found.version, found.kind, found.folder, found.problem, tuple(found.looked_for))


def _logs(boot: Boot) -> dict[str, str]:
    """Log regions in words: whether the firmware ever wrote, and how much."""
    from nvcore_fw_gsp.boot.arguments import log_progress

    return {name: f"{put} words written" if (put := log_progress(buffer)) else "never written" for name, buffer in boot.logs.items()}
