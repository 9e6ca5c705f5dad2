"""FWSEC-SB: read from the GPU's ROM and prepared before the boot, run on the GSP falcon after the firmware has stopped.

Owns two DMA buffers through the boot's `HostMemory`. The way of Turing and GA100: the ROM's descriptor is of version 2 and a generic
bootloader pulls the ucode in by DMA. The PROM is the only source: a copy in VRAM is there only with a display, which GA100 has not, and
may lack FWSEC. The opener's thread, or the unload's.
Source: nova-core firmware/fwsec/bootloader.rs; open-gpu-kernel-modules 570.144 kernel_gsp_fwsec.c.
"""

from __future__ import annotations

import struct
from typing import Final

from nvcore.hw.registers import boot as breg
from nvcore.hw.registers import falcon as reg
from nvcore_fw_gsp.boot.errors import FwsecFailed
from nvcore_fw_gsp.boot.falcon import Falcon
from nvcore_fw_gsp.boot.io import BootIo
from nvcore_fw_gsp.boot.memory import HostMemory
from nvcore_fw_gsp.images.container import GenericBootloader
from nvcore_fw_gsp.vbios.bit import read_vbios
from nvcore_fw_gsp.vbios.fwsec import Fwsec
from nvcore_fw_gsp.vbios.rom import open_rom

__all__ = ["FwsecSb", "prepare_fwsec"]

_PROM: Final = 0x300000
_PROM_SIZE: Final = 0x100000
_IMEM_SIZE: Final = 0x10000
_DMA_CONTEXT: Final = 4
_DESCRIPTOR: Final = struct.Struct("<16x16xIQIIIIIQIII")
"""84 bytes: reserved, signature, ctx_dma, code base, non-secure offset and size, secure offset and size, entry, data base, size, argc,
argv."""


class FwsecSb:
    """FWSEC with the command SB in place."""

    __slots__ = ("_code", "_descriptor", "_generic", "rom_version", "version")

    def __init__(self, generic: GenericBootloader, code: bytes, descriptor: bytes, version: int, rom_version: str) -> None:
        self._generic, self._code, self._descriptor = generic, code, descriptor
        self.version, self.rom_version = version, rom_version

    def run(self, gsp: Falcon) -> None:
        """Run it on the GSP falcon, which must hold no running firmware. Raises FwsecFailed, BootTimeout."""
        io = gsp.io
        gsp.reset()
        gsp.prepare_dma()
        io.write(reg.FBIF_TRANSCFG.of(target=1, physical=1), gsp.base, _DMA_CONTEXT)
        size = -(-len(self._code) // 256) * 256
        gsp.load_code(self._code, _IMEM_SIZE - size, self._generic.start_tag, secure=False)
        gsp.load_data(self._descriptor, self._generic.dmem_load_offset)
        gsp.set_mailboxes(0, 0)
        gsp.start(self._generic.start_tag << 8)
        gsp.wait_halted("FWSEC-SB to halt on the GSP falcon")
        result = gsp.mailbox0()
        error = io.read(breg.FWSEC_SB_SCRATCH).error
        if result or error:
            raise FwsecFailed(
                "FWSEC-SB ended with an error",
                expected="mailbox 0 = 0, scratch = 0",
                seen=f"mailbox 0 = {result:#x}, scratch = {error:#x}",
                where="GSP falcon",
            )


def prepare_fwsec(io: BootIo, memory: HostMemory, generic: GenericBootloader) -> FwsecSb:
    """Read the ROM, find FWSEC, put code and data with the command SB into DMA memory. Raises the errors of `vbios`, FwsecFailed."""
    bar = io.bar
    shadow = io.read(breg.ROM_SHADOW)
    io.write(shadow.replace(enabled=0))
    try:
        vbios = read_vbios(open_rom("PROM", lambda offset, size: bar.read(_PROM + offset, size), _PROM_SIZE))
        fwsec = Fwsec(vbios, debug=not io.read(breg.DEBUG_FUSE).production)
        if fwsec.version != 2:
            raise FwsecFailed(
                "this chip's FWSEC can only be started through the generic bootloader",
                expected="descriptor version 2",
                seen=f"version {fwsec.version}",
                where=fwsec.name,
                remedy="report the ROM version with nvcore dump",
            )
        code_bytes, data_bytes = fwsec.load_sb()
    finally:
        io.write(shadow)
    code = memory.put("FWSEC code", code_bytes)
    data = memory.put("FWSEC data", data_bytes)
    descriptor = _DESCRIPTOR.pack(
        _DMA_CONTEXT,
        code.bus_address(0),
        fwsec.imem_base,
        fwsec.imem_size - fwsec.secure_size,
        fwsec.secure_base,
        fwsec.secure_size,
        0,
        data.bus_address(0),
        fwsec.dmem_size,
        0,
        0,
    )
    return FwsecSb(generic, generic.code_bytes(), descriptor, fwsec.version, vbios.version)
