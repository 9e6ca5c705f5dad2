"""DMA buffers of a grant: the device's buffer, remembered by the grant until one of the two lets it go.

Owns nothing but the link back to the grant. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable

from nvcore.api.device import DmaBuffer
from nvcore.api.marks import may_sleep

__all__ = ["GrantBuffer"]


class GrantBuffer:
    """As `nvcore.api.device.DmaBuffer`; `bus_address` is the device's own bound method, so that a submission path pays nothing for the
    wrapping."""

    __slots__ = ("_forget", "_inner", "bus_address", "fd", "size", "view")

    def __init__(self, inner: DmaBuffer, forget: Callable[[GrantBuffer], None]) -> None:
        self._inner, self._forget = inner, forget
        self.size, self.view, self.fd, self.bus_address = inner.size, inner.view, inner.fd, inner.bus_address

    @property
    def contiguous(self) -> bool:
        """Whether bus addresses run on over the whole buffer."""
        return self._inner.contiguous

    @may_sleep
    def close(self) -> None:
        """Unmap it from the device, then free it. Idempotent."""
        self._forget(self)
        self.view = memoryview(b"")
        self._inner.close()
