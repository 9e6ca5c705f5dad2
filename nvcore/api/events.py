"""Events and faults: typed records, ordered per GPU, with who, what and why.

An `Event` is what the log, the ring and subscribers see. A `FirmwareEvent` is what a session reports; the core turns it into events and
faults. Strings that came from a guest or from firmware are in `text` fields only and are escaped by whoever prints them.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

import attrs

__all__ = ["ChannelFault", "Event", "EventKind", "Fault", "FirmwareEvent", "FirmwareHalted", "FirmwareMessage", "Rung", "VgpuPluginEvent"]


class Rung(Enum):
    """The ladder that faults climb: each rung is tried once."""

    CHANNEL = "channel"
    GRANT = "grant"
    GPU = "gpu"
    LOST = "lost"


EventKind = Literal[
    "boot", "unload", "state", "fault", "recovery", "grant", "client", "plugin", "device", "firmware-message", "vgpu",
    "operator", "lost-events",
]


@attrs.frozen
class Fault:
    """One fault at the rung where it was met.

    cause: short name ("mmu-fault", "firmware-halt", "invalidate-timeout", "missed-deadline", …). code: a problem code for `nvcore
    explain`.
    channel: channel id with `engine`; function: VF number from 1, 0 = the physical function, None = not told. address: GPU virtual
    address.
    generation: of the GPU when it happened. text: words of the firmware, untrusted.
    """

    rung: Rung
    cause: str
    code: str
    gpu: str
    generation: int
    channel: int | None = None
    engine: str | None = None
    function: int | None = None
    grant: str | None = None
    owner: str | None = None
    address: int | None = None
    text: str = ""


@attrs.frozen
class Event:
    """One line of the event log. sequence: per host, without holes; time: monotonic seconds; wall: seconds since the epoch.

    gpu, function, grant, channel, vm: who is meant, None when nobody; action: what was done about it; text: plain words.
    """

    sequence: int
    time: float
    wall: float
    kind: EventKind
    gpu: str | None
    text: str
    code: str | None = None
    function: str | None = None
    grant: str | None = None
    owner: str | None = None
    channel: int | None = None
    vm: str | None = None
    action: str | None = None
    fault: Fault | None = None


class FirmwareEvent:
    """Base of what a session reports by itself."""

    __slots__ = ()


@attrs.frozen
class ChannelFault(FirmwareEvent):
    """A channel was stopped by the firmware. `function` is None when the firmware does not name the guest."""

    channel: int
    engine: str | None
    cause: str
    function: int | None
    address: int | None
    text: str = ""


@attrs.frozen
class FirmwareHalted(FirmwareEvent):
    """The firmware is dead: nothing more will be answered. `cause` is the first one."""

    cause: str
    text: str = ""


@attrs.frozen
class FirmwareMessage(FirmwareEvent):
    """Words of the firmware, and anything that has no meaning for the core: `name` as in "xid-31", "unknown-event"; `number` where it
    has one."""

    name: str
    text: str
    number: int | None = None


@attrs.frozen
class VgpuPluginEvent(FirmwareEvent):
    """A vGPU's task in the firmware changed: function = VF number from 1."""

    function: int
    what: str
