"""How the core reaches VRAM: descriptors of the device where it shares them; BAR1, or the PRAMIN window, where it does not.

Owns the window register (one leaf lock per GPU, held for one window's accesses) and the core's one map of its own: BAR1 onto VRAM from
address 0 on, static, in 2 MiB entries. That map's tables are VRAM held by the owner BAR1_OWNER in the ledger, written through the window,
linked into the root that the firmware owns. It is not revocable: a lease through it is read and written, never viewed. Any thread; building
the map may sleep. Decides nothing about who may touch what: grants and leases do; what is mapped of a descriptor is `nvcore.vmm.mapping`'s,
the tables' bytes are `nvcore.vmm.flat`'s. Source: open-gpu-kernel-modules 570.144 dev_bus.h, dev_xtl_ep_pri.h; nouveau writes BAR1's
directory itself, without an RPC.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Final

from nvcore.api.device import Bar, Device
from nvcore.api.errors import DeviceGone, NotSupportedError, NvcoreError, UsageError
from nvcore.api.grant import GrantRequest
from nvcore.api.inventory import Range
from nvcore.gpu.invalidate import TicketRing
from nvcore.hw.mmu import WINDOW, WINDOW_HOPPER, window_steps
from nvcore.locks import Lock
from nvcore.vmm.mapping import PAGE, Extent, zeros

if TYPE_CHECKING:
    from nvcore.gpu.hardware import Hardware

BAR1_OWNER: Final = "core/bar1"  # under whose name the ledger books what lies behind BAR1


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

    def _access(self, address: int, size: int, move: Callable[[Bar, int, int, int], object]) -> None:
        """Have `move(bar, place in it, offset from address, bytes)` reach [address, address + size), behind BAR1 or through the window."""
        if self.mapped and self.bar1 is not None and address + size <= self.mapped:
            move(self.bar1, address, 0, size)
            return
        for base, place, at, step in window_steps(address, size):
            with self._lock:
                self._bar.write32(self._window, base)
                move(self._bar, place, at, step)

    def read(self, address: int, size: int) -> bytes:
        """Bytes of VRAM."""
        parts: list[bytes] = []
        self._access(address, size, lambda bar, place, _, step: parts.append(bar.read(place, step)))
        return b"".join(parts)

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Store bytes in VRAM."""
        view = memoryview(data).cast("B")
        self._access(address, len(view), lambda bar, place, at, step: bar.write(place, view[at : at + step]))

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


def map_behind_bar1(hardware: Hardware) -> None:
    """Once a generation: the static map, for a device that shares no memory. Where it cannot be made, the window serves."""
    vram = hardware.vram
    if vram.mapped is None:
        vram.mapped = 0
        try:
            vram.mapped = _build_static_map(hardware)
        except NvcoreError as error:
            hardware.publish("device", f"no map behind BAR1: {error}", action="the PRAMIN window serves instead")


def _build_static_map(hardware: Hardware) -> int:
    """Map as much of VRAM as BAR1 is large; the bytes mapped, 0 without a BAR1. Raises OutOfResources, FirmwareDead, WaitTimeout,
    DeviceGone."""
    from nvcore.hw.pte import HUGE_PAGE, page_format
    from nvcore.vmm.flat import TABLE, flat_map, flat_map_size

    inventory, vram, ledger = hardware.inventory, hardware.vram, hardware.ledger
    bar_size = vram.bar1.size if vram.bar1 is not None else 0
    window = min(bar_size, inventory.bar1_size, inventory.memory_size) // HUGE_PAGE * HUGE_PAGE
    if not window:
        return 0
    form = page_format(inventory.page_tables)
    if not ledger.holds(BAR1_OWNER, "vram"):
        size = flat_map_size(form, window)
        ledger.take(BAR1_OWNER, GrantRequest(BAR1_OWNER, vram=size, vram_align=TABLE, top_down=True))
    root = hardware.family("inventory").bar1_directory()
    for address, table in flat_map(form, window, ledger.holds(BAR1_OWNER, "vram")[0].start):
        vram.write(root if address is None else address, table)
    hardware.invalidator.start(TicketRing(hardware.invalidator, hardware.gate), root).finish()
    return window
