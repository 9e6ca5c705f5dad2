"""The flow of GH100: the FSP checks the FMC, the FMC places and starts the firmware.

A table of stages over `Boot`, and the message exchange with the FSP. The opener's thread.
Source: open-gpu-kernel-modules 570.144 kern_fsp_gh100.c, kernel_gsp_gh100.c; nova-core fsp.rs.
"""

from __future__ import annotations

import struct
from typing import Final

from nvcore.hw.register import is_bus_error
from nvcore.hw.registers import boot as breg
from nvcore.hw.registers import falcon as reg
from nvcore.hw.registers import riscv
from nvcore_fw_gsp.boot import arguments, common, wpr
from nvcore_fw_gsp.boot.errors import BootTimeout, FspRefused, GspDidNotStart
from nvcore_fw_gsp.boot.layout import HopperSizes
from nvcore_fw_gsp.boot.recover import precheck
from nvcore_fw_gsp.boot.stages import Stage
from nvcore_fw_gsp.boot.state import Boot
from nvcore_fw_gsp.images.fmc import Fmc

__all__ = ["FSP_FLOW"]

_MCTP_SINGLE: Final = 0xC0000000
_NVDM_COT: Final = 0x1410DE7E
_TYPE_COT: Final = 0x14
_TYPE_RESPONSE: Final = 0x15
_COT: Final = struct.Struct("<HHQQIQI48s384s384sQ")
_SIZES: Final = HopperSizes()
SEND_TIMEOUT: Final = 1.0
ANSWER_TIMEOUT: Final = 2.0
RELEASE_TIMEOUT: Final = 4.0
LOCKDOWN_TIMEOUT: Final = 30.0
ACTIVE_TIMEOUT: Final = 5.0


def files(boot: Boot) -> str:
    """Open every file before the GPU is touched."""
    common.open_common_files(boot)
    source = boot.images.open("fmc")
    boot.sources.append(source)
    boot.fmc = Fmc(source)
    assert boot.gsp_image is not None
    return f"{boot.images.version} ({boot.images.kind}), image {boot.gsp_image.size} bytes"


def memory(boot: Boot) -> str:
    """Image, tables, sizes, arguments, queues, the FMC and its parameters."""
    size = common.memory_size(boot)
    heap = common.choose_heap(boot, size)
    root, image = common.load_image(boot)
    assert boot.bootloader is not None and boot.fmc is not None
    store = boot.memory
    boot.meta = store.put(
        "WPR meta",
        arguments.meta_hopper(
            boot.abi, _SIZES, heap, root, image, store.buffers["bootloader"], boot.bootloader, store.buffers["signature"], 0
        ),
    )
    common.arguments_and_queues(boot)
    assert boot.libos is not None
    store.put("FMC", boot.fmc.image())
    boot.fmc_parameters = store.put("FMC parameters", arguments.fmc_parameters(boot.abi, boot.meta, boot.libos))
    return f"VRAM {size:#x}, heap {heap:#x}, {sum(b.size for b in store.buffers.values())} bytes of host memory"


def chain_of_trust(boot: Boot) -> str:
    """Hand the FMC to the FSP."""
    fmc, parameters = boot.fmc, boot.fmc_parameters
    assert fmc is not None and parameters is not None
    payload = _COT.pack(
        1,
        _COT.size,
        boot.memory.buffers["FMC"].bus_address(0),
        0,
        0,
        _SIZES.frts_from_end,
        _SIZES.frts,
        fmc.hash,
        fmc.public_key,
        fmc.signature,
        parameters.bus_address(0),
    )
    boot.save(None)
    boot.started = boot.touched = boot.in_doubt = True
    _send(boot, struct.pack("<II", _MCTP_SINGLE, _NVDM_COT) + payload)
    error = _answer(boot)
    if error:
        raise FspRefused(
            "the FSP refused the chain of trust",
            expected="error 0",
            seen=f"error {error:#x}",
            where="FSP",
            remedy="reset the device: nvcore gpus reset GPU",
        )
    return f"{_COT.size} bytes accepted"


def _send(boot: Boot, message: bytes) -> None:
    """Channel 0: words through the data port, the last word's offset into TAIL, then HEAD, which rings."""
    io = boot.io
    io.wait(
        lambda: io.read(breg.FSP_QUEUE_HEAD),
        lambda v: v.value == io.read(breg.FSP_QUEUE_TAIL).value,
        timeout=SEND_TIMEOUT,
        what="an empty command channel of the FSP",
    )
    io.write(reg.EMEMC.of(increment_write=1), reg.FSP)
    io.bar.write_port(reg.EMEMD.address(reg.FSP), message)
    io.write(breg.FSP_QUEUE_TAIL(len(message) - 4))
    io.write(breg.FSP_QUEUE_HEAD(0))


def _answer(boot: Boot) -> int:
    """The error code of the FSP's answer. Raises FspRefused for an answer of another form, BootTimeout."""
    io = boot.io
    io.wait(
        lambda: io.read(breg.FSP_MSGQ_HEAD),
        lambda v: v.value != io.read(breg.FSP_MSGQ_TAIL).value,
        timeout=ANSWER_TIMEOUT,
        what="the answer of the FSP",
    )
    head, tail = io.read(breg.FSP_MSGQ_HEAD).value, io.read(breg.FSP_MSGQ_TAIL).value
    size = (tail - head) + 4
    if not 20 <= size <= 1024 or size % 4:
        raise FspRefused("the answer of the FSP has an odd size", expected="20 to 1024 bytes", seen=size, where="FSP message queue")
    io.write(reg.EMEMC.of(increment_read=1), reg.FSP)
    words = struct.unpack(f"<{size // 4}I", io.bar.read_port(reg.EMEMD.address(reg.FSP), size // 4))
    io.write(breg.FSP_MSGQ_TAIL(head))
    transport, header, _task, command, error = (int(word) for word in words[:5])
    if transport >> 30 != 3 or header >> 24 != _TYPE_RESPONSE or command != _TYPE_COT:
        raise FspRefused(
            "the answer of the FSP is not one to our message",
            expected=f"one packet, type {_TYPE_RESPONSE:#x}, command {_TYPE_COT:#x}",
            seen=f"{transport:#010x} {header:#010x} command {command:#x}",
            where="FSP message queue",
        )
    return error


def released(boot: Boot) -> str:
    """The FMC opens the GSP's registers again; until then they give an error pattern."""
    io = boot.io
    io.wait(
        lambda: io.peek(reg.HWCFG2, reg.GSP, unit="GSP."),
        lambda v: v.raw != 0 and not is_bus_error(v.raw),
        timeout=RELEASE_TIMEOUT,
        what="the FMC to open the GSP's registers",
    )
    _fmc_error(boot)
    io.wait(
        lambda: io.read(reg.HWCFG2, reg.GSP, unit="GSP."),
        lambda v: not v.priv_lockdown and not _fmc_error(boot),
        timeout=LOCKDOWN_TIMEOUT,
        what="the release of the GSP's lockdown",
    )
    left = boot.gsp.mailbox0()
    if left:
        raise FspRefused("the FMC ended with an error", expected="mailbox 0 = 0", seen=f"{left:#x}", where="GSP mailbox 0")
    region = wpr.wpr2(io)
    if region is not None:
        boot.save(region)
    return "released" if region is None else f"released, protected region {region[0]:#x} to {region[1]:#x}"


def _fmc_error(boot: Boot) -> bool:
    """Raise when the mailboxes carry an FMC error; False otherwise (they may carry our parameters' address)."""
    low, high = boot.gsp.mailbox0(), boot.gsp.mailbox1()
    assert boot.fmc_parameters is not None
    if low and high << 32 | low != boot.fmc_parameters.bus_address(0):
        raise FspRefused(
            "the FMC ended with an error",
            expected="mailbox 0 = 0",
            seen=f"{low:#x}, mailbox 1 {high:#x}",
            where="GSP mailboxes",
            remedy="reset the device: nvcore gpus reset GPU",
        )
    return False


def core_active(boot: Boot) -> str:
    """The RISC-V core must run."""
    io = boot.io
    common.write_version(boot)
    try:
        io.wait(
            lambda: io.read(riscv.RISCV_CPUCTL, reg.GSP, unit="GSP."),
            lambda v: bool(v.active),
            timeout=ACTIVE_TIMEOUT,
            what="the GSP's RISC-V core",
        )
    except BootTimeout as error:
        raise GspDidNotStart("the GSP's RISC-V core did not start", expected=error.expected, seen=common.log_state(boot)) from error
    return "active"


FSP_FLOW: Final = (
    Stage("identify", common.check_identity),
    Stage("files", files),
    Stage("wpr2-precheck", precheck),
    Stage("gfw", common.gfw_ready),
    Stage("flush-page", common.flush_page),
    Stage("memory", memory),
    Stage("first-messages", common.queue_first_messages),
    Stage("chain-of-trust", chain_of_trust),
    Stage("lockdown", released),
    Stage("riscv-active", core_active),
    Stage("status-queue", common.link_status_queue),
    Stage("init-done", common.wait_init_done),
    Stage("static-info", common.read_static_info),
)
"""Its stages, in their order."""
