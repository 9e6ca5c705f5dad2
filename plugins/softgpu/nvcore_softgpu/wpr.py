"""The WPR meta, the radix3 list and the layout of the protected region, as the boot firmware checks them.

Owns the field table of the WPR meta and the checks. Reads memory, writes nothing. Runs under the device's lock, once a boot.
Source: gsp-boot.md 4.1, 4.3, 4.4, 6 (open-gpu-kernel-modules 570.144 gsp_fw_wpr_meta.h; nova-core fb.rs; checks: section 10).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from nvcore_softgpu.chips import Chip
from nvcore_softgpu.ports import Aperture, ImageShelf, KnownBootloader, KnownImage, Memory, Violations

__all__ = [
    "REFUSALS",
    "WPR_MAGIC",
    "BootRefusal",
    "check_bootloader",
    "check_image",
    "check_layout",
    "check_sources",
    "choose_layout",
    "parse_meta",
    "radix3_pages",
]

WPR_MAGIC: Final = 0xDC3AAE21371A60B3
"""First word of the structure that describes the region (GspFwWprMeta)."""

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


_MOST: Final[Mapping[str, int]] = {"sizeOfBootloader": MIB, "sizeOfRadix3Elf": 256 * MIB}
"""Several times the largest of any release: what is above would keep everything else waiting while it is read."""

_PARTS: Final = ("bootloaderCodeOffset", "bootloaderDataOffset", "bootloaderManifestOffset")

REFUSALS: Final[Mapping[int, str]] = {
    0x01: "magic",
    0x02: "revision",
    0x03: "alignment",
    0x04: "lists and sizes",
    0x05: "layout",
    0x06: "signature",
    0x07: "image or bootloader",
    0x08: "WPR2 is up already",
    0x09: "nothing or the wrong program is loaded",
    0x0A: "what the mailboxes point to",
    0x0B: "the firmware did not start",
    0x0C: "the falcon was not prepared",
}
"""What a boot program leaves in mailbox 0 when it refuses, and why it does (model convention)."""


class BootRefusal(Exception):
    """The boot firmware says no: `code` (of `REFUSALS`) goes to the mailbox, the text to the journal."""

    def __init__(self, code: int, name: str, text: str) -> None:
        super().__init__(text)
        assert code in REFUSALS
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
    for name, most in _MOST.items():
        if not meta[name]:
            raise BootRefusal(0x04, "empty-image", f"{name} is 0")
        if meta[name] > most:
            raise BootRefusal(0x04, "image-size", f"{name} {meta[name]:#x}, at most {most:#x}")
    for name in _PARTS:
        if meta[name] >= meta["sizeOfBootloader"]:
            raise BootRefusal(0x04, "bootloader-offset", f"{name} {meta[name]:#x} outside {meta['sizeOfBootloader']:#x} bytes")


class Exact(NamedTuple):
    """A field that has one right value, given the others (`rest`: by name) and the size of VRAM."""

    field: str
    value: Callable[[Mapping[str, int], int], int]


_UNITS: Final[Sequence[tuple[str, int]]] = (
    ("gspFwWprStart", MIB),
    ("gspFwHeapOffset", MIB),
    ("gspFwHeapSize", MIB),
    ("nonWprHeapOffset", MIB),
    ("gspFwOffset", 64 * KIB),
    ("bootBinOffset", PAGE),
    ("frtsOffset", PAGE),
    ("gspFwWprEnd", 128 * KIB),
)
"""Field, and what it is a multiple of (gsp-boot.md 4.1)."""

_EXACT_BOOTER: Final[Sequence[Exact]] = (
    Exact("gspFwWprStart", lambda rest, _: rest["gspFwHeapOffset"] - MIB),  # 4.1, row 8
    Exact("nonWprHeapSize", lambda _, __: MIB),  # row 9
    Exact("nonWprHeapOffset", lambda rest, _: rest["gspFwWprStart"] - MIB),
    Exact("gspFwRsvdStart", lambda rest, _: rest["nonWprHeapOffset"]),  # row 10
    Exact("gspFwWprEnd", lambda rest, _: rest["frtsOffset"] + rest["frtsSize"]),  # row 4
    Exact("vgaWorkspaceSize", lambda rest, vram: vram - rest["vgaWorkspaceOffset"]),  # row 1
    Exact("bootCount", lambda _, __: 0),
    Exact("pmuReservedSize", lambda _, __: 0),  # 4.3: Blackwell alone has one
)
"""On chips whose driver chooses the layout."""

_EXACT_FSP: Final[Sequence[Exact]] = (
    Exact("nonWprHeapSize", lambda _, __: 2 * MIB),  # 4.3, GH100
    Exact("frtsSize", lambda _, __: MIB),
    Exact("vgaWorkspaceSize", lambda _, __: 128 * KIB),
    Exact("pmuReservedSize", lambda _, __: 0),
    *(
        Exact(name, lambda _, __: 0)
        for name in (
            "gspFwRsvdStart", "nonWprHeapOffset", "gspFwWprStart", "gspFwHeapOffset", "gspFwOffset", "bootBinOffset", "frtsOffset",
            "gspFwWprEnd", "fbSize", "vgaWorkspaceOffset", "bootCount",
        )
    ),
)  # fmt: skip
"""On chips whose GPU chooses it: sizes only, everything else is zero."""

_LEAST_HEAP: Final[Mapping[str, int]] = {"turing": 64 * MIB, "ga102": 84 * MIB}
"""By core: libos 2 on Turing and GA100, libos 3 from GA102 on, whose lowest minimum is that of 535 (4.2)."""
_LEAST_HOST_HEAP: Final = 549 * MIB  # of a vGPU host: the lowest default of any release (4.2, 535)
_MOST_PARTITIONS: Final = 48  # 4.2: 32, and 48 in the newest release


def _check_exact(meta: Mapping[str, int], rows: Sequence[Exact], vram_size: int) -> None:
    for row in rows:
        wanted = row.value(meta, vram_size)
        if meta[row.field] != wanted:
            raise BootRefusal(0x05, "wpr-layout", f"{row.field} {meta[row.field]:#x}, expected {wanted:#x}")


def _check_heap(meta: Mapping[str, int], chip: Chip) -> None:
    """The firmware's heap: what the release needs at least, and what a host of vGPUs needs."""
    partitions, heap = meta["gspFwHeapVfPartitionCount"], meta["gspFwHeapSize"]
    least = _LEAST_HOST_HEAP if partitions else _LEAST_HEAP[chip.riscv]
    if heap < least:
        raise BootRefusal(0x05, "heap-size", f"heap of {heap:#x} bytes for {partitions} partitions, at least {least:#x}")
    if partitions > _MOST_PARTITIONS:
        raise BootRefusal(0x05, "heap-partitions", f"{partitions} partitions, at most {_MOST_PARTITIONS}")


def check_layout(meta: dict[str, int], chip: Chip, vram_size: int) -> None:
    """The layout that a driver chose: alignment, order, no overlap, inside VRAM, sizes. Raises BootRefusal."""
    for name, unit in _UNITS:
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
    _check_exact(meta, _EXACT_BOOTER, vram_size)
    _check_heap(meta, chip)


def choose_layout(meta: dict[str, int], chip: Chip, vram_size: int, frts_from_end: int, frts_size: int) -> dict[str, int]:
    """The layout that the GPU chooses on chips where the driver gives sizes only (model convention). Raises BootRefusal."""
    _check_exact(meta, _EXACT_FSP, vram_size)
    _check_heap(meta, chip)
    if frts_from_end % (128 * KIB):  # 4.3: 2 MiB, 128 KiB in the newest release
        raise BootRefusal(0x03, "unaligned-wpr", f"FRTS {frts_from_end:#x} below the end of VRAM is not a multiple of 128 KiB")
    result = dict(meta)
    frts = vram_size - frts_from_end
    boot = (frts - meta["sizeOfBootloader"]) // PAGE * PAGE
    image = (boot - meta["sizeOfRadix3Elf"]) // (64 * KIB) * (64 * KIB)
    heap = (image - meta["gspFwHeapSize"]) // MIB * MIB
    start = heap - MIB
    other = (start - meta["nonWprHeapSize"]) // MIB * MIB
    if other < MIB or frts_from_end < frts_size:
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
        vgaWorkspaceOffset=vram_size - meta["vgaWorkspaceSize"],
    )
    return result


def radix3_pages(memory: Memory, violations: Violations, root: int, size: int) -> Iterator[int]:
    """Bus addresses of the image's pages in order. Raises BootRefusal for misaligned entries; used entries may be anywhere.

    Entries behind the last one must be zero: they are a violation otherwise, since real firmware may follow them.
    """
    pages = -(-size // PAGE)
    counts = (1, -(-pages // 512), pages)  # the largest size allowed needs one page of the first level
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


def check_bootloader(
    memory: Memory, meta: Mapping[str, int], chip: Chip, known: KnownImage | None, shelf: ImageShelf | None
) -> KnownBootloader | None:
    """The GSP's bootloader, which runs before the image: reachable, not empty, its parts where the format has them; with a folder that has
    the file of the same release, that file's bytes. Answers that file. Raises BootRefusal."""
    address, size = meta["sysmemAddrOfBootloader"], meta["sizeOfBootloader"]
    code, data, manifest = (meta[name] for name in _PARTS)
    if size % PAGE:  # 5.3: so in every release
        raise BootRefusal(0x04, "bootloader-size", f"{size:#x} bytes are not whole pages")
    # 5.3: no monitor before GA102, so no parts; from then on manifest, data and code follow each other
    if (code or data or manifest) if chip.riscv == "turing" else not manifest < data < code:
        raise BootRefusal(0x04, "bootloader-offset", f"code {code:#x}, data {data:#x}, manifest {manifest:#x}")
    if not memory.reachable(_SYSTEM, address, size):
        raise BootRefusal(0x04, "bootloader-unmapped", f"{size:#x} bytes at {address:#x}")
    image = memory.read(_SYSTEM, address, size)
    if not any(image):
        raise BootRefusal(0x07, "bootloader-empty", f"{size:#x} bytes of zeros")
    file = shelf.bootloader(chip.name, known.version) if shelf is not None and known is not None else None
    if file is None:
        return None
    if image != file.image or (code, data, manifest) != (file.code[0], file.data[0], file.manifest[0]):
        raise BootRefusal(0x07, "bootloader-differs", f"{size:#x} bytes at {address:#x} are not the file's, or the offsets are not")
    return file
