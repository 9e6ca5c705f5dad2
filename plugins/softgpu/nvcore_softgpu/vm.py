"""A channel's virtual memory: bytes through the walker, page by page.

Owns no state but the root it was made for. Raises TranslationFault; refuses WPR2. Runs under the device's lock.
Source: device-model.md 7.3 (instance block), DESIGN 6.
"""

from __future__ import annotations

from typing import Final

from nvcore_softgpu.mmu import Mmu, Root, TranslationFault
from nvcore_softgpu.ports import Aperture, Memory, Violations
from nvcore_softgpu.windows import Region

__all__ = ["VirtualMemory"]

_VRAM: Final = Aperture.VRAM


class VirtualMemory:
    """Reads and writes of one address space."""

    def __init__(self, memory: Memory, mmu: Mmu, root: Root, protected: Region, violations: Violations) -> None:
        self._memory = memory
        self._mmu = mmu
        self.root = root
        self._protected = protected
        self._violation = violations.violation

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes; sparse pages read zero."""
        parts = []
        while size > 0:
            leaf = self._mmu.translate(self.root, address)
            inside = address - leaf.base
            step = min(size, leaf.size - inside)
            if leaf.aperture is None:
                parts.append(bytes(step))
            elif self._refused(leaf.aperture, leaf.physical + inside, step):
                parts.append(b"\xff" * step)
            else:
                parts.append(self._memory.read(leaf.aperture, leaf.physical + inside, step))
            address += step
            size -= step
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Store bytes; sparse pages lose them, read-only pages fault."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            leaf = self._mmu.translate(self.root, address + done)
            inside = address + done - leaf.base
            step = min(len(view) - done, leaf.size - inside)
            if leaf.read_only:
                raise TranslationFault(address + done, "write to a read-only page")
            if leaf.aperture is not None and not self._refused(leaf.aperture, leaf.physical + inside, step):
                self._memory.write(leaf.aperture, leaf.physical + inside, view[done : done + step])
            done += step

    def read_physical(self, aperture: Aperture, address: int, size: int) -> bytes:
        """Bytes past the tables, as a copy in physical mode takes them: the protected region is protected from it too."""
        return b"\xff" * size if self._refused(aperture, address, size) else self._memory.read(aperture, address, size)

    def write_physical(self, aperture: Aperture, address: int, data: bytes | memoryview) -> None:
        """The same for a write."""
        if not self._refused(aperture, address, len(data)):
            self._memory.write(aperture, address, data)

    def _refused(self, aperture: Aperture, physical: int, size: int) -> bool:
        region = self._protected() if aperture is _VRAM else None
        if region is not None and physical < region[1] and region[0] < physical + size:
            self._violation("wpr2-access", f"an engine reaches into WPR2 at {physical:#x}")
            return True
        return False
