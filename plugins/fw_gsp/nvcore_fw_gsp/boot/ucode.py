"""Signed ucodes for SEC2 (the booter's two parts), loaded through the data ports.

Owns nothing; the image with its signature is kept by the caller. The opener's thread, or the unload's.
Source: nouveau nvkm/falcon/{tu102,ga100}.c, nova-core firmware/booter.rs.
"""

from __future__ import annotations

from nvcore.hw.registers import boot as breg
from nvcore_fw_gsp.boot.errors import BooterFailed, BootTimeout
from nvcore_fw_gsp.boot.falcon import Falcon
from nvcore_fw_gsp.boot.io import BootIo
from nvcore_fw_gsp.images.container import HsUcode
from nvcore_fw_gsp.images.source import Source

__all__ = ["LoadedUcode", "load_ucode", "run_on_sec2"]

_BLOCK = 256


class LoadedUcode:
    """A signed ucode with its signature in place, ready for the data ports."""

    __slots__ = ("image", "ucode")

    def __init__(self, ucode: HsUcode, image: bytearray) -> None:
        self.ucode, self.image = ucode, image


def load_ucode(io: BootIo, source: Source, chip: str) -> LoadedUcode:
    """Read a ucode of SEC2 and put the signature in place that fits the chip's fuses. Raises SignatureUnusable, FirmwareFormatError."""
    ucode = HsUcode(source)
    fuse = io.read(breg.SEC2_UCODE_VERSION, index=ucode.ucode_id - 1).data if ucode.signatures > 1 and 1 <= ucode.ucode_id <= 16 else 0
    return LoadedUcode(ucode, ucode.image(ucode.signature_index(fuse, chip)))


def run_on_sec2(sec2: Falcon, loaded: LoadedUcode, mailboxes: tuple[int, int], what: str) -> None:
    """Reset SEC2, load, run to its halt. Raises BooterFailed with both mailboxes."""
    ucode, image = loaded.ucode, memoryview(loaded.image)
    sec2.reset()
    sec2.prepare_dma()
    offset, size = ucode.code
    sec2.load_code(image[offset : offset + size], 0, offset // _BLOCK, secure=False)
    at = -(-size // _BLOCK) * _BLOCK
    for code, code_size, _data, _data_size in ucode.apps:
        sec2.load_code(image[code : code + code_size], at, code // _BLOCK, secure=True)
        at += -(-code_size // _BLOCK) * _BLOCK
    data, data_size = ucode.data
    sec2.load_data(image[data : data + data_size], 0)
    sec2.set_mailboxes(*mailboxes)
    try:
        sec2.start(0)
        sec2.wait_halted(f"{what} to halt on SEC2")
    except BootTimeout as error:
        raise BooterFailed(
            f"{what} did not end", expected=error.expected, seen=error.seen, where="SEC2", remedy="reset the device: nvcore gpus reset GPU"
        ) from error
    result, detail = sec2.mailbox0(), sec2.mailbox1()
    if result:
        raise BooterFailed(
            f"{what} failed",
            expected="mailbox 0 = 0",
            seen=f"mailbox 0 = {result:#x}, mailbox 1 = {detail:#x}",
            where="SEC2",
            remedy="the code is the booter's own: nvcore dump keeps what led to it",
        )
