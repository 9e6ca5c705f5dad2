"""FWSEC-SB: read from the GPU's VBIOS and prepared before the boot, run on the GSP falcon after the firmware has stopped.

Owns two DMA buffers through the boot's `HostMemory`, and the choice among the sources of the VBIOS: the first that is sound and holds a
FWSEC that fits. The way of Turing and GA100: the ROM's descriptor is of version 2 and a generic bootloader pulls the ucode in by DMA.
The opener's thread, or the unload's.
Source: nova-core firmware/fwsec/bootloader.rs; open-gpu-kernel-modules 570.144 kernel_gsp_fwsec.c.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from nvcore.api.errors import NvcoreError
from nvcore.hw.registers import boot as breg
from nvcore.hw.registers import falcon as reg
from nvcore_fw_gsp.boot.errors import FwsecFailed, RegisterBlocked
from nvcore_fw_gsp.boot.falcon import Falcon
from nvcore_fw_gsp.boot.io import BootIo
from nvcore_fw_gsp.boot.memory import HostMemory
from nvcore_fw_gsp.boot.vbios_sources import VbiosSource
from nvcore_fw_gsp.images.container import GenericBootloader
from nvcore_fw_gsp.vbios.bit import read_vbios
from nvcore_fw_gsp.vbios.errors import VbiosError, VbiosFormatError
from nvcore_fw_gsp.vbios.fwsec import Fwsec
from nvcore_fw_gsp.vbios.rom import Rom

__all__ = ["FwsecSb", "prepare_fwsec"]

_IMEM_SIZE: Final = 0x10000
_DMA_CONTEXT: Final = 4
_DESCRIPTOR: Final = struct.Struct("<16x16xIQIIIIIQIII")
"""84 bytes: reserved, signature, ctx_dma, code base, non-secure offset and size, secure offset and size, entry, data base, size, argc,
argv."""


class FwsecSb:
    """FWSEC with the command SB in place. version: of its descriptor; origin: the ROM that it is from, and why not from one before."""

    __slots__ = ("_code", "_descriptor", "_generic", "origin", "version")

    def __init__(self, generic: GenericBootloader, code: bytes, descriptor: bytes, version: int, origin: str) -> None:
        self._generic, self._code, self._descriptor = generic, code, descriptor
        self.version, self.origin = version, origin

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


class _Found:
    """What one source gave: its FWSEC, code, data with the command SB in place, and the ROM's version and byte sum."""

    __slots__ = ("byte_sum", "code", "data", "fwsec", "rom", "source")

    def __init__(self, source: str, rom: Rom, debug: bool) -> None:
        """Raises VbiosError, FwsecFailed."""
        vbios = read_vbios(rom)
        fwsec = Fwsec(vbios, debug=debug)
        if fwsec.version != 2:
            raise FwsecFailed(
                "this chip's FWSEC can only be started through the generic bootloader",
                expected="descriptor version 2",
                seen=f"version {fwsec.version}",
                where=fwsec.name,
                remedy="report the ROM version with nvcore dump",
            )
        self.code, self.data = fwsec.load_sb()
        self.source, self.fwsec, self.rom, self.byte_sum = source, fwsec, vbios.version, vbios.byte_sum


def _choose(io: BootIo, sources: Sequence[VbiosSource]) -> tuple[_Found, str]:
    """The first source that can be used, and what was wrong with those before it. A ROM whose bytes do not add up is taken where none is
    better, as such boards work. Raises an error of the first source's kind, with every source's own reason."""
    debug = not io.read(breg.DEBUG_FUSE).production
    refused: list[tuple[str, NvcoreError]] = []
    spare: _Found | None = None
    for source in sources:
        try:
            with source.open() as rom:
                found = _Found(source.name, rom, debug)
        except (VbiosError, FwsecFailed, RegisterBlocked) as error:
            refused.append((source.name, error))
            continue
        if not found.byte_sum:
            return found, _reasons(refused)
        seen = f"{found.byte_sum:#04x}"
        refused.append((source.name, VbiosFormatError("the bytes of its PC-AT image do not add up to 0", seen=seen, where=source.name)))
        spare = spare or found
    if spare is not None:
        return spare, _reasons(refused)
    raise type(refused[0][1])(
        "no source of the VBIOS can be used",
        expected="a ROM with a FWSEC that fits",
        seen=_reasons(refused),
        where=", ".join(name for name, _ in refused),
        remedy="nvcore firmware inspect FILE says whether a file holds a ROM; name one of this GPU by vbios in [plugins.fw_gsp]",
    ) from refused[0][1]


def _reasons(refused: Sequence[tuple[str, NvcoreError]]) -> str:
    return "; ".join(f"{name}: {error.what}{f', {error.seen}' if error.seen else ''} ({error.code})" for name, error in refused)


def prepare_fwsec(io: BootIo, memory: HostMemory, generic: GenericBootloader, sources: Sequence[VbiosSource]) -> FwsecSb:
    """Find a VBIOS, put its FWSEC's code and data with the command SB into DMA memory. sources: at least one. Raises as `_choose`."""
    found, why = _choose(io, sources)
    fwsec = found.fwsec
    code = memory.put("FWSEC code", found.code)
    data = memory.put("FWSEC data", found.data)
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
    origin = f"ROM {found.rom or 'of a version that it does not tell'} from {found.source}" + (f" ({why})" if why else "")
    return FwsecSb(generic, generic.code_bytes(), descriptor, fwsec.version, origin)
