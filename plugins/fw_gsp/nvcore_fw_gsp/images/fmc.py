"""The FMC: the first code that runs on a Hopper's or Blackwell's GSP, started by the FSP after it has checked hash and signature.

Owns nothing but its source. `verify` checks the CRC and the hash that travel with it; the boot path does not (the FSP does). Any thread.
Source: Linux 7.3 nova-core firmware/fsp.rs, nouveau nvkm/subdev/gsp/gh100.c.
"""

from __future__ import annotations

from typing import Final

from nvcore_fw_gsp.images.elf import ElfFile
from nvcore_fw_gsp.images.errors import FirmwareDamaged, FirmwareFormatError
from nvcore_fw_gsp.images.source import Source

__all__ = ["Fmc"]

_HASH_SIZE: Final = 48
_KEY_LIMIT: Final = 384
_IMAGE_LIMIT: Final = 4 << 20


class Fmc:
    """One FMC file. hash: SHA-384 of the image, 48 bytes; public_key, signature: at most 384 bytes each; size: bytes of the image."""

    __slots__ = ("_elf", "hash", "public_key", "signature", "size")

    def __init__(self, source: Source) -> None:
        self._elf = elf = ElfFile(source, 32)
        self.hash = elf.read("hash", limit=_HASH_SIZE)
        if len(self.hash) != _HASH_SIZE:
            raise FirmwareFormatError("the FMC's hash has another size", expected=_HASH_SIZE, seen=len(self.hash), where=source.name)
        self.signature = elf.read("signature", limit=_KEY_LIMIT)
        self.public_key = elf.read("publickey", limit=_KEY_LIMIT)
        self.size = elf.section("image").size
        if not 0 < self.size <= _IMAGE_LIMIT:
            raise FirmwareFormatError("the FMC's image has an odd size", expected=f"1 to {_IMAGE_LIMIT}", seen=self.size, where=source.name)

    def image(self) -> bytes:
        """The image, as it goes into memory."""
        return self._elf.read("image", limit=_IMAGE_LIMIT)

    def verify(self) -> None:
        """Compare the CRC of every section and the hash of the image with what the file says. Raises FirmwareDamaged."""
        from hashlib import sha384
        from zlib import crc32

        where = self._elf.source.name
        for name in ("hash", "signature", "publickey", "image"):
            seen = crc32(self._elf.read(name, limit=_IMAGE_LIMIT))
            expected = self._elf.section(name).info
            if seen != expected:
                raise FirmwareDamaged(f"section {name} is damaged", expected=f"CRC {expected:#010x}", seen=f"{seen:#010x}", where=where)
        digest = sha384(self.image()).digest()
        if digest != self.hash:
            raise FirmwareDamaged("the FMC's image is damaged", expected=self.hash.hex(), seen=digest.hex(), where=where)
