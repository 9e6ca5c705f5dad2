"""Host memory of one boot: named DMA buffers, freed together, never before the device has let go of them.

Owns the buffers. The opener's thread while booting, the unload afterwards; `close` is called once no DMA can come any more.
"""

from __future__ import annotations

from nvcore.api.device import Device, DmaBuffer
from nvcore.api.errors import OutOfResources

__all__ = ["HostMemory"]


class HostMemory:
    """Named buffers of `device`; a bus address above `dma_bits` is refused, because the firmware would cut it off."""

    __slots__ = ("_bits", "_device", "buffers")

    def __init__(self, device: Device, dma_bits: int) -> None:
        self._device, self._bits = device, dma_bits
        self.buffers: dict[str, DmaBuffer] = {}

    def allocate(self, name: str, size: int) -> DmaBuffer:
        """A zeroed buffer of at least `size` bytes, whole pages. Raises OutOfResources."""
        buffer = self._device.allocate_dma(-(-size // 4096) * 4096, label=f"fw_gsp {name}")
        self.buffers[name] = buffer
        last = buffer.bus_address(buffer.size - 4096)
        if max(buffer.bus_address(0), last) >> self._bits:
            raise OutOfResources(
                f"the bus gave an address that the GPU cannot reach for {name}",
                expected=f"below 2^{self._bits}",
                seen=f"{last:#x}",
                remedy="let the IOMMU give lower addresses",
            )
        return buffer

    def put(self, name: str, data: bytes | bytearray) -> DmaBuffer:
        """A buffer that begins with `data`."""
        buffer = self.allocate(name, len(data))
        buffer.view[: len(data)] = data
        return buffer

    def free(self, name: str) -> None:
        """Free one buffer early."""
        buffer = self.buffers.pop(name, None)
        if buffer is not None:
            buffer.close()

    def close(self) -> None:
        """Free all, newest first. Idempotent."""
        while self.buffers:
            self.buffers.popitem()[1].close()
