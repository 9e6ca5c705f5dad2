"""How the core reaches VRAM: descriptors of the device where it shares them; BAR1, or the PRAMIN window, where it does not.

Owns the window register and one leaf lock per GPU, held for one window's accesses, or as many behind BAR1: a long access looks in between
whether it may go on, and `settle` waits for the one that looked before. Any thread. Decides nothing about who may touch what:
grants and leases do; what is mapped of a descriptor is `nvcore.vmm.mapping`'s, what of BAR1 is the hardware's. Source:
open-gpu-kernel-modules 570.144 dev_bus.h, dev_xtl_ep_pri.h.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from nvcore.api.device import Bar, Device
from nvcore.api.errors import DeviceGone, NotSupportedError, UsageError
from nvcore.api.inventory import Range
from nvcore.hw.mmu import WINDOW, WINDOW_HOPPER, window_steps
from nvcore.locks import Lock
from nvcore.vmm.mapping import PAGE, Extent, zeros


def _never() -> bool:
    return False


class VramAccess:
    """Access of the core to one GPU's VRAM."""

    def __init__(self, device: Device, *, page_tables: int) -> None:
        self._device, self._bar = device, device.bars[0]
        self._lock = Lock("pramin", leaf=True)
        # the register moved with Hopper, as did the page tables' format
        self._window = (WINDOW_HOPPER if page_tables >= 3 else WINDOW).address()
        self.shares = True
        self.bar1 = device.bars.get(1)
        self.mapped: int | None = None  # bytes of VRAM behind BAR1; None: not built in this generation

    def extent(self, item: Range) -> Extent | None:
        """A descriptor onto `item`; None where the device has none to give."""
        if not self.shares:
            return None
        try:
            shared = self._device.share(item.start, item.size)
        except (NotSupportedError, UsageError) as error:  # the second: not an extent that the device can give out by itself
            self.shares = isinstance(error, UsageError)
            return None
        return Extent(self._device, item, shared.fd, shared.offset)

    def _access(self, address: int, size: int, ended: Callable[[], bool], move: Callable[[Bar, int, int, int], object]) -> None:
        """Have `move(bar, place in it, offset from address, bytes)` reach [address, address + size), behind BAR1 or through the window,
        until it has `ended`."""
        bar1 = self.bar1 if self.mapped and address + size <= self.mapped else None
        for base, place, at, step in window_steps(address, size):
            with self._lock:
                if ended():
                    return
                if bar1 is not None:
                    move(bar1, address + at, at, step)
                else:
                    self._bar.write32(self._window, base)
                    move(self._bar, place, at, step)

    def settle(self) -> None:
        """Wait until no access is under way that had not ended before this call."""
        with self._lock:
            pass

    def read(self, address: int, size: int, ended: Callable[[], bool] = _never) -> bytes:
        """Bytes of VRAM; fewer when it has `ended` meanwhile (by default never)."""
        parts: list[bytes] = []
        self._access(address, size, ended, lambda bar, place, _, step: parts.append(bar.read(place, step)))
        return b"".join(parts)

    def write(self, address: int, data: bytes | memoryview, ended: Callable[[], bool] = _never) -> None:
        """Store bytes in VRAM, until it has `ended` (by default never)."""
        view = memoryview(data).cast("B")
        self._access(address, len(view), ended, lambda bar, place, at, step: bar.write(place, view[at : at + step]))

    def zero(self, item: Range) -> None:
        """Fill with zeros, through a descriptor of its own where the device gives one: writing through the window what can be punched takes
        minutes. Raises DeviceGone."""
        extent = self.extent(item) if item.start % PAGE == item.size % PAGE == 0 else None
        if extent is not None:
            with closing(extent):
                extent.zero(item)
            return
        if self._device.gone:
            raise DeviceGone("memory of a device that left cannot be scrubbed")
        for at, block in zeros(item.size):
            self.write(item.start + at, block)
