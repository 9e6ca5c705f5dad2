"""A core and a firmware in memory, just enough for the vGPU client: books that must balance and a firmware that can refuse any call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from nvcore.api.client import Function
from nvcore.api.clock import SYSTEM
from nvcore.api.errors import ContractError, FirmwareRefused, NotFoundError, OutOfResources
from nvcore.api.events import VgpuPluginEvent
from nvcore.api.families.vgpu import VgpuSpec, VgpuTypeSpec
from nvcore.api.grant import GrantRequest
from nvcore.api.identity import ChipId, GpuIdentity
from nvcore.api.inventory import Inventory, MemoryRegion, Range, VgpuSupport

MIB = 1 << 20
GPU = GpuIdentity("0000:41:00.0", "fake:", ChipId("GA100", "ampere", "a1"), 0x20B0, "GPU-1")


def inventory(functions: int = 16, memory: int = 40 << 30) -> Inventory:
    usable = Range(MIB, memory - 600 * MIB)
    return Inventory(
        name="fake",
        uuid="GPU-1",
        memory_size=memory,
        regions=(MemoryRegion(usable, True, "free"),),
        engines=(),
        first_channel=1,
        channels=2048,
        vmmu_segment=64 * MIB,
        page_tables=2,
        bar1_size=memory,
        firmware_vector=155,
        heads=0,
        vgpu=VgpuSupport(True, functions, None),
        firmware="570.144",
        capabilities=frozenset(),
    )


class FakeLease:
    valid = True

    def __init__(self, books: FakeContext, where: Range) -> None:
        self.range, self._books = where, books
        books.leases += 1

    def release(self) -> None:
        if self.valid:
            self.valid = False
            self._books.leases -= 1


class FakeGrant:
    def __init__(self, books: FakeContext, request: GrantRequest, vram: Range, channels: Range, parent: FakeGrant | None) -> None:
        self.books, self.request, self.parent = books, request, parent
        self.name, self.label, self.vm = f"grant-{len(books.grants)}", request.label, request.vm
        self.vram, self.channels = [vram], [channels]
        self.tenant = f"tenant of {request.label}"
        self.state = "live"  # then "released", or "quarantined": the firmware has not let go of it
        self.scrubbed: list[Range] = []
        books.grants.append(self)

    @property
    def _cut(self) -> list[FakeGrant]:
        return [grant for grant in self.books.grants if grant.parent is self and grant.state != "released"]

    @property
    def functions(self) -> list[int]:
        cut = {number for grant in self._cut for number in grant.request.functions}
        return [number for number in self.request.functions if number not in cut]

    def child(self, request: GrantRequest) -> FakeGrant:
        own, size, used = self.vram[0], request.vram, self._cut
        if not set(request.functions) <= set(self.functions):
            raise OutOfResources("the function is not free")
        for start in range(own.end - size, own.start - 1, -request.vram_align):
            here = Range(start, size)
            if start % request.vram_align == 0 and not any(here.overlaps(grant.vram[0]) for grant in used):
                break
        else:
            raise OutOfResources("no memory")
        run = self.channels[0]
        for first in range(run.end - request.channels, run.start - 1, -request.channels):
            ids = Range(first, request.channels)
            if not any(ids.overlaps(grant.channels[0]) for grant in used):
                return FakeGrant(self.books, request, here, ids, self)
        raise OutOfResources("no channels")

    def scrub(self, where: Range) -> None:
        self.scrubbed.append(where)

    def map(self, where: Range) -> FakeLease:
        assert self.vram[0].contains(where)
        return FakeLease(self.books, where)

    def release(self) -> None:
        if self.state == "live":
            firmware = self.books.firmware
            stuck = self.parent is not None and (firmware is None or bool(firmware.tasks.keys() & set(self.request.functions)))
            self.state = "quarantined" if stuck else "released"


class FakeVgpu:
    """The firmware. `refuse` names calls that fail; every call is in `calls`."""

    name, version = "vgpu", 1

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.refuse: set[str] = set()
        self.tasks: dict[int, VgpuSpec] = {}
        self.types: Sequence[VgpuTypeSpec] = ()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.refuse:
            raise FirmwareRefused(f"{name} refused")

    def heap_size(self) -> int:
        return 40 * MIB  # not a whole segment, on purpose

    def upload_types(self, types: Sequence[VgpuTypeSpec]) -> None:
        self._call("upload_types")
        self.types = types

    def bootload(self, tenant: object, spec: VgpuSpec, heap: object) -> int:
        self._call("bootload")
        assert spec.function not in self.tasks
        for other in self.tasks.values():
            assert not other.channels.overlaps(spec.channels) and not other.framebuffer[0].overlaps(spec.framebuffer[0])
        self.tasks[spec.function] = spec
        return spec.function

    def configure(self, task: int, spec: VgpuSpec) -> str:
        self._call("configure")
        return "2.1"

    def shutdown(self, task: int) -> None:
        self._call("shutdown")

    def cleanup(self, task: int) -> None:
        self._call("cleanup")
        self.tasks.pop(task, None)

    def usage(self) -> Mapping[int, int]:
        return dict.fromkeys(self.tasks, 0)


class FakeFunction:
    def __init__(self, number: int) -> None:
        self.index, self.address = number - 1, f"0000:41:00.{number}"


class FakeContext:
    """`ended`: the client left, or was given up."""

    config, clock = None, SYSTEM
    log = logging.getLogger("test")

    def __init__(
        self,
        state_dir: Path,
        *,
        functions: int = 16,
        firmware: FakeVgpu | None = None,
        address: str = GPU.address,
        memory: int = 40 << 30,
    ) -> None:
        self.state_dir, self.ended = state_dir, False
        self.gpu = attrs.evolve(GPU, address=address)
        self.function = Function("0000:41:00.0/vgpu", "vgpu", GPU, True)
        self.inventory = inventory(functions, memory)
        self.firmware: FakeVgpu | None = firmware or FakeVgpu()
        self.grants: list[FakeGrant] = []
        self.leases = 0
        self.reports: list[str] = []
        self.unreadable: set[int] = set()
        self.subscribers: list[Callable[[VgpuPluginEvent], None]] = []

    @property
    def generation(self) -> int:
        if self.ended:
            raise ContractError("its context ended")
        return 1

    def grant(self, request: GrantRequest) -> FakeGrant:
        assert not any(grant.state == "live" for grant in self.grants), "the pool is taken twice"
        usable = self.inventory.regions[0].range
        end = usable.end - usable.end % request.vram_align
        assert end - request.vram >= usable.start, "the pool does not fit"
        assert request.channels_at is not None and request.channels_at + request.channels <= 2048
        return FakeGrant(self, request, Range(end - request.vram, request.vram), Range(request.channels_at, request.channels), None)

    def family(self, name: str) -> Any:
        return self.firmware if name == "vgpu" and not self.ended else None

    def virtual_function(self, number: int) -> FakeFunction:
        if number in self.unreadable:
            raise NotFoundError(f"VF {number} does not answer")
        return FakeFunction(number)

    def subscribe_vgpu(self, callback: Callable[[VgpuPluginEvent], None]) -> Callable[[], None]:
        self.subscribers.append(callback)
        return lambda: self.subscribers.remove(callback)

    def report(self, kind: str, text: str, **more: object) -> None:
        self.reports.append(text)

    def run(self, call: Callable[[], object], *, timeout: float) -> object:
        return call()

    @property
    def live(self) -> list[FakeGrant]:
        return [grant for grant in self.grants if grant.state == "live" and grant.parent is not None]
