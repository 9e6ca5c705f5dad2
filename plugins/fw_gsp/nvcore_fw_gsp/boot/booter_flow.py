"""The flow of GA100: booter on SEC2, loaded through the data ports, creates the protected region and starts the firmware.

A table of stages over `Boot`. The opener's thread.
Source: open-gpu-kernel-modules 570.144 kernel_gsp_tu102.c, kernel_gsp_ga100.c.
"""

from __future__ import annotations

from typing import Final

from nvcore.hw.registers import falcon as reg
from nvcore.hw.registers import riscv
from nvcore_fw_gsp.boot import arguments, common, wpr
from nvcore_fw_gsp.boot.errors import BootTimeout, GspDidNotStart, WprStillUp
from nvcore_fw_gsp.boot.fwsec import prepare_fwsec
from nvcore_fw_gsp.boot.layout import plan_layout
from nvcore_fw_gsp.boot.recover import precheck
from nvcore_fw_gsp.boot.stages import Stage
from nvcore_fw_gsp.boot.state import Boot, UnloadBundle
from nvcore_fw_gsp.boot.ucode import load_ucode, run_on_sec2
from nvcore_fw_gsp.boot.vbios_sources import vbios_sources
from nvcore_fw_gsp.images.container import GenericBootloader

__all__ = ["BOOTER_FLOW"]

FRTS_SIZE: Final = 0  # GA100 has no FRTS region
VGPU_PARTITIONS: Final = 32
ACTIVE_TIMEOUT: Final = 5.0


def files(boot: Boot) -> str:
    """Open every file before the GPU is touched."""
    common.open_common_files(boot)
    images = boot.images
    for role in ("booter_load", "booter_unload"):
        boot.sources.append(images.open(role))
    source = images.open("generic")
    boot.sources.append(source)
    boot.generic = GenericBootloader(source)
    assert boot.gsp_image is not None
    return f"{images.version} ({images.kind}), image {boot.gsp_image.size} bytes"


def unload_bundle(boot: Boot) -> str:
    """FWSEC-SB and the booter's unload part: ready before anything can need them."""
    _bootloader, load, unload, _generic = boot.sources
    boot.booter_load = load_ucode(boot.io, load, boot.chip.name)
    booter = load_ucode(boot.io, unload, boot.chip.name)
    assert boot.generic is not None
    sources = vbios_sources(boot.io, boot.device.identity, boot.vbios)
    fwsec = prepare_fwsec(boot.io, boot.memory, boot.generic, sources)
    boot.bundle = UnloadBundle(booter, fwsec)
    return f"booter unload {booter.ucode.size} bytes, FWSEC-SB of descriptor version {fwsec.version}, {fwsec.origin}"


def plan(boot: Boot) -> str:
    """Where the firmware goes."""
    assert boot.gsp_image is not None and boot.bootloader is not None
    size = common.memory_size(boot)
    heap = common.choose_heap(boot, size)
    layout = boot.layout = plan_layout(
        fb_size=size,
        vga_start=common.vga_start(boot, size),
        lock_low=common.lock_low(boot),
        frts_size=FRTS_SIZE,
        bootloader_size=boot.bootloader.size,
        image_size=boot.gsp_image.size,
        heap_bytes=heap,
    )
    boot.wpr = (layout.wpr_start, layout.wpr_end)
    return f"VRAM {size:#x}, heap {layout.heap_size:#x}, protected region {layout.wpr_start:#x} to {layout.wpr_end:#x}"


def memory(boot: Boot) -> str:
    """Image, tables, meta, arguments, queues."""
    root, size = common.load_image(boot)
    assert boot.layout is not None and boot.bootloader is not None
    buffers = boot.memory.buffers
    partitions = VGPU_PARTITIONS if boot.vgpu_host else 0
    boot.meta = boot.memory.put(
        "WPR meta",
        arguments.meta_booter(boot.abi, boot.layout, root, size, buffers["bootloader"], boot.bootloader, buffers["signature"], partitions),
    )
    common.arguments_and_queues(boot)
    return f"{sum(buffer.size for buffer in buffers.values())} bytes of host memory"


def reset_gsp(boot: Boot) -> str:
    """A reset is all that a GA100 needs before its RISC-V core can start; the mailboxes carry the libos arguments."""
    boot.gsp.reset()
    assert boot.libos is not None
    address = boot.libos.bus_address(0)
    boot.gsp.set_mailboxes(address & 0xFFFFFFFF, address >> 32)
    return f"libos arguments at {address:#x}"


def booter_load(boot: Boot) -> str:
    """Run the booter: it verifies the image, protects the region and starts the firmware."""
    assert boot.meta is not None and boot.booter_load is not None and boot.wpr is not None
    boot.save(boot.wpr)
    boot.started = boot.touched = True
    address = boot.meta.bus_address(0)
    run_on_sec2(boot.sec2, boot.booter_load, (address & 0xFFFFFFFF, address >> 32), "the booter")
    region = wpr.wpr2(boot.io)
    if region != boot.wpr:
        raise WprStillUp(
            "the booter did not protect the region that it was told",
            expected=f"{boot.wpr[0]:#x} to {boot.wpr[1]:#x}",
            seen="no region" if region is None else f"{region[0]:#x} to {region[1]:#x}",
            remedy="reset the device: nvcore gpus reset GPU",
        )
    return "protected region as planned"


def core_active(boot: Boot) -> str:
    """The RISC-V core must run."""
    io = boot.io
    common.write_version(boot)
    try:
        io.wait(
            lambda: io.read(riscv.RISCV_CORE_SWITCH_STATUS, reg.GSP, unit="GSP."),
            lambda v: bool(v.active),
            timeout=ACTIVE_TIMEOUT,
            what="the GSP's RISC-V core",
        )
    except BootTimeout as error:
        raise GspDidNotStart(
            "the GSP's RISC-V core did not start",
            expected=error.expected,
            seen=f"mailbox 0 {boot.gsp.mailbox0():#x}; {common.log_state(boot)}",
        ) from error
    return "active"


BOOTER_FLOW: Final = (
    Stage("identify", common.check_identity),
    Stage("files", files),
    Stage("wpr2-precheck", precheck),
    Stage("gfw", common.gfw_ready),
    Stage("flush-page", common.flush_page),
    Stage("unload-bundle", unload_bundle),
    Stage("layout", plan),
    Stage("memory", memory),
    Stage("first-messages", common.queue_first_messages),
    Stage("gsp-reset", reset_gsp),
    Stage("booter-load", booter_load),
    Stage("riscv-active", core_active),
    Stage("status-queue", common.link_status_queue),
    Stage("init-done", common.wait_init_done),
    Stage("static-info", common.read_static_info),
)
"""Its stages, in their order."""
