"""What hangs below a grant: closed once, by whoever comes first, and forgotten by its grant then.

Owns the link to the grant and whether it is closed. Any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvcore.api.device import DmaBuffer
from nvcore.api.marks import may_sleep

if TYPE_CHECKING:
    from nvcore.gpu.grants import GpuGrant

__all__ = ["GrantBuffer", "Owned"]


class Owned:
    """Base of spaces, channels, leases and buffers."""

    __slots__ = ("closed", "grant")

    def __init__(self, grant: GpuGrant) -> None:
        self.grant, self.closed = grant, False

    def first_close(self) -> bool:
        """Whether nobody closed it before; it is closed now, and its grant's no more."""
        first, self.closed = not self.closed, True
        if first:
            self.grant.forget(self)
        return first


class GrantBuffer(Owned):
    """As `nvcore.api.device.DmaBuffer`; `bus_address` is the device's own bound method, so that a submission path pays nothing for the
    wrapping."""

    __slots__ = ("_inner", "bus_address", "contiguous", "fd", "size", "view")

    def __init__(self, grant: GpuGrant, inner: DmaBuffer) -> None:
        super().__init__(grant)
        self._inner, self.bus_address, self.contiguous = inner, inner.bus_address, inner.contiguous
        self.size, self.view, self.fd = inner.size, inner.view, inner.fd

    @may_sleep
    def close(self) -> None:
        """Unmap it from the device, then free it. Idempotent."""
        self.first_close()
        self.view = memoryview(b"")
        self._inner.close()
