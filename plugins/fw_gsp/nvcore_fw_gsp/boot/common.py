"""Stages that all flows share: identify, files, flush page, memory, queues, and from the running core to the inventory's source.

Each function is one stage on a `Boot`; its result is the detail of the boot report. The opener's thread.
Source: nova-core gsp/boot.rs; open-gpu-kernel-modules 570.144 kernel_gsp.c.
"""

from __future__ import annotations

from typing import Final

from nvcore.api.errors import FormatError
from nvcore.hw.chips import identify
from nvcore.hw.registers import boot as breg
from nvcore.hw.registers import falcon as reg
from nvcore.hw.registers import fb as fbreg
from nvcore_fw_gsp.boot import arguments, sysinfo
from nvcore_fw_gsp.boot.chips import BootFlow
from nvcore_fw_gsp.boot.errors import BootTimeout, GspDidNotStart, LayoutError
from nvcore_fw_gsp.boot.health import core_stopped
from nvcore_fw_gsp.boot.layout import heap_size, vga_workspace
from nvcore_fw_gsp.boot.sequencer import run_sequence
from nvcore_fw_gsp.boot.state import Boot
from nvcore_fw_gsp.images.container import RiscvUcode
from nvcore_fw_gsp.images.radix3 import Radix3Size, write_radix3
from nvcore_fw_gsp.queue.memory import SharedBlock, block_size
from nvcore_fw_gsp.queue.port import RpcPort

_SET_SYSTEM_INFO: Final = 0x48
_SET_REGISTRY: Final = 0x49
_GET_STATIC_INFO: Final = 0x41
_LINK_TIMEOUT: Final = 4.0
_INIT_TIMEOUT: Final = 20.0
_CALL_TIMEOUT: Final = 30.0
_SMALLEST_MEMORY: Final = 256 << 20


def check_identity(boot: Boot) -> str:
    """The chip must be the one that the core saw."""
    chip = identify(boot.io.bar)
    if chip.name != boot.context.chip.name:
        raise FormatError("the chip changed its name", expected=boot.context.chip.name, seen=chip.name, where="PMC_BOOT_42")
    return f"{chip.name} {chip.revision}"


def open_common_files(boot: Boot) -> None:
    """The GSP image and its loader, for every flow."""
    boot.gsp_image = boot.images.open_gsp()
    source = boot.images.open("bootloader")
    boot.sources.append(source)
    boot.bootloader = RiscvUcode(source)


def gfw_ready(boot: Boot) -> str:
    """The GPU's own firmware must have finished."""
    io = boot.io
    match boot.chip.flow:
        case BootFlow.BOOTER_PIO:
            io.wait(
                lambda: io.read(breg.GFW_PLM),
                lambda v: bool(v.readable),
                timeout=4.0,
                what="leave to read the progress of the GPU's own firmware",
            )
            io.wait(
                lambda: io.peek(breg.GFW_PROGRESS),
                lambda v: v.raw & 0xFF == 0xFF and v.raw != 0xFFFFFFFF,
                timeout=4.0,
                what="the GPU's own firmware (GFW)",
            )
        case BootFlow.FSP:
            try:
                io.wait(lambda: io.read(breg.FSP_BOOT_COMPLETE), lambda v: v.value == 0xFF, timeout=5.0, what="the FSP's boot of the GPU")
            except BootTimeout:
                for index in range(4):
                    io.peek(breg.FSP_SCRATCH, index=index)
                raise
    return "done"


def flush_page(boot: Boot) -> str:
    """A page of system memory that the GPU may flush to, known to it before the firmware touches system memory."""
    boot.device.set_bus_master(True)
    address = boot.memory.allocate("flush page", 4096).bus_address(0)
    io = boot.io
    boot.flush_page_set = True
    match boot.chip.flow:
        case BootFlow.BOOTER_PIO:
            io.write(fbreg.FLUSH_PAGE_HI(address >> 40))
            io.write(fbreg.FLUSH_PAGE_LO(address >> 8))
        case BootFlow.FSP:
            io.write(fbreg.FLUSH_PAGE_HI_GH100(address >> 32))
            io.write(fbreg.FLUSH_PAGE_LO_GH100(address))
    return f"at {address:#x}"


def memory_size(boot: Boot) -> int:
    """Bytes of VRAM, kept for the inventory. Raises LayoutError for a size that no such GPU has."""
    match boot.chip.flow:
        case BootFlow.BOOTER_PIO:
            value = boot.io.read(fbreg.LOCAL_MEMORY_RANGE)
            size = value.magnitude << (value.scale + 20)
            size = size * 15 // 16 if value.ecc else size
        case BootFlow.FSP:
            size = boot.io.read(fbreg.USABLE_FB_SIZE_MIB).value << 20
    if size < _SMALLEST_MEMORY:
        raise LayoutError(
            "the GPU tells an impossible memory size",
            expected=f"at least {_SMALLEST_MEMORY:#x} bytes",
            seen=f"{size:#x}",
            remedy="reset the device: nvcore gpus reset GPU",
        )
    boot.memory_size = size
    return size


def choose_heap(boot: Boot, fb_size: int) -> int:
    """Bytes of the firmware's heap for what it will serve. Raises LayoutError."""
    libos, base = boot.images.chip.libos, boot.chip.heap_base
    return heap_size(boot.images.version, libos=libos, base=base, fb_size=fb_size, vgpu_host=boot.vgpu_host)


def vga_start(boot: Boot, fb_size: int) -> int:
    """Start of the VGA workspace."""
    if boot.io.read(fbreg.DISPLAY_FUSE).disabled:
        return vga_workspace(fb_size, None)
    value = boot.io.read(fbreg.VGA_WORKSPACE)
    return vga_workspace(fb_size, value.start << 16 if value.valid and value.target == 1 else None)


def lock_low(boot: Boot) -> int | None:
    """Start of a locked top of memory, or None; GA100's row remapper has one."""
    io = boot.io
    if not io.read(fbreg.MMU_LOCK_PLM).readable:
        return None
    low, high = io.read(fbreg.MMU_LOCK_LO), io.read(fbreg.MMU_LOCK_HI)
    return low.value << 12 if high.value >= low.value and high.value else None


def load_image(boot: Boot) -> tuple[int, int]:
    """Put the GSP image, its table, its signature and its loader into memory; (bus address of the table's root, bytes of the image)."""
    image, ucode = boot.gsp_image, boot.bootloader
    assert image is not None and ucode is not None
    memory, size = boot.memory, image.size
    data = memory.allocate("image", size)
    image.read_into(data.view[:size])
    root = write_radix3(memory.allocate("radix3", Radix3Size(size).tables), data, size)
    memory.put("signature", image.signature(boot.images.chip.signature))
    memory.put("bootloader", ucode.image())
    return root, size


def arguments_and_queues(boot: Boot) -> None:
    """Queues, log regions, cached arguments and the list of them all for libos."""
    memory, context = boot.memory, boot.context
    block = boot.block = SharedBlock(memory.allocate("queues", block_size()))
    bar, doorbell = boot.io.bar, reg.GSP_QUEUE_HEAD.address(reg.GSP)
    write = bar.write32
    boot.port = RpcPort(
        block,
        lambda: write(doorbell, 0),
        context.clock,
        on_event=boot.event,
        on_note=boot.on_note,
        on_death=boot.on_death,
        healthy=lambda: core_stopped(boot) if boot.started else None,
        wake=context.wake,
        echo=boot.manifest.reply_sequence,
        time_scale=context.time_scale,
    )
    regions = boot.manifest.log_regions
    assert regions is not None
    for name in regions[boot.images.chip.libos - 2]:
        boot.logs[name] = arguments.make_log(memory, name)
    cached = memory.put("RMARGS", bytes(arguments.cached_arguments(boot.abi, boot.manifest, block)))
    boot.libos = memory.put("libos arguments", arguments.libos_arguments(boot.abi, [*boot.logs.items(), ("RMARGS", cached)]))


def queue_first_messages(boot: Boot) -> str:
    """System information and registry keys wait in the queue when the firmware starts."""
    port, context = boot.port, boot.context
    assert port is not None
    info = sysinfo.system_info(boot.abi, boot.device, context.needs, mirror=boot.chip.mirror, host_functions=boot.vgpu_host)
    keys = sysinfo.registry(context.needs.settings, vgpu_host=boot.vgpu_host)
    port.post(_SET_SYSTEM_INFO, info)
    port.post(_SET_REGISTRY, keys)
    return f"system information {len(info)} bytes, registry {len(keys)} bytes"


def write_version(boot: Boot) -> None:
    """Tell the falcon which application runs."""
    assert boot.bootloader is not None
    boot.io.write(reg.OS(boot.bootloader.app_version), reg.GSP)


def link_status_queue(boot: Boot) -> str:
    """Wait for the firmware's own queue header."""
    port, clock = boot.port, boot.context.clock
    assert port is not None and boot.block is not None
    limit = _LINK_TIMEOUT * boot.context.time_scale
    deadline = clock.now() + limit
    while True:
        port.drain()
        _check_alive(boot)
        if port.receiver.linked:
            return f"{boot.block.status_size:#x} bytes"
        if clock.now() >= deadline:
            raise GspDidNotStart(
                "the firmware did not set up its message queue",
                expected=f"a queue header within {limit:g} s",
                seen=log_state(boot),
                remedy="nvcore dump keeps the logs and registers",
            )
        clock.sleep(0.0005)


def wait_init_done(boot: Boot) -> str:
    """Serve the firmware until it says that it is up: its register sequences are run, other events passed on."""
    port, clock = boot.port, boot.context.clock
    assert port is not None
    limit = _INIT_TIMEOUT * boot.context.time_scale
    deadline = clock.now() + limit
    sequences = 0
    while True:
        port.drain()
        while boot.sequences:
            run_sequence(boot, boot.sequences.pop(0), deadline)
            sequences += 1
        if boot.init_done is not None:
            break
        _check_alive(boot)
        if clock.now() >= deadline:
            raise GspDidNotStart(
                "the firmware did not say that it is up",
                expected=f"GSP_INIT_DONE within {limit:g} s",
                seen=f"{sum(1 for kind, *_ in port.history if kind == 'event')} other events; {log_state(boot)}",
                remedy="nvcore dump keeps the logs and registers",
            )
        clock.sleep(0.0005)
    if boot.init_done:
        raise GspDidNotStart(
            "the firmware came up with an error", expected="result 0", seen=f"result {boot.init_done:#x}; {log_state(boot)}"
        )
    boot.in_doubt = False
    boot.io.write(reg.IRQSCLR.of(halt=1, swgen0=1), reg.GSP)
    return f"{sequences} register sequences run"


def _check_alive(boot: Boot) -> None:
    cause = boot.port.dead if boot.port is not None else None
    cause = cause or core_stopped(boot)
    if cause is not None:
        raise GspDidNotStart("the firmware stopped while it came up", expected="a running core", seen=f"{cause}; {log_state(boot)}")


def read_static_info(boot: Boot) -> str:
    """The firmware's description of the GPU, from which the inventory is made."""
    port, layout = boot.port, boot.abi.struct("GspStaticConfigInfo")
    assert port is not None
    reply = port.call(_GET_STATIC_INFO, bytes(layout.size), "the static information", _CALL_TIMEOUT)
    if len(reply) < layout.size:
        raise FormatError("the static information is too short", expected=layout.size, seen=len(reply), where="GET_GSP_STATIC_INFO")
    boot.static_info = reply
    return f"{len(reply)} bytes"


def log_state(boot: Boot) -> str:
    """Which log regions the firmware has written to, in words."""
    if not boot.logs:
        return "no logs yet"
    parts = [f"{name} {arguments.log_progress(buffer) or 'never written'}" for name, buffer in boot.logs.items()]
    return "logs: " + ", ".join(parts)
