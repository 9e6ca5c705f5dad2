"""One vGPU at work: its grant and its task in the firmware, brought up and down in one order.

Runs on the GPU's life-cycle thread. Up: memory and channel ids (the grant), the scrub, the heap's lease, the firmware's task, its
settings. Down, from wherever it stands: the reverse, each step on its own: one that fails is kept as the first cause and the others still
run. What the firmware keeps in spite of all goes into quarantine with the grant: the core sees to that. Source: reference page
vgpu-host.md, sections 1.3, 2.11, 6.3 (RFC "NVIDIA vGPU VFIO", 2024-09 and 2025-09).
"""

from __future__ import annotations

from collections.abc import Callable

from nvcore.api.errors import FirmwareDead, FirmwareRefused, NvcoreError, WaitTimeout
from nvcore.api.families.vgpu import VgpuFamily, VgpuRef, VgpuSpec, VgpuTypeSpec
from nvcore.api.grant import Grant, GrantRequest, Lease
from nvcore.api.inventory import Range
from nvcore_vfio.declared import Declared
from nvcore_vfio.ear import Ear
from nvcore_vfio.errors import BringUpFailed, told
from nvcore_vfio.types import VgpuType

__all__ = ["PLUGIN_CHANNELS", "Instance", "type_spec"]

PLUGIN_CHANNELS = 1  # of the vGPU's run, for the firmware's own task (RFC of 2025-09)


def type_spec(kind: VgpuType, heap: int) -> VgpuTypeSpec:
    """The type as the firmware is told."""
    return VgpuTypeSpec(
        type_id=kind.type_id,
        name=kind.name,
        vgpu_class=kind.vgpu_class,
        max_instances=kind.max_instances,
        framebuffer=kind.framebuffer,
        mappable=kind.framebuffer,
        reserved=kind.reserved,
        device_id=kind.device_id,
        subsystem_id=kind.subsystem_id,
        heads=kind.heads,
        max_width=kind.max_width,
        max_height=kind.max_height,
        frame_rate=kind.frame_rate,
        bar1_size=kind.bar1_size,
        encoder_capacity=kind.encoder_capacity,
        profile_size=kind.size << 30,
        extra={"gsp_heap_size": heap},
    )


def _parts(kind: VgpuType, heap: int, segment: int) -> tuple[int, int]:
    """Bytes of framebuffer and of heap, in whole segments, so that none has two owners: rounded down as NVIDIA's manager does, and up."""
    return kind.framebuffer // segment * segment, -(-heap // segment) * segment


class Instance:
    """A started vGPU. grant, channels: what it has; started: the clock's time."""

    def __init__(self, record: Declared, kind: VgpuType, address: str, heap: int, segment: int) -> None:
        self.record, self.kind, self.address = record, kind, address
        self._segment = segment
        self.framebuffer, self._heap_size = _parts(kind, heap, segment)
        self.grant: Grant | None = None
        self.channels: Range | None = None
        self.protocol: str | None = None
        self.started: float | None = None
        self._ear: Ear | None = None
        self._lease: Lease | None = None
        self._task: VgpuRef | None = None

    @staticmethod
    def memory_of(kind: VgpuType, heap: int, segment: int) -> int:
        """Bytes of VRAM that one vGPU of this type takes. heap: bytes that the firmware's task needs."""
        return sum(_parts(kind, heap, segment))

    def up(self, parent: Grant, family: VgpuFamily) -> None:
        """Bring it up. Raises BringUpFailed, or OutOfResources with the ledger unchanged; `down` then gives back what it has."""
        request = GrantRequest(
            label=f"vgpu:{self.record.name}",
            vram=self.framebuffer + self._heap_size,
            vram_align=self._segment,
            channels=self.kind.channels,
            power_of_two_channels=True,
            functions=(self.record.function,),
            top_down=True,
            vm=self.record.vm,
        )
        self.grant = parent.child(request)
        self.channels = self.grant.channels[0]
        self._start(self.grant, family)

    def again(self, parent: Grant, family: VgpuFamily) -> None:
        """The firmware was started anew and the memory lost: bring it up in the grant that it has, or in a new one. Raises as `up`."""
        if self.grant is None:
            self.up(parent, family)
            return
        self._give_up_task()
        self._start(self.grant, family)

    def hear(self, ear: Ear | None) -> None:
        """From here on with this ear alone, or with none."""
        if self._ear is not None:
            self._ear.close()
        self._ear = ear

    def spec(self, grant: Grant) -> VgpuSpec:
        """What the firmware is told of this vGPU."""
        whole, run = grant.vram[0], grant.channels[0]
        return VgpuSpec(
            type_id=self.kind.type_id,
            function=self.record.function,
            address=self.address,
            uuid=self.record.uuid,
            channels=run,
            plugin_channels=PLUGIN_CHANNELS,
            framebuffer=(Range(whole.start, self.framebuffer),),
            heap=Range(whole.start + self.framebuffer, self._heap_size),
        )

    def _start(self, grant: Grant, family: VgpuFamily) -> None:
        spec = self.spec(grant)
        for piece in (*spec.framebuffer, spec.heap):
            grant.scrub(piece)
        self._lease = grant.map(spec.heap)
        try:
            self._task = family.bootload(grant.tenant, spec, self._lease)
            self.protocol = family.configure(self._task, spec)
        except (FirmwareRefused, FirmwareDead, WaitTimeout) as error:
            raise BringUpFailed(f"vGPU {self.record.name} could not be brought up", seen=told(error)) from error

    def down(self, family: VgpuFamily | None) -> str | None:
        """Take it down from wherever it stands; the first cause when a step failed. Without a family only the host's side goes."""
        self.hear(None)
        first: str | None = None
        steps: list[Callable[[], None]] = []
        if self._task is not None and family is not None:
            task = self._task
            steps = [lambda: family.shutdown(task), lambda: family.cleanup(task)]
        if self._lease is not None:
            steps.append(self._lease.release)
        if self.grant is not None:
            steps.append(self.grant.release)
        for step in steps:
            try:
                step()
            except NvcoreError as error:  # the others must still run
                first = first or str(error)
        self.grant = self.channels = self._lease = self._task = self.protocol = self.started = None
        return first

    def _give_up_task(self) -> None:
        """The task went with its firmware, and the lease was revoked with it."""
        if self._lease is not None:
            self._lease.release()
        self._task = self._lease = None
