"""The GPU's memory management: page tables as hardware walks them, formats 2 and 3.

Owns the entry layouts (its own, on purpose: the code that writes tables lives elsewhere and must be able to disagree), the walk, and the
translation cache. Never writes memory. Runs under the device's lock.
Source: device-model.md 7 (Linux 7.3 nouveau nvkm/subdev/mmu; open-gpu-kernel-modules 570.144 dev_mmu.h).
"""

from __future__ import annotations

from typing import Final

from nvcore_softgpu.ports import Aperture, Memory, Violations

__all__ = ["Leaf", "Mmu", "Root", "TranslationFault"]

Root = tuple[Aperture, int]
"""Where a page directory lies: aperture and address in bytes."""

_VRAM: Final = Aperture.VRAM
_SYSTEM: Final = Aperture.SYSTEM
_DIRECTORY_APERTURE: Final = (None, _VRAM, _SYSTEM, _SYSTEM)
_LEAF_APERTURE: Final = (_VRAM, None, _SYSTEM, _SYSTEM)
_CACHE_LIMIT: Final = 1 << 16
_M25: Final = ((1 << 25) - 1) << 8  # address >> 12 of a video entry, bits 32:8
_M46: Final = ((1 << 46) - 1) << 8  # address >> 12 of a system entry, bits 53:8
_M29: Final = ((1 << 29) - 1) << 4  # address >> 8 of a video big table, bits 32:4
_M50: Final = ((1 << 50) - 1) << 4  # address >> 8 of a system big table, bits 53:4
_M40: Final = ((1 << 40) - 1) & ~0xFFF  # format 3: video address in place, bits 39:12
_M52: Final = ((1 << 52) - 1) & ~0xFFF
_B40: Final = ((1 << 40) - 1) & ~0xFF
_B52: Final = ((1 << 52) - 1) & ~0xFF


class TranslationFault(Exception):
    """A virtual address does not translate. Not an error of the model: the host engine turns it into a channel fault."""

    def __init__(self, address: int, why: str) -> None:
        super().__init__(f"{why} at virtual address {address:#x}")
        self.address = address
        self.why = why


class Leaf:
    """One translation: virtual page `base` of 1 << shift bytes at `physical` of `aperture` (None: sparse, reads zero and loses writes)."""

    __slots__ = ("aperture", "base", "entries", "kind", "physical", "read_only", "shift", "size", "stale")

    def __init__(self, aperture: Aperture | None, base: int, shift: int, physical: int, read_only: bool, kind: int) -> None:
        self.aperture = aperture
        self.base = base
        self.shift = shift
        self.size = 1 << shift
        self.physical = physical
        self.read_only = read_only
        self.kind = kind
        self.stale = False
        self.entries: list[tuple[Aperture, int, bytes]] = []


class Mmu:
    """The walker and the cache of one GPU. version: 2 (Turing to Ada, 49-bit addresses) or 3 (Hopper on, 57-bit)."""

    def __init__(self, memory: Memory, violations: Violations, version: int) -> None:
        self._read = memory.read
        self._violations = violations
        self.version = version
        self.bits = 49 if version == 2 else 57
        self._levels = (47, 38, 29) if version == 2 else (56, 47, 38, 29)
        self._cache: dict[tuple[Root, int], Leaf] = {}
        self.walks = 0
        self.invalidates = 0

    def invalidate(self) -> None:
        """Drop every cached translation."""
        self._cache.clear()
        self.invalidates += 1

    def forget(self, root: Root) -> None:
        """Drop what was cached of one address space."""
        self._cache = {key: leaf for key, leaf in self._cache.items() if key[0] != root}

    def translate(self, root: Root, address: int) -> Leaf:
        """The leaf that holds a virtual address. Raises TranslationFault. Invalid translations are not cached, as in hardware's favour.

        A cached leaf whose entries changed in memory without an invalidate is used all the same, and is a violation once.
        """
        key = (root, address >> 12)
        leaf = self._cache.get(key)
        if leaf is None:
            leaf = self._walk(root, address)
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            self._cache[key] = leaf
            return leaf
        if not leaf.stale:
            read = self._read
            for aperture, place, raw in leaf.entries:
                if read(aperture, place, len(raw)) != raw:
                    leaf.stale = True
                    self._violations.violation("stale-translation", f"virtual {leaf.base:#x}: entry at {place:#x} changed, no invalidate")
                    break
        return leaf

    # --- the walk -----------------------------------------------------------------------------------------------------------------

    def _walk(self, root: Root, address: int) -> Leaf:
        self.walks += 1
        if address >> self.bits:
            raise TranslationFault(address, "address wider than the format")
        aperture, table = root
        entries: list[tuple[Aperture, int, bytes]] = []
        for shift in self._levels:
            mask = 0x3 if shift == 47 and self.version == 2 else 0x1 if shift == 56 else 0x1FF
            place = table + ((address >> shift) & mask) * 8
            raw = self._fetch(entries, aperture, place, 8)
            entry = int.from_bytes(raw, "little")
            if entry & 1 and shift == 29:
                return self._leaf(entries, address, entry, shift)
            following = self._directory(entry, address)
            if following is None:
                return self._sparse(entries, address, shift)
            aperture, table = following
        return self._last(entries, aperture, table, address)

    def _last(self, entries: list[tuple[Aperture, int, bytes]], aperture: Aperture, table: int, address: int) -> Leaf:
        """The 16-byte entry at shift 21 and what it leads to: a 2 MiB page, a 64 KiB table, a 4 KiB table."""
        place = table + ((address >> 21) & 0xFF) * 16
        raw = self._read(aperture, place, 16)
        low = int.from_bytes(raw[:8], "little")
        high = int.from_bytes(raw[8:], "little")
        entries.append((aperture, place, raw[:8]))
        if low & 1:
            return self._leaf(entries, address, low, 21)
        big = _DIRECTORY_APERTURE[low >> 1 & 3]
        small = _DIRECTORY_APERTURE[high >> 1 & 3]
        if big is not None:
            base = self._big_table(low, big)
            entry = int.from_bytes(self._fetch(entries, big, base + ((address >> 16) & 0x1F) * 8, 8), "little")
            if entry & 1:
                return self._leaf(entries, address, entry, 16)
            if self._big_sparse(entry):
                return self._sparse(entries, address, 16)
            if self._big_hides(entry):
                raise TranslationFault(address, "64 KiB entry forbids the small table")
        entries.append((aperture, place + 8, raw[8:]))  # only now did the second half matter
        if small is None:
            if big is None and self._directory_sparse(low):
                return self._sparse(entries, address, 21)
            raise TranslationFault(address, "no table")
        base = self._address(high, small)
        entry = int.from_bytes(self._fetch(entries, small, base + ((address >> 12) & 0x1FF) * 8, 8), "little")
        if entry & 1:
            return self._leaf(entries, address, entry, 12)
        if self._big_sparse(entry):
            return self._sparse(entries, address, 12)
        raise TranslationFault(address, "invalid page")

    def _fetch(self, entries: list[tuple[Aperture, int, bytes]], aperture: Aperture, place: int, size: int) -> bytes:
        raw = self._read(aperture, place, size)
        entries.append((aperture, place, raw))
        return raw

    def _address(self, entry: int, aperture: Aperture) -> int:
        """The address of a directory entry or of a page-table entry."""
        if self.version == 2:
            return (entry & (_M25 if aperture is _VRAM else _M46)) << 4
        return entry & (_M40 if aperture is _VRAM else _M52)

    def _big_table(self, entry: int, aperture: Aperture) -> int:
        """The address of a 64 KiB table, 256-byte aligned."""
        if self.version == 2:
            return (entry & (_M29 if aperture is _VRAM else _M50)) << 4
        return entry & (_B40 if aperture is _VRAM else _B52)

    def _directory(self, entry: int, address: int) -> Root | None:
        """The table behind a directory entry; None when it is sparse."""
        aperture = _DIRECTORY_APERTURE[entry >> 1 & 3]
        if entry & 1:
            raise TranslationFault(address, "page entry where the format has none")
        if aperture is None:
            if self._directory_sparse(entry):
                return None
            raise TranslationFault(address, "invalid directory entry")
        return aperture, self._address(entry, aperture)

    def _directory_sparse(self, entry: int) -> bool:
        return bool(entry >> 3 & 1)  # format 2: volatile bit; format 3: the codes 1 and 3 both have bit 0 of the PCF set

    def _big_sparse(self, entry: int) -> bool:
        return bool(entry >> 3 & 1) if self.version == 2 else entry >> 3 & 0x1F == 1

    def _big_hides(self, entry: int) -> bool:
        return bool(entry >> 5 & 1) if self.version == 2 else entry >> 3 & 0x1F in (2, 3)

    def _sparse(self, entries: list[tuple[Aperture, int, bytes]], address: int, shift: int) -> Leaf:
        leaf = Leaf(None, address >> shift << shift, shift, 0, False, 0)
        leaf.entries = entries
        return leaf

    def _leaf(self, entries: list[tuple[Aperture, int, bytes]], address: int, entry: int, shift: int) -> Leaf:
        aperture = _LEAF_APERTURE[entry >> 1 & 3]
        if aperture is None:
            raise TranslationFault(address, "peer memory, and there is no peer")
        physical = self._address(entry, aperture)
        base = address >> shift << shift
        if physical & ((1 << shift) - 1):
            self._violations.violation("unaligned-page", f"virtual {base:#x}: {1 << shift:#x} bytes at {physical:#x}")
            physical = physical >> shift << shift
        kind = entry >> 56 & 0xFF if self.version == 2 else entry >> 8 & 0xF
        leaf = Leaf(aperture, base, shift, physical, bool(entry >> 6 & 1 if self.version == 2 else entry >> 5 & 1), kind)
        leaf.entries = entries
        return leaf
