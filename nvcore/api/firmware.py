"""Firmware: the backend that knows images, the session that is a running firmware, and the report of how it came up.

Firmware versions never show through: no versioned struct, no raw control number, no raw register value crosses this module. A version is a
label for people and for pinning. `open`, not `boot`: a guest-side backend on a vGPU and re-adoption of a running firmware fit the contract
too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import attrs

from nvcore.api.clock import Clock
from nvcore.api.device import Device
from nvcore.api.events import FirmwareEvent
from nvcore.api.families import Family, Tenant
from nvcore.api.identity import ChipId
from nvcore.api.marks import interrupt_safe, may_sleep, signalling_safe
from nvcore.api.needs import BootNeeds

__all__ = ["BootReport", "BootStage", "FirmwareBackend", "FirmwareImage", "FirmwareSession", "OpenContext", "SavedState", "UnloadReport"]


@attrs.frozen
class FirmwareImage:
    """One usable firmware for one chip. kind: "vendor" (a published image) or "synthetic". problem: why it cannot be used, None when it
    can.

    looked_for: the files that make it up, with what was found ("path: ok", "path: missing") — shown when something is missing.
    """

    chip: str
    version: str
    kind: Literal["vendor", "synthetic"]
    location: str
    problem: str | None = None
    looked_for: tuple[str, ...] = ()


@attrs.frozen
class BootStage:
    """One stage of a boot or an unload: `seconds` on the host's clock; `registers` the last values read in it, by register name."""

    name: str
    seconds: float
    outcome: Literal["ok", "skipped", "failed"]
    detail: str = ""
    registers: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class BootReport:
    """How a boot went. cause: None on success, else the first cause in words; code: its problem code. logs: by region, "never written"
    included. unload: how a firmware that did not come up was taken down again; None where nothing was started."""

    chip: str
    image: FirmwareImage
    stages: tuple[BootStage, ...]
    cause: str | None = None
    code: str | None = None
    remedy: str | None = None
    logs: Mapping[str, str] = attrs.field(factory=dict)
    unload: UnloadReport | None = None


@attrs.frozen
class UnloadReport:
    """How an unload went. clean: the device is as before the boot; otherwise `cause` and whether a reset is needed."""

    stages: tuple[BootStage, ...]
    clean: bool
    needs_reset: bool = False
    cause: str | None = None


@attrs.frozen
class SavedState:
    """What the next process needs to take down a firmware that this one left running: opaque to the core, stored in the state
    directory."""

    backend: str
    version: str
    data: Mapping[str, str | int]


@attrs.frozen
class OpenContext:
    """What the core hands to `FirmwareBackend.open`.

    deliver: called by `FirmwareSession.receive` for every event, on the receiver thread; never sleeps. progress: told each finished
    stage.
    wake: makes the receiver look at the session soon (a call was sent). saved: state of an earlier boot of ours, if there is one.
    version: the one version to use, None = the backend's preferred. time_scale: multiplies every limit (software models are slow).
    """

    device: Device
    chip: ChipId
    needs: BootNeeds
    clock: Clock
    deliver: Callable[[FirmwareEvent], None]
    progress: Callable[[BootStage], None]
    wake: Callable[[], None]
    version: str | None = None
    saved: SavedState | None = None
    save: Callable[[SavedState], None] | None = None
    time_scale: float = 1.0


@may_sleep
class FirmwareSession(Protocol):
    """A running firmware on one device. Session calls (of families too) may sleep and are answered, refused, or fail with the first
    cause."""

    report: BootReport
    image: FirmwareImage

    @property
    def dead(self) -> str | None:
        """The first cause of the firmware's death, or None. A dead session is asked nothing more: calls raise FirmwareDead at once."""

    @property
    def families(self) -> Mapping[str, int]:
        """Families that this session offers, with their versions."""

    def family(self, name: str) -> Family | None:
        """The family's object (see `nvcore.api.families`), or None."""

    def open_tenant(self, label: str) -> Tenant:
        """A root for objects in the firmware that live and die together. One per grant; closing it frees what is below it, channels
        first."""

    @interrupt_safe
    def receive(self) -> int:
        """Drain what the firmware sent: complete waiting calls, hand events to `deliver`. Called by the core's receiver thread only.
        Returns how many messages were taken. Takes no sender's lock, never raises for a bad message: it declares the firmware dead
        instead."""

    @property
    def waiting(self) -> int:
        """Calls that wait for an answer now: the receiver polls while there are any."""

    @signalling_safe
    def declare_dead(self, cause: str) -> None:
        """Fail every waiting and every later call with `cause`. The first declaration wins."""

    def unload(self) -> UnloadReport:
        """Take the firmware down from wherever it stands, also when dead or half booted. Never raises; idempotent."""

    def objects(self) -> Mapping[str, int]:
        """Objects that are alive in the firmware as this side knows them, counted by kind ("client", "device", "space", "channel", …)."""


@may_sleep
class FirmwareBackend(Protocol):
    """Knows the images of one kind of firmware and how to start them."""

    name: str

    def supports(self, chip: ChipId) -> Sequence[FirmwareImage]:
        """Images for this chip, preferred first; those with a `problem` are listed too. Empty: the chip is not supported by this
        backend."""

    def open(self, context: OpenContext) -> FirmwareSession:
        """Start the firmware. Raises BootError carrying the report; the device is then as far unloaded as could be done."""

    def recover(self, context: OpenContext) -> UnloadReport:
        """Take down a firmware found running: with `context.saved` by the saved unload, else say whose it may be. Never starts
        anything."""
