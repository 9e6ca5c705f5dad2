"""Buses and devices: all the core knows of hardware, and all that `nvcore.vfio_user` needs to export it.

A `Bus` yields `Device`s. A `Device` is one PCI function: identity, configuration space, BARs, interrupt vectors as eventfds, DMA memory,
reset, virtual functions. After removal every method raises `DeviceGone`. Implemented by the core (pci, vfio, vfio-user) and by softgpu.
Nothing here knows what the registers mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import attrs

from nvcore.api.marks import interrupt_safe, may_sleep, signalling_safe

__all__ = [
    "Bar", "Bus", "BusEvent", "Device", "DmaBuffer", "InterruptKind", "MappableBar", "PciIdentity", "SharedMemory", "VirtualFunction",
]

InterruptKind = Literal["intx", "msi", "msix"]


@attrs.frozen
class PciIdentity:
    """Who a function is on its bus. `address` is "DDDD:BB:DD.F" (a made-up one on buses without PCI); ids are 16 bit, class_code 24
    bit."""

    address: str
    vendor: int
    device: int
    subsystem_vendor: int
    subsystem_device: int
    revision: int
    class_code: int


@attrs.frozen
class SharedMemory:
    """A descriptor onto memory of a device, passed on without looking inside. The receiver owns `fd` and closes it."""

    fd: int
    offset: int
    size: int


@signalling_safe
class Bar(Protocol):
    """One base address register's window. Offsets and sizes in bytes; accesses outside raise `ContractError` before reaching the
    device."""

    index: int
    size: int
    mapped: bool  # True: `view` works and costs no call per access; False: every access is trapped
    prefetchable: bool

    @interrupt_safe
    def read32(self, offset: int) -> int:
        """One aligned 32-bit load."""

    @interrupt_safe
    def write32(self, offset: int, value: int) -> None:
        """One aligned 32-bit store; may be posted."""

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes in ascending order, in accesses of at most 8 bytes where the bar is trapped."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """The counterpart of `read`."""

    def write_port(self, offset: int, words: bytes | memoryview) -> None:
        """Store little-endian 32-bit words one after another to the same offset (a data port)."""

    def read_port(self, offset: int, count: int) -> bytes:
        """Load `count` 32-bit words one after another from the same offset."""

    @may_sleep
    def view(self, offset: int, size: int) -> memoryview:
        """A writable view of a mapped range. Raises NotSupportedError when the bar is trapped."""


@runtime_checkable
class MappableBar(Bar, Protocol):
    """A bar of which some pages, or all, may be mapped by whoever drives the function: what a VM monitor maps into its guest."""

    areas: Sequence[tuple[int, int]]  # page-aligned (offset, size), ascending, not touching; every other access is trapped

    @may_sleep
    def descriptor(self) -> SharedMemory:
        """The file behind the areas: the page at bar offset n lies at file offset `offset + n`. The receiver owns the descriptor."""


class DmaBuffer(Protocol):
    """Host memory that the device can reach. Zeroed at allocation; 4 KiB granular."""

    size: int
    view: memoryview
    fd: int  # the memfd behind it, owned by the buffer

    @signalling_safe
    def bus_address(self, offset: int = 0) -> int:
        """The address that the device uses for byte `offset`. Contiguous only within a 4 KiB page unless `contiguous`."""

    @property
    def contiguous(self) -> bool:
        """Whether bus addresses run on over the whole buffer."""

    @may_sleep
    def close(self) -> None:
        """Unmap it from the device, then free it. Idempotent."""


@may_sleep
class VirtualFunction(Protocol):
    """One SR-IOV virtual function, seen from its physical function."""

    index: int  # from 0
    address: str
    bar_sizes: Mapping[int, int]

    def endpoint(self) -> str:
        """Where a worker finds it: a vfio-user socket path, or a VFIO group. Raises NotSupportedError where there is none."""

    def reset(self) -> None:
        """Function-level reset of this function alone."""


@may_sleep
class Device(Protocol):
    """One PCI function."""

    identity: PciIdentity
    source: str  # as configured: "softgpu:ga100?vram=40G", "pci:0000:41:00.0"
    bars: Mapping[int, Bar]
    interrupts: Mapping[InterruptKind, int]  # vectors of each kind; 0 = none
    total_functions: int  # SR-IOV TotalVFs

    @property
    def gone(self) -> bool:
        """Whether the device left; never becomes False again."""

    def config_read(self, offset: int, size: int) -> bytes:
        """Configuration space, 0 to 4095, as the device shows it."""

    def config_write(self, offset: int, data: bytes) -> None:
        """Configuration space."""

    def connect_interrupt(self, kind: InterruptKind, vector: int, fd: int | None) -> None:
        """Have the device add 1 to eventfd `fd` when it raises `vector`; None disconnects. The caller keeps owning `fd`."""

    def set_bus_master(self, enabled: bool) -> None:
        """Allow or stop DMA by the device. Stopped means: no access reaches host memory any more when this returns."""

    def allocate_dma(self, size: int, *, label: str) -> DmaBuffer:
        """Zeroed host memory at addresses of the bus's choice. Raises OutOfResources."""

    def map_dma(self, address: int, size: int, fd: int, offset: int, *, readable: bool = True, writable: bool = True) -> None:
        """Let the device reach a client's memory at bus `address`. The descriptor is duplicated. Overlap, misalignment, wrap, zero size
        and a file that is too short raise UsageError and change nothing."""

    def unmap_dma(self, address: int, size: int) -> int:
        """Take back every mapping that lies wholly inside the range; bytes unmapped. No access is under way when this returns."""

    def reset(self) -> None:
        """Function-level reset."""

    def enable_functions(self, count: int) -> Sequence[VirtualFunction]:
        """Set the number of virtual functions (0 removes them)."""

    def share(self, offset: int, size: int) -> SharedMemory:
        """A descriptor onto device memory [offset, offset + size), for mapping by the holder of a grant.

        One owner, one extent: an extent that overlaps another one raises UsageError; the same extent again gives another descriptor of
        the same memory.
        """

    def unshare(self, offset: int) -> int:
        """End the extent that starts at `offset`: what its descriptors reach is device memory no more, and the memory's contents may be
        gone (that is the scrub). Bytes ended, 0 when there is no such extent."""

    def close(self) -> None:
        """Release the device; DMA buffers are unmapped. Idempotent."""


@attrs.frozen
class BusEvent:
    """A device that came or went."""

    kind: Literal["added", "removed"]
    source: str


@may_sleep
class Bus(Protocol):
    """Where devices come from. One bus serves one or more source schemes."""

    def open(self, source: str) -> Device:
        """The device that `source` names. Raises NotFoundError, ConflictError (held by somebody else, with the holder), UsageError."""

    def scan(self) -> Sequence[str]:
        """Sources that could be opened now; touches nothing."""

    def subscribe(self, callback: Callable[[BusEvent], None]) -> Callable[[], None]:
        """Be told of arrivals and removals; the result ends the subscription."""

    def close(self) -> None:
        """Release what the bus holds; its devices are gone afterwards."""
