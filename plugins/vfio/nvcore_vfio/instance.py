"""One vGPU at work: its grant and its task in the firmware, brought up and down in one order, unwound from wherever it failed.

Runs on the GPU's life-cycle thread. Up: memory and channel ids (the grant), the scrub, the heap's lease, the firmware's task, its
settings. Down: the reverse, each step on its own: one that fails is kept as the first cause and the others still run. Source: reference
page vgpu-host.md, sections 1.3, 2.11, 6.3 (RFC "NVIDIA vGPU VFIO", 2024-09 and 2025-09).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from nvcore.api.errors import FirmwareDead, FirmwareRefused, NvcoreError, WaitTimeout
from nvcore.api.families.vgpu import VgpuFamily, VgpuRef, VgpuSpec, VgpuTypeSpec
from nvcore.api.grant import Grant, GrantRequest, Lease
from nvcore.api.inventory import Range
from nvcore_vfio.declared import Declared
from nvcore_vfio.errors import BringUpFailed
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


class Instance:
    """A started vGPU."""

    def __init__(self, record: Declared, kind: VgpuType, address: str, heap: int, segment: int) -> None:
        self.record, self.kind, self.address = record, kind, address
        self._heap_size = -(-heap // segment) * segment  # whole segments, so that no segment has two owners
        self._segment = segment
        self.framebuffer = kind.framebuffer // segment * segment  # rounded down to whole segments, as NVIDIA's manager does
        self.grant: Grant | None = None
        self.protocol: str | None = None
        self.started: float | None = None
        self._lease: Lease | None = None
        self._task: VgpuRef | None = None

    @property
    def memory(self) -> int:
        """Bytes of VRAM that one vGPU of this type takes."""
        return self.framebuffer + self._heap_size

    def up(self, parent: Grant, family: VgpuFamily) -> None:
        """Bring it up. Raises BringUpFailed with everything given back, OutOfResources with the ledger unchanged."""
        request = GrantRequest(
            label=f"vgpu:{self.record.name}",
            vram=self.memory,
            vram_align=self._segment,
            channels=self.kind.channels,
            power_of_two_channels=True,
            functions=(self.record.function,),
            top_down=True,
            vm=self.record.vm,
        )
        self.grant = parent.child(request)
        try:
            self._start(self.grant, family)
        except (FirmwareRefused, FirmwareDead, WaitTimeout) as error:
            self.down(family)
            raise BringUpFailed(
                f"vGPU {self.record.name} could not be brought up", seen=str(error), remedy="see `nvcore events`"
            ) from error
        except NvcoreError:
            self.down(family)
            raise

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
        self._task = family.bootload(grant.tenant, spec, self._lease)
        self.protocol = family.configure(self._task, spec)

    def down(self, family: VgpuFamily | None) -> str | None:
        """Take it down from wherever it stands; the first cause when a step failed. Without a family only the host's side goes."""
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
        self.grant = self._lease = self._task = self.protocol = self.started = None
        return first

    def again(self, family: VgpuFamily) -> None:
        """Bring the task up again in the grant that it has: the firmware was started anew and the memory lost."""
        grant = cast(Grant, self.grant)
        if self._lease is not None:
            self._lease.release()  # revoked with the old generation; forget it
        self._task = self._lease = None
        try:
            self._start(grant, family)
        except NvcoreError as error:
            self.down(family)
            raise BringUpFailed(f"vGPU {self.record.name} could not be brought up again", seen=str(error)) from error
