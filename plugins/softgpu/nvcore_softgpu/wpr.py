"""The WPR meta, the radix3 list and the layout of the protected region, as the boot firmware checks them.

Owns the field table of the WPR meta and the checks. Reads memory, writes nothing. Runs under the device's lock, once a boot.
Source: gsp-boot.md 4.1, 4.3, 4.4, 6 (open-gpu-kernel-modules 570.144 gsp_fw_wpr_meta.h; nova-core fb.rs; checks: section 10).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from nvcore_softgpu.chips import Chip
from nvcore_softgpu.ports import Aperture, ImageShelf, KnownImage, Memory, Violations

__all__ = ["WPR_MAGIC", "BootRefusal", "check_image", "check_layout", "choose_layout", "parse_meta", "radix3_pages"]

WPR_MAGIC: Final = 0xDC3AAE21371A60B3
PAGE: Final = 4096
KIB: Final = 1 << 10
MIB: Final = 1 << 20
_SYSTEM: Final = Aperture.SYSTEM
_QUADS: Final = (
    "magic",
    "revision",
    "sysmemAddrOfRadix3Elf",
    "sizeOfRadix3Elf",
    "sysmemAddrOfBootloader",
    "sizeOfBootloader",
    "bootloaderCodeOffset",
    "bootloaderDataOffset",
    "bootloaderManifestOffset",
    "sysmemAddrOfSignature",
    "sizeOfSignature",
    "gspFwRsvdStart",
    "nonWprHeapOffset",
    "nonWprHeapSize",
    "gspFwWprStart",
    "gspFwHeapOffset",
    "gspFwHeapSize",
    "gspFwOffset",
    "bootBinOffset",
    "frtsOffset",
    "frtsSize",
    "gspFwWprEnd",
    "fbSize",
    "vgaWorkspaceOffset",
    "vgaWorkspaceSize",
    "bootCount",
)  # offsets 0 to 207


class BootRefusal(Exception):
    """The boot firmware says no: `code` goes to the mailbox, the text to the journal."""

    def __init__(self, code: int, name: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.name = name


def parse_meta(raw: bytes) -> dict[str, int]:
    """The 256 bytes of a WPR meta by field name."""
    meta = dict(zip(_QUADS, struct.unpack_from("<26Q", raw), strict=True))
    meta["gspFwHeapVfPartitionCount"] = raw[240]
    meta["flags"] = raw[241]
    meta["pmuReservedSize"] = int.from_bytes(raw[244:248], "little")
    meta["verified"] = int.from_bytes(raw[248:256], "little")
    return meta


def _aligned(meta: dict[str, int], name: str, unit: int) -> None:
    if meta[name] % unit:
        raise BootRefusal(0x03, "unaligned-wpr", f"{name} {meta[name]:#x} is not a multiple of {unit:#x}")


def check_sources(meta: dict[str, int]) -> None:
    """Magic, revision and the host addresses. Raises BootRefusal."""
    if meta["magic"] != WPR_MAGIC:
        raise BootRefusal(0x01, "wpr-meta-magic", f"magic {meta['magic']:#x}")
    if meta["revision"] != 1:
        raise BootRefusal(0x02, "wpr-meta-revision", f"revision {meta['revision']}")
    if meta["verified"]:
        raise BootRefusal(0x02, "wpr-meta-verified", "verified is set before the boot")
    _aligned(meta, "sysmemAddrOfRadix3Elf", PAGE)
    _aligned(meta, "sysmemAddrOfSignature", 256)
    _aligned(meta, "sysmemAddrOfBootloader", 256)
    if meta["sizeOfSignature"] != PAGE:
        raise BootRefusal(0x06, "signature-size", f"{meta['sizeOfSignature']} bytes")
    if not meta["sizeOfBootloader"] or not meta["sizeOfRadix3Elf"]:
        raise BootRefusal(0x04, "empty-image", "bootloader or image of size 0")
    for name in ("bootloaderCodeOffset", "bootloaderDataOffset", "bootloaderManifestOffset"):
        if meta[name] >= meta["sizeOfBootloader"]:
            raise BootRefusal(0x04, "bootloader-offset", f"{name} {meta[name]:#x} outside {meta['sizeOfBootloader']:#x} bytes")


def check_layout(meta: dict[str, int], chip: Chip, vram_size: int) -> None:
    """The layout that a driver chose: alignment, order, no overlap, inside VRAM. Raises BootRefusal."""
    for name, unit in (
        ("gspFwWprStart", MIB),
        ("gspFwHeapOffset", MIB),
        ("gspFwHeapSize", MIB),
        ("nonWprHeapOffset", MIB),
        ("gspFwOffset", 64 * KIB),
        ("bootBinOffset", PAGE),
        ("frtsOffset", PAGE),
        ("gspFwWprEnd", 128 * KIB),
    ):
        _aligned(meta, name, unit)
    if meta["fbSize"] != vram_size:
        raise BootRefusal(0x05, "fb-size", f"fbSize {meta['fbSize']:#x}, VRAM {vram_size:#x}")
    if meta["frtsSize"] != chip.frts_size:
        raise BootRefusal(0x05, "frts-size", f"frtsSize {meta['frtsSize']:#x}, this chip has {chip.frts_size:#x}")
    steps = (
        ("non-WPR heap", meta["nonWprHeapOffset"], meta["nonWprHeapSize"]),
        ("WPR meta", meta["gspFwWprStart"], 256),
        ("heap", meta["gspFwHeapOffset"], meta["gspFwHeapSize"]),
        ("image", meta["gspFwOffset"], meta["sizeOfRadix3Elf"]),
        ("boot binary", meta["bootBinOffset"], meta["sizeOfBootloader"]),
        ("FRTS", meta["frtsOffset"], meta["frtsSize"]),
        ("end of the WPR", meta["gspFwWprEnd"], 0),
        ("VGA workspace", meta["vgaWorkspaceOffset"], meta["vgaWorkspaceSize"]),
        ("end of VRAM", vram_size, 0),
    )
    for (name, start, size), (following, place, _) in pairwise(steps):
        if start + size > place:
            raise BootRefusal(0x05, "wpr-overlap", f"{name} {start:#x}+{size:#x} reaches into {following} at {place:#x}")


def choose_layout(meta: dict[str, int], vram_size: int, frts_from_end: int, frts_size: int) -> dict[str, int]:
    """The layout that the GPU chooses on chips where the driver gives sizes only (model convention)."""
    result = dict(meta)
    frts = vram_size - frts_from_end
    boot = (frts - meta["sizeOfBootloader"]) // PAGE * PAGE
    image = (boot - meta["sizeOfRadix3Elf"]) // (64 * KIB) * (64 * KIB)
    heap = (image - meta["gspFwHeapSize"]) // MIB * MIB
    start = heap - MIB
    other = (start - meta["nonWprHeapSize"]) // MIB * MIB
    if other < MIB or frts_from_end < frts_size or not meta["gspFwHeapSize"]:
        raise BootRefusal(0x05, "wpr-overlap", f"no room for the firmware: heap {meta['gspFwHeapSize']:#x}, VRAM {vram_size:#x}")
    result.update(
        frtsOffset=frts,
        frtsSize=frts_size,
        gspFwWprEnd=frts + frts_size,
        bootBinOffset=boot,
        gspFwOffset=image,
        gspFwHeapOffset=heap,
        gspFwWprStart=start,
        nonWprHeapOffset=other,
        gspFwRsvdStart=other,
        fbSize=vram_size,
        vgaWorkspaceOffset=vram_size - max(meta["vgaWorkspaceSize"], 0x20000),
    )
    return result


def radix3_pages(memory: Memory, violations: Violations, root: int, size: int) -> Iterator[int]:
    """Bus addresses of the image's pages in order. Raises BootRefusal for misaligned entries; used entries may be anywhere.

    Entries behind the last one must be zero: they are a violation otherwise, since real firmware may follow them.
    """
    pages = -(-size // PAGE)
    counts = (-(-pages // (512 * 512)), -(-pages // 512), pages)
    if counts[0] > 512:
        raise BootRefusal(0x04, "radix3-size", f"{size} bytes need more than three levels")
    tables = [root]
    for level, count in enumerate(counts):
        following: list[int] = []
        for number, table in enumerate(tables):
            entries = struct.unpack("<512Q", memory.read(_SYSTEM, table, PAGE))
            used = min(512, count - number * 512)
            for place, entry in enumerate(entries[:used]):
                if entry % PAGE or not entry or entry == 0xFFFFFFFFFFFFFFFF:
                    raise BootRefusal(0x04, "radix3-entry", f"level {level}, entry {number * 512 + place}: {entry:#x}")
            if any(entries[used:]):
                violations.violation("radix3-padding", f"level {level}: entries behind the last are not zero")
            if level == 2:
                yield from entries[:used]
            else:
                following.extend(entries[:used])
        tables = following


def check_image(memory: Memory, violations: Violations, meta: dict[str, int], chip: Chip, shelf: ImageShelf | None) -> KnownImage | None:
    """Walk the radix3 list and compare with the file, page by page; check the signature blob. Raises BootRefusal.

    Without a file that could be this one, only what an image must look like is checked; the known image is returned otherwise.
    """
    size = meta["sizeOfRadix3Elf"]
    read = memory.read
    candidates = list(shelf.candidates(chip.name)) if shelf is not None else []
    fitting = [known for known in candidates if len(known.image) == size]
    if candidates and not fitting:
        raise BootRefusal(0x07, "image-unknown", f"no image for {chip.name} has {size} bytes")
    tail = size % PAGE
    last = -(-size // PAGE) - 1
    for index, address in enumerate(radix3_pages(memory, violations, meta["sysmemAddrOfRadix3Elf"], size)):
        page = read(_SYSTEM, address, PAGE)
        if index == 0 and not fitting and chip.riscv == "turing" and page[:4] != b"\x7fELF":
            raise BootRefusal(0x07, "image-format", f"the image begins with {page[:4].hex()}, not with an ELF header")
        if index == last and tail and any(page[tail:]):
            raise BootRefusal(0x07, "image-padding", "the last page is not zero behind the image")
        if fitting:
            start = index * PAGE
            matching = [known for known in fitting if bytes(known.image[start : start + PAGE]) == page[: min(PAGE, size - start)]]
            if not matching:
                raise BootRefusal(0x07, "image-differs", f"page {index} at {address:#x} is not that of any image for {chip.name}")
            fitting = matching
    blob = read(_SYSTEM, meta["sysmemAddrOfSignature"], meta["sizeOfSignature"])
    if not fitting:
        if not any(blob):
            raise BootRefusal(0x06, "signature-empty", "the signature is all zero")
        return None
    for known in fitting:
        if known.signature(chip.signature) == blob:
            return known
    raise BootRefusal(0x06, "bad-signature", f"the signature is not section {chip.signature} of the image")
