"""What the firmware is handed at its start: WPR meta, cached arguments, log regions, libos arguments, Hopper's boot parameters.

Owns no memory beyond what it asks `HostMemory` for; layouts come from the ABI data of the version. The opener's thread.
Source: open-gpu-kernel-modules gsp_fw_wpr_meta.h, gsp_init_args.h, libos_init_args.h, gspifpub.h at the version's tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nvcore.api.device import DmaBuffer
from nvcore_fw_gsp.abi import Abi
from nvcore_fw_gsp.abi.manifests import Manifest
from nvcore_fw_gsp.boot.layout import HopperSizes, Layout
from nvcore_fw_gsp.boot.memory import HostMemory
from nvcore_fw_gsp.images.container import RiscvUcode
from nvcore_fw_gsp.queue.layout import SLOT
from nvcore_fw_gsp.queue.memory import SharedBlock

__all__ = ["LOG_SIZE", "cached_arguments", "fmc_parameters", "libos_arguments", "log_progress", "make_log", "meta_booter", "meta_hopper"]

LOG_SIZE: Final = 0x10000
"""Bytes of one of the firmware's log buffers."""

_META_MAGIC: Final = 0xDC3AAE21371A60B3
_META_REVISION: Final = 1
_KIND_CONTIGUOUS: Final = 1
_LOC_SYSMEM: Final = 1
_COHERENT: Final = 1
_NON_COHERENT: Final = 2


def _meta_images(root: int, size: int, bootloader: DmaBuffer, ucode: RiscvUcode, signature: DmaBuffer) -> dict[str, int]:
    return {
        "magic": _META_MAGIC,
        "revision": _META_REVISION,
        "sysmemAddrOfRadix3Elf": root,
        "sizeOfRadix3Elf": size,
        "sysmemAddrOfBootloader": bootloader.bus_address(0),
        "sizeOfBootloader": ucode.size,
        "bootloaderCodeOffset": ucode.code_offset,
        "bootloaderDataOffset": ucode.data_offset,
        "bootloaderManifestOffset": ucode.manifest_offset,
        "sysmemAddrOfSignature": signature.bus_address(0),
        "sizeOfSignature": 4096,
    }


def meta_booter(
    abi: Abi, layout: Layout, root: int, size: int, bootloader: DmaBuffer, ucode: RiscvUcode, signature: DmaBuffer, partitions: int
) -> bytearray:
    """WPR meta for chips whose booter places the firmware where the driver says. partitions: vGPU partitions, 0 on a bare host."""
    values = _meta_images(root, size, bootloader, ucode, signature)
    values |= {
        "gspFwRsvdStart": layout.non_wpr_heap,
        "nonWprHeapOffset": layout.non_wpr_heap,
        "nonWprHeapSize": layout.non_wpr_heap_size,
        "gspFwWprStart": layout.wpr_start,
        "gspFwHeapOffset": layout.heap,
        "gspFwHeapSize": layout.heap_size,
        "gspFwOffset": layout.image,
        "bootBinOffset": layout.boot_bin,
        "frtsOffset": layout.frts,
        "frtsSize": layout.frts_size,
        "gspFwWprEnd": layout.wpr_end,
        "fbSize": layout.fb_size,
        "vgaWorkspaceOffset": layout.vga_start,
        "vgaWorkspaceSize": layout.fb_size - layout.vga_start,
        "gspFwHeapVfPartitionCount": partitions,
    }
    return abi.struct("GspFwWprMeta").pack(values)


def meta_hopper(
    abi: Abi,
    sizes: HopperSizes,
    heap: int,
    root: int,
    size: int,
    bootloader: DmaBuffer,
    ucode: RiscvUcode,
    signature: DmaBuffer,
    partitions: int,
) -> bytearray:
    """WPR meta with sizes only: the FMC places things."""
    values = _meta_images(root, size, bootloader, ucode, signature)
    values |= {
        "nonWprHeapSize": sizes.non_wpr_heap,
        "gspFwHeapSize": heap,
        "frtsSize": sizes.frts,
        "vgaWorkspaceSize": sizes.vga_workspace,
        "gspFwHeapVfPartitionCount": partitions,
    }
    return abi.struct("GspFwWprMeta").pack(values)


def cached_arguments(abi: Abi, manifest: Manifest, block: SharedBlock) -> bytearray:
    """GSP_ARGUMENTS_CACHED of a cold boot; it goes into a page of its own."""
    layout = abi.struct("GSP_ARGUMENTS_CACHED")
    queues = "messageQueueInitArguments."
    values: dict[str, int] = {
        f"{queues}sharedMemPhysAddr": block.address,
        f"{queues}pageTableEntryCount": block.entries,
        f"{queues}cmdQueueOffset": block.command,
        f"{queues}statQueueOffset": block.status,
    }
    if manifest.queue_parameters:
        values |= {
            f"{queues}queueElementHdrSize": 0x30,
            f"{queues}queueElementSizeMin": SLOT,
            f"{queues}queueElementSizeMax": 16 * SLOT,
            f"{queues}queueHeaderAlign": 4,
            f"{queues}queueElementAlign": 12,
        }
    if layout.has("bDmemStack"):
        values["bDmemStack"] = True
    return layout.pack(values)


def make_log(memory: HostMemory, name: str) -> DmaBuffer:
    """A log region: its page list behind the put index, which stays 0 until the firmware writes."""
    buffer = memory.allocate(name, LOG_SIZE)
    pages = LOG_SIZE // 4096
    words = buffer.view[: (1 + pages) * 8].cast("Q")
    for page in range(pages):
        words[1 + page] = buffer.bus_address(page * 4096)
    return buffer


def log_progress(buffer: DmaBuffer) -> int:
    """The put index of a log region; 0 = the firmware never wrote to it."""
    return int.from_bytes(buffer.view[:8], "little")


def libos_arguments(abi: Abi, regions: Sequence[tuple[str, DmaBuffer]]) -> bytearray:
    """The list of named regions that libos reads first, one page."""
    layout = abi.struct("LibosMemoryRegionInitArgument")
    page = bytearray(4096)
    for index, (name, buffer) in enumerate(regions):
        entry = layout.pack(
            id8=int.from_bytes(name.encode("ascii"), "big"),
            pa=buffer.bus_address(0),
            size=buffer.size,
            kind=_KIND_CONTIGUOUS,
            loc=_LOC_SYSMEM,
        )
        page[index * layout.size : (index + 1) * layout.size] = entry
    return page


def fmc_parameters(abi: Abi, meta: DmaBuffer, libos: DmaBuffer) -> bytearray:
    """GSP_FMC_BOOT_PARAMS: on Hopper and later the only way by which the libos arguments arrive."""
    return abi.struct("GSP_FMC_BOOT_PARAMS").pack(
        {
            "bootGspRmParams.target": _COHERENT,
            "bootGspRmParams.gspRmDescSize": 256,
            "bootGspRmParams.gspRmDescOffset": meta.bus_address(0),
            "bootGspRmParams.bIsGspRmBoot": True,
            "gspRmParams.target": _NON_COHERENT,
            "gspRmParams.bootArgsOffset": libos.bus_address(0),
        }
    )
