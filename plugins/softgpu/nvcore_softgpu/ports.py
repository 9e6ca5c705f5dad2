"""The seam between the device (registers, memory, engines) and the behavioural GSP inside it.

They touch at few points: the start of the GSP, the queue doorbell, the message interrupt, and the objects that the GSP asks the host
engine to make. Neither side imports the other; both import this. All calls happen under the device's one lock, on the thread that made
the access.

Whoever puts a device together does it with `nvcore_softgpu.gsp.make_gsp(environment) -> Gsp` and `nvcore_softgpu.images.open_shelf(folder)`
(both imported on use, in `nvcore_softgpu.bus`). Engines, vectors and runlists are columns of the chip's row (`chips.Chip.engines`,
`gsp_vector`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

__all__ = [
    "AddressSpaceOwner",
    "Aperture",
    "ChannelHost",
    "ChannelState",
    "ChipFacts",
    "EngineFacts",
    "Environment",
    "Faults",
    "Gsp",
    "ImageShelf",
    "KnownBootloader",
    "KnownFmc",
    "KnownImage",
    "Memory",
    "Ticker",
    "Violations",
]


class Aperture(Enum):
    """Where a physical address lies."""

    VRAM = "vram"
    SYSTEM = "system"


class Memory(Protocol):
    """Physical memory as the GPU sees it. System accesses outside every DMA map, or with bus mastering off, are violations: reads give
    all-ones bytes, writes vanish."""

    vram_size: int

    def read(self, aperture: Aperture, address: int, size: int) -> bytes:
        """Bytes."""
        ...

    def write(self, aperture: Aperture, address: int, data: bytes | memoryview) -> None:
        """Store bytes."""
        ...

    def reachable(self, aperture: Aperture, address: int, size: int) -> bool:
        """Whether every byte would answer a read. No violation."""
        ...

    def fill(self, aperture: Aperture, address: int, size: int, value: int) -> None:
        """Fill with one byte."""
        ...


class Violations(Protocol):
    """The log of everything a polite driver would not do, and the counters of what the model does not know."""

    def violation(self, name: str, text: str) -> None:
        """One violation, e.g. ("unaligned-wpr", "gspFwWprStart 0x…")."""
        ...

    def unknown_register(self, offset: int, write: bool) -> None:
        """An access to a register without a row."""
        ...

    def unknown_control(self, command: int) -> None:
        """A control without a handler (answered "not supported")."""
        ...


class Faults(Protocol):
    """Faults armed by name. `take` is asked at the place where the fault would act."""

    def take(self, name: str) -> str | None:
        """The argument of an armed fault of that name ("" when it has none) and one use less; None when it is not armed."""
        ...

    def peek(self, name: str) -> str | None:
        """The same without using it up."""
        ...

    def stands(self, name: str, *fitting: str) -> bool:
        """Whether a fault that acts until it is disarmed is armed, with one of these arguments where some are given; it acts here."""
        ...


class Ticker(Protocol):
    """Time for the model."""

    def now(self) -> float:
        """Monotonic seconds of the model's clock."""
        ...

    def call_at(self, when: float, what: object) -> None:
        """Call the callable `what` at or after `when`, under the device's lock (real time: a timer thread; tests: the virtual clock)."""
        ...


class EngineFacts(Protocol):
    """One engine behind a runlist, as `nvcore_softgpu.chips.Engine` has it. The order of a chip's engines is the order of the FIFO table:
    the first engine of a runlist names it."""

    @property
    def name(self) -> str:
        """GR0, COPY0, COPY1, …"""
        ...

    @property
    def engine_type(self) -> int:
        """NV2080 and RM numbering where they agree: GR0 1, COPYn 9+n."""
        ...

    @property
    def instance(self) -> int:
        """Number among engines of its kind."""
        ...

    @property
    def runlist(self) -> int:
        """Runlist id, below 64: it goes into the doorbell token."""
        ...

    @property
    def runlist_base(self) -> int:
        """Register base of the runlist (RUNLIST_PRI_BASE)."""
        ...

    @property
    def fault_id(self) -> int:
        """MMU fault id."""
        ...

    @property
    def pbdma(self) -> int:
        """PBDMA that feeds it."""
        ...

    @property
    def stall(self) -> int:
        """Stall vector; 0xffffffff for none."""
        ...

    @property
    def nonstall(self) -> int:
        """Vector raised after semaphore releases; 0xffffffff for none."""
        ...


class ChipFacts(Protocol):
    """What the GSP has to know of the chip's row (`nvcore_softgpu.chips.Chip`)."""

    @property
    def name(self) -> str:
        """GA100 or GH100."""
        ...

    @property
    def device_id(self) -> int:
        """PCI device id."""
        ...

    @property
    def marketing(self) -> str:
        """Name that the GSP reports."""
        ...

    @property
    def flow(self) -> str:
        """booter or fsp."""
        ...

    @property
    def image(self) -> str:
        """Family of the firmware images that it runs: tu10x or ga10x."""
        ...

    @property
    def tables(self) -> int:
        """Page-table format: 2 or 3."""
        ...

    @property
    def channel_class(self) -> int:
        """Class of a GPFIFO channel."""
        ...

    @property
    def copy_class(self) -> int:
        """Class of a copy engine object."""
        ...

    @property
    def graphics_class(self) -> int:
        """Class of a 3D object; compute is class + 0x29 on the chips of the model."""
        ...

    @property
    def vmmu_segment(self) -> int:
        """Bytes."""
        ...

    @property
    def gsp_vector(self) -> int:
        """Stall vector of the GSP's message interrupt, below 256."""
        ...

    @property
    def engines(self) -> Sequence[EngineFacts]:
        """Engines in FIFO table order."""
        ...


class AddressSpaceOwner(Protocol):
    """The address space given to `ChannelHost.set_page_directory`."""

    def instances(self) -> tuple[int, ...]:
        """VRAM addresses of the instance blocks of the channels that live in it now."""
        ...


class KnownImage(Protocol):
    """A GSP image whose file the model can read (by its own parser, in `images/`), for page by page comparison in the booter and the
    FMC."""

    version: str  # release string, e.g. "570.144"

    @property
    def image(self) -> memoryview:
        """The bytes of `.fwimage`, not padded."""
        ...

    def signature(self, section: str) -> bytes | None:
        """The signature section of that name (".fwsignature_ga100"), or None."""
        ...


class KnownBootloader(Protocol):
    """The file of a GSP bootloader. code, data, manifest: (offset, size) of its parts."""

    @property
    def app_version(self) -> int:
        """What a driver writes to OS."""
        ...

    @property
    def image(self) -> memoryview:
        """All bytes."""
        ...

    @property
    def code(self) -> tuple[int, int]:
        """The monitor's code."""
        ...

    @property
    def data(self) -> tuple[int, int]:
        """The monitor's data."""
        ...

    @property
    def manifest(self) -> tuple[int, int]:
        """The manifest."""
        ...


class KnownFmc(Protocol):
    """The file of an FMC."""

    @property
    def image(self) -> memoryview:
        """The image that the security processor reads."""
        ...

    @property
    def hash(self) -> bytes:
        """SHA-384 of the image."""
        ...

    @property
    def signature(self) -> bytes:
        """As it goes into the message, not padded."""
        ...

    @property
    def public_key(self) -> bytes:
        """The same."""
        ...


class ImageShelf(Protocol):
    """The images of one firmware folder (`firmware=DIR` of the source). `nvcore_softgpu.images.open_shelf(folder)` makes it. Files are read
    on the first use."""

    def candidates(self, chip: str) -> Sequence[KnownImage]:
        """Images for a chip by name ("GA100"), in any release; empty when the folder has none."""
        ...

    def bootloader(self, chip: str, version: str) -> KnownBootloader | None:
        """The GSP's bootloader of one release, None when the folder has none."""
        ...

    def fmcs(self, chip: str) -> Sequence[KnownFmc]:
        """FMCs in any release; empty when the folder has none."""
        ...


class ChannelState(Protocol):
    """What the GSP hands to the host engine when a channel is allocated."""

    chid: int
    runlist: int
    engine_type: int  # NV2080 numbering: GR0 1, COPYn 9+n
    gpfifo: int
    entries: int
    instance: int  # VRAM address
    userd: int
    userd_aperture: Aperture  # where that address lies
    gfid: int
    channel_class: int

    @property
    def objects(self) -> Mapping[int, int]:
        """Handle to class of what was allocated under it."""
        ...


class ChannelHost(Protocol):
    """The host engine (PBDMA, runlists, copy engines) as the GSP uses it."""

    def add(self, channel: ChannelState) -> None:
        """A channel was allocated; it does not run yet."""
        ...

    def set_enabled(self, runlist: int, chid: int, enabled: bool) -> None:
        """Scheduled or not. Disabled = no method executes after this returns."""
        ...

    def remove(self, runlist: int, chid: int) -> None:
        """Freed."""
        ...

    def set_page_directory(self, instance_owner: object, address: int | None) -> None:
        """An address space's root was set (cross-check of the instance block) or unset (None: channels of it must not translate any more).
        `instance_owner` has what `AddressSpaceOwner` names."""
        ...

    def engine_object(self, runlist: int, chid: int, class_id: int) -> None:
        """An engine object was allocated under a channel: its methods are accepted."""
        ...


class Environment(Protocol):
    """What the GSP sees of the device."""

    @property
    def memory(self) -> Memory:
        """Physical memory."""
        ...

    @property
    def violations(self) -> Violations:
        """The journal."""
        ...

    @property
    def faults(self) -> Faults:
        """Armed faults."""
        ...

    @property
    def ticker(self) -> Ticker:
        """Time."""
        ...

    @property
    def channels(self) -> ChannelHost:
        """The host engine."""
        ...

    @property
    def chip(self) -> object:
        """The chip's row (`nvcore_softgpu.chips.Chip`), which has what `ChipFacts` names."""
        ...

    def raise_message(self) -> None:
        """A message is in the status queue: set SWGEN0, the GSP's leaf bit, the interrupt."""
        ...

    def set_mailbox(self, index: int, value: int) -> None:
        """Write one of the GSP falcon's mailboxes."""
        ...

    def set_halted(self, halted: bool, fault: bool = False) -> None:
        """RISC-V halted bit. fault: it died (HALT interrupt line); otherwise it ended in order (on FSP chips WPR2 comes down)."""
        ...

    def set_bar2_entry(self, value: int) -> None:
        """UPDATE_BAR_PDE for BAR2: entry 0 of the GSP's own BAR2 directory; 0 disables."""
        ...

    def bar_directories(self) -> tuple[int, int]:
        """VRAM addresses of the BAR1 and BAR2 root directories that the GSP owns."""
        ...

    def sriov(self) -> Mapping[str, int]:
        """The SR-IOV facts of the configuration space: total_vfs, first_vf_offset, stride, and for n = 0..2 (VF BAR0, the pair 1/2, the
        pair 3/4) barN_size and barN_address. Empty on a GPU without the capability."""
        ...

    def place(self) -> Mapping[str, int]:
        """What the device knows of its own place and identity, as GspSystemInfo names it: gpuPhysAddr, gpuPhysFbAddr, gpuPhysInstAddr,
        pciConfigMirrorBase, pciConfigMirrorSize, PCIDeviceID, PCISubDeviceID, PCIRevisionID, and nvDomainBusDeviceFunc where somebody told
        the device its address."""
        ...


class Gsp(Protocol):
    """The behavioural GSP-RM as the device uses it."""

    @property
    def running(self) -> bool:
        """Started and not halted."""
        ...

    @property
    def serving(self) -> bool:
        """Running, and past INIT_DONE: it answers, and is not about to end."""
        ...

    def start(self, meta: Mapping[str, int], libos_arguments: int) -> str | None:
        """The booter or the FMC released the core. meta: the WPR meta by field name, layout filled in by the device where the GPU chooses
        it. Reads the libos arguments and RMARGS, creates the status queue, handles what is queued, posts INIT_DONE. Returns a reason when
        it cannot start."""
        ...

    def resume(self) -> str | None:
        """Start again after a suspend: own state kept, queue headers not reinitialised."""
        ...

    def doorbell(self) -> None:
        """The command-queue doorbell was written."""
        ...

    def vgpu_doorbell(self, gfid: int) -> None:
        """The doorbell of a vGPU's host RPC channel was written."""
        ...

    def stop(self) -> None:
        """The core was reset or unloaded: forget everything."""
        ...

    def halt(self, cause: str) -> None:
        """Die: answer nothing more."""
        ...

    def channel_fault(self, runlist: int, chid: int, cause: str, address: int | None) -> None:
        """The host engine stopped a channel: report RC_TRIGGERED (and the Xid text)."""
        ...

    def view(self) -> dict[str, object]:
        """The device's own view: live RM objects by kind, channels, vGPU tasks, JSON-able."""
        ...
