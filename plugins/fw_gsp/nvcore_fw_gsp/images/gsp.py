"""The GSP-RM image: an ELF file whose `.fwimage` goes page by page into the device's view of memory.

Owns its source. Reads headers and the small sections; `.fwimage` is never held in Python memory and never hashed on the boot path:
`read_into` lets the kernel copy it from the page cache straight into the DMA buffer (one copy). Any thread.
Source: Linux 7.3 nova-core firmware/gsp.rs, nouveau rm/r535/gsp.c; open-gpu-kernel-modules 570.144 kernel_gsp.c.
"""

from __future__ import annotations

from typing import Final, Literal

from nvcore_fw_gsp.images.elf import ElfFile
from nvcore_fw_gsp.images.errors import ChipNotSupported, FirmwareFormatError
from nvcore_fw_gsp.images.source import Source

__all__ = ["GspImage"]

_RISCV: Final = 0xF3
_PREFIX: Final = ".fwsignature_"
_SIGNATURE_SIZE: Final = 4096
_NOTE_HEADER: Final = 16


class GspImage:
    """One GSP-RM image.

    size: bytes of `.fwimage` (exact, not rounded up). version: the release it names. build_id: hexadecimal, "synthetic…" for made-up
    images, "" when the image has none (535). signatures: chip families that it is signed for, as in "ga100".
    """

    __slots__ = ("_at", "_elf", "_source", "build_id", "signatures", "size", "version")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._elf = elf = ElfFile(source, 64)
        if (elf.type, elf.machine) != (1, _RISCV):
            raise FirmwareFormatError(
                "no GSP image", expected="a relocatable RISC-V ELF", seen=f"type {elf.type}, machine {elf.machine:#x}", where=source.name
            )
        image = elf.section(".fwimage")
        self._at, self.size = image.offset, image.size
        if image.size == 0:
            raise FirmwareFormatError("the GSP image is empty", where=source.name)
        version, _, rest = elf.read(".fwversion", limit=64).partition(b"\0")
        self.version = version.decode("ascii", "backslashreplace")
        if not version or rest.strip(b"\0"):
            raise FirmwareFormatError(
                "the release string is off", expected="text ending in a zero byte", seen=self.version, where=source.name
            )
        self.build_id = self._read_build_id()
        self.signatures = tuple(name[len(_PREFIX) :] for name in elf.sections if name.startswith(_PREFIX))

    def _read_build_id(self) -> str:
        if ".note.gnu.build-id" not in self._elf.sections:
            return ""
        note = self._elf.read(".note.gnu.build-id", limit=256)[_NOTE_HEADER:]
        return note.rstrip(b"\0").decode("ascii", "backslashreplace") if note.startswith(b"synthetic") else note.hex()

    @property
    def kind(self) -> Literal["vendor", "synthetic"]:
        """Whether somebody published it or a model's tool made it up."""
        return "synthetic" if self.build_id.startswith("synthetic") else "vendor"

    def signature(self, family: str) -> bytes:
        """The signature for a chip family, as in "ga100": 4096 bytes, opaque. Raises ChipNotSupported when the image has none for it."""
        if family not in self.signatures:
            raise ChipNotSupported(
                f"the image carries no signature for {family}",
                expected=_PREFIX + family,
                seen=", ".join(self.signatures) or "none",
                where=self._source.name,
                remedy="install the image that belongs to this chip: nvcore firmware fetch",
            )
        data = self._elf.read(_PREFIX + family, limit=_SIGNATURE_SIZE)
        if len(data) != _SIGNATURE_SIZE:
            raise FirmwareFormatError("signature of another size", expected=_SIGNATURE_SIZE, seen=len(data), where=self._source.name)
        return data

    def read_into(self, view: memoryview, offset: int = 0) -> None:
        """Fill `view` with `.fwimage` from `offset` on; `view` must not reach beyond its end."""
        if offset < 0 or offset + len(view) > self.size:
            raise FirmwareFormatError(
                "read beyond the GSP image",
                expected=f"inside {self.size} bytes",
                seen=f"{len(view)} bytes at {offset:#x}",
                where=self._source.name,
            )
        self._source.read_into(self._at + offset, view, "GSP image")

    def close(self) -> None:
        """Close the file."""
        self._source.close()
