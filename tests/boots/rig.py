"""A host on a software GPU that stays in its slot when the host is gone, with eyes on both sides.

The bus outlives the host, as a slot does, so that a test can look at the device after the host has left, and put a second host in front of
the same card. Stages are told while they happen, so that a fault can be armed at the very stage where it is to act.
"""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest

from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.errors import FirmwareDead, LeaseRevoked
from nvcore.api.offers import BusOffer, ClientOffer, FirmwareOffer
from nvcore.gpu.life import Gpu
from nvcore.gpu.settings import GpuSettings, HostSettings
from nvcore.host import Host
from nvcore.hw.mmu import INVALIDATE
from nvcore.locks import Fence
from nvcore.testing.toys import ToyDriver, toy_client

pytest.importorskip("nvcore_softgpu")
pytest.importorskip("nvcore_fw_gsp")

from nvcore_fw_gsp.backend import GspBackend
from nvcore_softgpu.bus import SoftBus

CASES = [("ga100", "570.144"), ("ga100", "535.113.01"), ("gh100", "570.144")]
FINAL = ("running", "failed", "lost", "unsupported", "released")


@cache
def synthetic_images() -> Path:
    """A folder with small synthetic images, made once a session."""
    import atexit
    import shutil

    from nvcore_softgpu.images.synthetic import write_images

    folder = Path(tempfile.mkdtemp(prefix="nvcore-boots-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_images(folder)
    return folder


def until(claim: Callable[[], bool], what: str, limit: float = 10.0) -> None:
    """Real time: wait for other threads."""
    end = time.monotonic() + limit
    while not claim():
        assert time.monotonic() < end, what
        time.sleep(0.001)


class Told:
    """A backend that tells of every stage before it hands it on. at_stage(name of the stage that just ended)."""

    def __init__(self, inner: GspBackend, at_stage: Callable[[str], None]) -> None:
        self._inner, self._at_stage, self.name = inner, at_stage, inner.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def open(self, context: Any) -> Any:
        """As the backend's; every finished stage is told."""

        def progress(stage: Any) -> None:
            context.progress(stage)
            self._at_stage(stage.name)

        self._at_stage("core-identify")
        return self._inner.open(attrs.evolve(context, progress=progress))


class Slot:
    """A card in its slot. Hosts come and go; `close` pulls it."""

    def __init__(
        self, chip: str, version: str | None, *, images: Path | None = None, vram: str = "2G", clock: Clock = SYSTEM, name: str = ""
    ) -> None:
        self.chip, self.version, self.clock = chip, version, clock
        self.images = images or synthetic_images()
        self.bus = SoftBus(clock=clock)
        self.source = f"softgpu:{chip}?vram={vram}&firmware={self.images}&address=0000:41:00.0" + (f"&name={name}" if name else "")
        self.bus.open(self.source).close()
        self.at_stage: Callable[[str], None] = lambda stage: None

    @property
    def card(self) -> Any:
        return self.bus._cards[self.source]

    @property
    def inspector(self) -> Any:
        from nvcore_softgpu.device import Inspector

        return Inspector(self.card)

    @property
    def two_tenants(self) -> bool:
        """Whether this chip and version have a vgpu function too."""
        return self.chip == "ga100" and self.version != "535.113.01"

    def host(self, folder: Path, settings: HostSettings) -> SlotHost:
        """A host in front of the card, not started."""
        return SlotHost(self, folder, settings)

    def settings(self, scale: float = 1.0, **limits: float) -> HostSettings:
        """Limits for hosts of this slot; scale: of the backend's."""
        return HostSettings(boot=60.0, gpus={self.source: GpuSettings(version=self.version, time_scale=scale)}, **limits)  # type: ignore[arg-type]

    def close(self) -> None:
        """Pull the card."""
        self.bus.close()


class _KeptBus:
    """The slot's bus as a host sees it: the host's end leaves the cards in their slots."""

    def __init__(self, bus: SoftBus) -> None:
        self.open, self.scan, self.subscribe = bus.open, bus.scan, bus.subscribe

    def close(self) -> None:
        """The slot closes it."""


class SlotHost:
    """One host on one slot, with a toy tenant on every function that there is."""

    def __init__(self, slot: Slot, folder: Path, settings: HostSettings) -> None:
        self.slot = slot
        roots = [str(slot.images / "nvidia")] if (slot.images / "nvidia").is_dir() else [str(slot.images)]
        offer_a, self.a = toy_client("toy-a", "graphics", engine="COPY0")
        offer_b, self.b = toy_client("toy-b", "vgpu", engine="COPY1")
        self.drivers: list[ToyDriver] = [self.a, self.b] if slot.two_tenants else [self.a]
        clients: list[ClientOffer] = [offer_a, offer_b] if slot.two_tenants else [offer_a]
        backend = GspBackend(lambda: roots)
        self.host = Host(
            [slot.source],
            buses=[BusOffer("slot", "", ("softgpu",), lambda config: _KeptBus(slot.bus))],  # type: ignore[arg-type,return-value]
            backends=[FirmwareOffer("gsp-rm", "", ("GA100", "GH100"), (), lambda: Told(backend, lambda stage: slot.at_stage(stage)))],  # type: ignore[arg-type,return-value]
            clients=clients,
            clock=slot.clock,
            state_dir=folder,
            config=settings,
        )

    @property
    def gpu(self) -> Gpu:
        return self.host.gpus[0]

    def settle(self, limit: float = 20.0) -> str:
        """Wait until the state is final and nothing is under way; its name."""
        end = time.monotonic() + limit
        calm = 0
        while calm < 3:
            assert time.monotonic() < end, f"the GPU does not come to rest: {self.gpu.state.name}, {self.gpu.state.cause}"
            before = self.gpu.state
            self.gpu.life.call(lambda: None, "a look", limit)
            at_rest = self.gpu.state is before and before.name in FINAL and not self.gpu.receiver._urgent and self.gpu.life._jobs.empty()
            calm = calm + 1 if at_rest else 0
            time.sleep(0.001)
        return self.gpu.state.name

    def tenants(self) -> list[Any]:
        return [tenant for driver in self.drivers for tenant in driver.tenants]

    def stop(self) -> list[str]:
        """End the host, and the job threads of tenants that could not leave by themselves; what hung."""
        hung = self.host.stop(20.0)
        for tenant in self.tenants():
            tenant.stop()
        return hung


class Unfinished:
    """Work of two tenants that nothing but a fault ends. ends: when each fence signalled, on the host's clock, by its name.

    An invalidate is stuck in flight, and an update of each tenant waits behind it. b ignores `on_fault`, so that the core alone can end its
    update. A third fence belongs to no invalidate: a waits for its channel, so that `on_fault` alone can end it.
    """

    def __init__(self, host: SlotHost) -> None:
        a, b, inspector, clock = host.a.tenant, host.b.tenant, host.slot.inspector, host.slot.clock
        self.ends: dict[str, float] = {}
        b.on_fault = lambda fault: (b._note("on_fault"), b.faults.append(fault))
        host.a.hooks["quiesce"] = lambda: inspector.disarm("stuck-invalidate")  # what a reset mends
        inspector.arm("stuck-invalidate")
        assert host.gpu.hardware is not None
        invalidator = host.gpu.hardware.invalidator
        self.stuck = b.space.invalidate()
        assert not self.stuck.poll()
        self.fences = [b.bind(1, 1), a.bind(1, 1), Fence("a submission of toy-a")]
        until(lambda: len(invalidator._pending) == 2, "both updates wait behind it")
        a._open_fences[id(self.fences[-1])] = self.fences[-1]
        self.fences[-1].publish()
        for fence in self.fences:
            fence.add_callback(lambda done: self.ends.setdefault(done.name, clock.now()))
        assert self.ends == {}


HALTS = ("prepare", "invalidate", "unset-pdb")
"""The moments of an update at which a firmware can die."""


def halt(host: SlotHost, place: str) -> None:
    """Have the firmware die at `place` of an update of a, while there is `Unfinished` work."""
    a, inspector = host.a.tenant, host.slot.inspector
    if place == "prepare":

        def die() -> None:  # the update's own call into the firmware is what the firmware dies of
            inspector.arm("gsp-halt@prepare")
            a.grant.create_space()

        a.table._at_prepare = die
        with pytest.raises((FirmwareDead, LeaseRevoked)):
            a.bind(0, 1)
    elif place == "invalidate":  # the one in flight ends after all; those that wait are triggered together, and are stuck in their turn
        inspector.arm("gsp-halt@invalidate")
        with host.slot.card.lock:
            host.slot.card.model.registers.values[INVALIDATE.OFFSET] &= ~INVALIDATE.trigger.mask
    else:
        inspector.arm("gsp-halt@unset-pdb")
        with pytest.raises(FirmwareDead):
            a.channel.disable()
            a.table.unset()


BOOKED = {
    "client": "client", "device": "device", "subdevice": "subdevice", "space": "address space", "channel": "channel",
    "object": "engine object",
}  # fmt: skip
"""Kinds of objects: as the session's books name them, and as the device's census does. The driver makes no others."""


def differences(host: SlotHost) -> list[str]:
    """Where the doctor complains, or the core's books, the session's and the device's own view are not equal."""
    gpu, view = host.gpu, host.slot.inspector.view()
    found = [f"doctor: {finding.severity} {finding.text}" for finding in host.host.doctor() if finding.severity not in ("ok", "note")]
    if gpu.state.name in ("failed", "lost", "unsupported"):
        found = [text for text in found if f"is {gpu.state.name}: " not in text]  # that is the state itself, told with its cause
    hardware = gpu.hardware
    core: Mapping[str, int] = hardware.counts() if hardware is not None else {}
    session: Mapping[str, int] = hardware.session.objects() if hardware is not None else {}
    device = view["gsp"]["objects"]
    for kind in {*BOOKED, *session} - {"vgpu"} | {kind for kind in device if kind not in BOOKED.values()}:
        counts = {"the session": session.get(kind, 0), "the device": device.get(BOOKED.get(kind, kind), 0)}
        if kind in ("client", "space", "channel"):
            counts["the core"] = core.get(kind, 0)
        found += _unequal(kind, counts)
    channels = {"the core": core.get("channel", 0), "the host engine": len(view["channels"]), "the firmware": len(view["gsp"]["channels"])}
    found += _unequal("channels in hardware", channels)
    found += _unequal("vGPU tasks", {"the session": session.get("vgpu", 0), "the device": len(view["gsp"]["vgpus"])})
    return found + _unequal("virtual functions", {"the core": len(gpu.virtual_functions), "the device": view["functions"]})


def _unequal(what: str, counts: Mapping[str, int]) -> list[str]:
    if len(set(counts.values())) == 1:
        return []
    return [f"{what}: " + ", ".join(f"{who} counts {number}" for who, number in counts.items())]


def leftovers(view: Mapping[str, Any]) -> list[str]:
    """What a device that no host drives any more still shows of one."""
    left: list[str] = []
    if any(view["gsp"]["objects"].values()) or view["channels"]:
        left.append(f"objects {view['gsp']['objects']}, channels {len(view['channels'])}")
    if view["wpr2"]:
        left.append(f"protected region {view['wpr2']}")
    if view["functions"]:
        left.append(f"{view['functions']} virtual functions")
    if view["dma_maps"]:
        left.append(f"DMA maps {view['dma_maps'][:4]}")
    if view["bus_master"]:
        left.append("bus master on")
    if view["extents"]:
        left.append(f"VRAM extents {view['extents']}")
    return left


class Usage:
    """Descriptors and threads of this process."""

    def __init__(self, *, collect: bool = True) -> None:
        if collect:
            gc.collect()
        self.threads = sorted(thread.name for thread in threading.enumerate())
        self.files: dict[str, str] = {}
        for number in os.listdir("/proc/self/fd"):
            try:
                self.files[number] = os.readlink(f"/proc/self/fd/{number}")
            except FileNotFoundError:  # the one of the listing itself
                continue

    def more(self, before: Usage) -> list[str]:
        """What is there that was not there before."""
        files = [f"{number} -> {name}" for number, name in self.files.items() if before.files.get(number) != name]
        threads = [name for name in self.threads if name not in before.threads]
        found = [f"descriptors {files}"] if len(self.files) > len(before.files) else []
        return found + ([f"threads {threads or self.threads}"] if len(self.threads) > len(before.threads) else [])


@contextmanager
def slot(chip: str, version: str | None, **options: Any) -> Iterator[Slot]:
    """A slot for one test."""
    made = Slot(chip, version, **options)
    try:
        yield made
    finally:
        made.close()


def inventories_equal(one: Any, two: Any) -> bool:
    """Field by field."""
    return attrs.asdict(one) == attrs.asdict(two)


__all__: Sequence[str] = [
    "CASES", "HALTS", "Slot", "SlotHost", "Unfinished", "Usage", "differences", "halt", "inventories_equal", "leftovers", "slot",
    "synthetic_images", "until",
]  # fmt: skip
