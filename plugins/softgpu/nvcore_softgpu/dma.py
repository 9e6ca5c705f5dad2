"""Host memory that an in-process device can reach.

Owns one buffer: a memfd, its mapping, its bus addresses. Addresses are the model's own choice, never reused, and may be scattered page by
page on purpose, because real ones are. Made and closed under the device's lock.
Source: nvcore.api.device.DmaBuffer.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from math import gcd

from nvcore.api.errors import ContractError, OutOfResources
from nvcore.api.marks import may_sleep, signalling_safe
from nvcore_softgpu.memory import PAGE, sealed_memfd

__all__ = ["SCATTER_FROM", "SoftDmaBuffer"]

SCATTER_FROM = 256 << 10  # smaller buffers are in one piece: what a boot ROM reads (FMC, bootloader) must be, and kernels give that


def _shuffle(count: int) -> list[int]:
    """A fixed permutation of `count` pages without neighbours in order: multiples of a step that has no common divisor with the count."""
    step = max(1, int(count * 0.618))
    while gcd(step, count) != 1:
        step += 1
    return [index * step % count for index in range(count)]


class SoftDmaBuffer:
    """`nvcore.api.device.DmaBuffer`. pages: for each bus page the buffer's page, None when they are in order."""

    def __init__(self, size: int, address: int, label: str, scattered: bool, unmap: Callable[[int, int], int]) -> None:
        self.size = -(-size // PAGE) * PAGE
        self.label = label
        self.address = address
        self.closed = False
        self._unmap = unmap
        try:
            self.fd = sealed_memfd(f"softgpu-dma-{label}"[:200], self.size)
        except OSError as problem:
            raise OutOfResources("no memory for a DMA buffer", expected=f"{self.size} bytes", seen=str(problem), where=label) from problem
        try:
            self._map = mmap.mmap(self.fd, self.size)
        except OSError as problem:
            os.close(self.fd)
            raise OutOfResources("no address range for a DMA buffer", seen=str(problem), where=label) from problem
        self.view = memoryview(self._map)
        self.pages = _shuffle(self.size // PAGE) if scattered and self.size >= SCATTER_FROM else None
        self._bus_page: list[int] | None = None
        if self.pages is not None:
            places = [0] * len(self.pages)
            for bus, page in enumerate(self.pages):
                places[page] = bus
            self._bus_page = places

    def device_view(self) -> memoryview:
        """A second view of the same memory, for the device's map."""
        return memoryview(self._map)

    @property
    def contiguous(self) -> bool:
        """Whether bus addresses run on over the whole buffer."""
        return self._bus_page is None

    @signalling_safe
    def bus_address(self, offset: int = 0) -> int:
        """The address that the device uses for byte `offset`."""
        if not 0 <= offset < self.size:
            raise ContractError("offset outside a DMA buffer", expected=f"below {self.size:#x}", seen=hex(offset), where=self.label)
        if self._bus_page is None:
            return self.address + offset
        return self.address + self._bus_page[offset >> 12] * PAGE + (offset & (PAGE - 1))

    @may_sleep
    def close(self) -> None:
        """Unmap it from the device, then free it. A view that somebody still holds keeps the memory, not the mapping of the device."""
        if self.closed:
            return
        self.closed = True
        self._unmap(self.address, self.size)
        self.view.release()
        try:
            self._map.close()
        except BufferError:
            del self._map  # freed with the last view
        os.close(self.fd)
