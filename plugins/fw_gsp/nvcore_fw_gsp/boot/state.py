"""Everything one boot knows: what stages read and fill, and what the session and the unload take over.

Owns the host's side of a firmware: memory, queues, ucodes kept for the unload. The opener's thread until the session takes over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nvcore.api.device import Device, DmaBuffer
from nvcore.api.firmware import OpenContext
from nvcore.hw.chips import chip_row
from nvcore.hw.registers import falcon as reg
from nvcore_fw_gsp.abi import Abi, load, manifest
from nvcore_fw_gsp.abi.manifests import Manifest
from nvcore_fw_gsp.boot.chips import BOOT_CHIPS, BootChip
from nvcore_fw_gsp.boot.errors import SystemRefused
from nvcore_fw_gsp.boot.falcon import Falcon
from nvcore_fw_gsp.boot.fwsec import FwsecSb
from nvcore_fw_gsp.boot.io import BootIo
from nvcore_fw_gsp.boot.layout import Layout
from nvcore_fw_gsp.boot.memory import HostMemory
from nvcore_fw_gsp.boot.ucode import LoadedUcode
from nvcore_fw_gsp.boot.wpr import saved_state
from nvcore_fw_gsp.images.container import GenericBootloader, RiscvUcode
from nvcore_fw_gsp.images.find import ImageSet
from nvcore_fw_gsp.images.fmc import Fmc
from nvcore_fw_gsp.images.gsp import GspImage
from nvcore_fw_gsp.images.source import FileSource
from nvcore_fw_gsp.queue.memory import SharedBlock
from nvcore_fw_gsp.queue.port import RpcPort

__all__ = ["Boot", "UnloadBundle"]

EventHandler = Callable[[int, int, bytes], None]


class UnloadBundle:
    """What takes a firmware down without the file system: FWSEC-SB and the booter's unload part, patched and signed.

    no_fwsec: why there is no FWSEC-SB.
    """

    __slots__ = ("booter", "fwsec", "no_fwsec")

    def __init__(self, booter: LoadedUcode, fwsec: FwsecSb | None, no_fwsec: str = "") -> None:
        self.booter, self.fwsec, self.no_fwsec = booter, fwsec, no_fwsec


class Boot:
    """State of one boot of `device` with the files of `images`.

    vgpu_host: the firmware is started as a vGPU host; no_vgpu: why not. started: it may be running; touched: its protected region may
    be up; in_doubt: a half-done exchange may need a function reset. wpr: expected protected region.
    on_event: told every event that the boot itself has no use for. vbios: files with ROMs, looked at when the GPU's own is of no use.
    """

    def __init__(
        self,
        context: OpenContext,
        images: ImageSet,
        on_event: EventHandler,
        on_note: Callable[[str, str], None],
        on_death: Callable[[str], None],
        vbios: Sequence[str] = (),
    ) -> None:
        self.context = context
        self.device: Device = context.device
        self.chip: BootChip = BOOT_CHIPS[context.chip.name]
        self.images, self.vbios = images, vbios
        self.abi: Abi = load(images.version)
        self.manifest: Manifest = manifest(images.version)
        self.io = BootIo(context.device.bars[0], context.clock, context.time_scale)
        self.gsp = Falcon(self.io, "GSP", reg.GSP)
        self.sec2 = Falcon(self.io, "SEC2", reg.SEC2)
        self.memory = HostMemory(context.device, chip_row(context.chip.name).dma_bits)
        self.on_event, self.on_note, self.on_death = on_event, on_note, on_death
        wanted = context.needs.vgpu_host
        possible = images.version in self.chip.vgpu_versions
        self.vgpu_host = wanted and possible
        self.no_vgpu = (
            None if self.vgpu_host else self.chip.no_vgpu.format(version=images.version) if not possible else "no client asked for it"
        )
        self.gsp_image: GspImage | None = None
        self.bootloader: RiscvUcode | None = None
        self.booter_load: LoadedUcode | None = None
        self.generic: GenericBootloader | None = None
        self.fmc: Fmc | None = None
        self.bundle: UnloadBundle | None = None
        self.layout: Layout | None = None
        self.memory_size = 0
        self.block: SharedBlock | None = None
        self.port: RpcPort | None = None
        self.libos: DmaBuffer | None = None
        self.meta: DmaBuffer | None = None
        self.fmc_parameters: DmaBuffer | None = None
        self.wpr: tuple[int, int] | None = None
        self.logs: dict[str, DmaBuffer] = {}
        self.started = False
        self.flush_page_set = False
        self.touched = False
        self.in_doubt = False
        self.locked: Callable[[], bool] = lambda: False
        self.init_done: int | None = None
        self.sequences: list[bytes] = []
        self.static_info = b""
        self.sources: list[FileSource] = []
        self.resolve: Callable[[str], ImageSet] = lambda _version: images

    def event(self, number: int, result: int, payload: bytes) -> None:
        """An event while booting: the two that a boot lives on are kept for its stages, the others are passed on."""
        if number == self.abi.enum("NV_VGPU_MSG_EVENT_GSP_INIT_DONE"):
            self.init_done = result
        elif self.init_done is None and self.manifest.sequencer and number == self.abi.enum("NV_VGPU_MSG_EVENT_GSP_RUN_CPU_SEQUENCER"):
            self.sequences.append(payload)
        else:
            self.on_event(number, result, payload)

    def save(self, region: tuple[int, int] | None) -> None:
        """Write down what the next process needs to take this firmware down. region: as in `saved_state`."""
        if self.context.save is not None:
            state = saved_state(self.chip.name, self.device.identity.address, self.images.version, region, self.images.folder)
            try:
                self.context.save(state)
            except OSError as error:
                what, remedy = "the record that a later start needs could not be written", "make room in the daemon's state directory"
                seen = f"{error.strerror or error}: {error.filename or 'a file below the state directory'}"
                raise SystemRefused(what, seen=seen, remedy=f"{remedy}, then: nvcore gpus retry GPU") from error

    def close_files(self) -> None:
        """The files are not needed any more once the firmware runs. Idempotent."""
        while self.sources:
            self.sources.pop().close()
        if self.gsp_image is not None:
            self.gsp_image.close()
            self.gsp_image = None

    def release(self) -> None:
        """Free the host's side. Idempotent."""
        self.close_files()
        if self.port is not None:
            self.port.forget()
        self.memory.close()
