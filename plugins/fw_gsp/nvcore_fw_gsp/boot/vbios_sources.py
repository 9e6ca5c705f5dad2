"""Where the VBIOS is looked for: the ROM itself, the copy of it in VRAM, then the files that the operator named.

Owns the order, and the registers that hide or show a ROM, which are put back after the reading. Says nothing of what a ROM holds. The
opener's thread, or the unload's.
Source: nova-core vbios.rs and open-gpu-kernel-modules 570.144 kernel_gsp_vbios_tu102.c (PROM alone, its shadow taken off); Linux 7.3
nouveau nvkm/subdev/bios/shadow.c, shadowramin.c (the copy in VRAM, and that the next source is tried).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Final

from nvcore.api.device import PciIdentity
from nvcore.hw.mmu import WINDOW, window_steps
from nvcore.hw.registers import boot as breg
from nvcore.hw.registers import fb as fbreg
from nvcore_fw_gsp.boot.io import BootIo
from nvcore_fw_gsp.vbios.errors import VbiosForeign, VbiosUnreadable
from nvcore_fw_gsp.vbios.rom import Rom, image_chain, open_rom

__all__ = ["VbiosSource", "vbios_sources"]

PROM: Final = 0x300000
ROM_SIZE: Final = 0x100000
COPY_IN_WINDOW: Final = 0xF0000
"""Where the copy lies behind the window's base, when the VGA workspace does not say."""
MAX_FILE: Final = 16 << 20
_PC_AT: Final = 0x00
_COPY_NAME: Final = "copy in VRAM"


class VbiosSource:
    """One place: its `name`, and `open`, within whose block the ROM can be read. It raises VbiosError, RegisterBlocked."""

    __slots__ = ("name", "open")

    def __init__(self, name: str, open: Callable[[], AbstractContextManager[Rom]]) -> None:
        self.name, self.open = name, open


def vbios_sources(io: BootIo, identity: PciIdentity, files: Sequence[str]) -> list[VbiosSource]:
    """All sources, in the order in which they are tried. identity: of the GPU; files: absolute paths."""
    return [
        VbiosSource("PROM", partial(_prom, io)),
        VbiosSource(_COPY_NAME, partial(_copy, io)),
        *(VbiosSource(path, partial(_file, path, identity)) for path in files),
    ]


@contextmanager
def _prom(io: BootIo) -> Iterator[Rom]:
    shadow = io.read(breg.ROM_SHADOW)
    io.write(shadow.replace(enabled=0))
    try:
        yield open_rom("PROM", lambda offset, size: io.bar.read(PROM + offset, size), ROM_SIZE)
    finally:
        io.write(shadow)


@contextmanager
def _copy(io: BootIo) -> Iterator[Rom]:
    """The copy that start-up software leaves for a display; it may lack FWSEC, which is then said as of any ROM."""
    what = "no copy of the ROM"
    if io.read(fbreg.DISPLAY_FUSE).disabled:
        raise VbiosUnreadable(what, seen="a GPU without display", where=_COPY_NAME)
    workspace = io.read(fbreg.VGA_WORKSPACE)
    if not workspace.valid or workspace.target != 1:
        raise VbiosUnreadable(what, expected="a VGA workspace in VRAM", seen=f"{workspace!r}", where=_COPY_NAME)
    window = io.read(WINDOW)
    base = workspace.start << 16 or (window.base << 16) + COPY_IN_WINDOW

    def read(offset: int, size: int) -> bytes:
        parts = []
        for value, at, _, step in window_steps(base + offset, size):
            io.write(WINDOW(value))
            parts.append(io.bar.read(at, step))
        return b"".join(parts)

    try:
        yield open_rom(_COPY_NAME, read, ROM_SIZE)
    finally:
        io.write(window)


@contextmanager
def _file(path: str, identity: PciIdentity) -> Iterator[Rom]:
    data = _content(path)
    rom = open_rom(path, lambda offset, size: data[offset : offset + size], len(data))
    for image in image_chain(rom):
        if image.code_type == _PC_AT and (image.vendor, image.device) != (identity.vendor, identity.device):
            raise VbiosForeign(
                "the ROM of another device",
                seen=f"{image.vendor:04x}:{image.device:04x}, this GPU is {identity.vendor:04x}:{identity.device:04x}",
                where=path,
                remedy="name a ROM of this GPU's board: vbios in [plugins.fw_gsp]",
            )
    yield rom


def _content(path: str) -> bytes:
    """All of a file. Raises VbiosUnreadable, for what is no regular file too: a pipe would make the boot wait."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(MAX_FILE + 1) if regular else b""
    except OSError as error:
        raise VbiosUnreadable("the file cannot be read", seen=error.strerror or str(error), where=path) from error
    if not regular:
        raise VbiosUnreadable("the file cannot be read", expected="a regular file", seen="not a regular file", where=path)
    if len(data) > MAX_FILE:
        raise VbiosUnreadable("too large for a ROM", expected=f"at most {MAX_FILE} bytes", seen=f"more than {MAX_FILE} bytes", where=path)
    return data
