"""Family "vgpu": the firmware's side of vGPUs. Types are described by the client that owns them; the core looks into none of this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from nvcore.api.families import Family, Tenant
from nvcore.api.grant import Lease
from nvcore.api.inventory import Range
from nvcore.api.marks import may_sleep

__all__ = ["VgpuFamily", "VgpuRef", "VgpuSpec", "VgpuTypeSpec"]


@attrs.frozen
class VgpuTypeSpec:
    """One type as uploaded to the firmware. Sizes in bytes; device_id and subsystem_id are 16 bit; heads and resolution are limits."""

    type_id: int
    name: str
    vgpu_class: str
    max_instances: int
    framebuffer: int
    mappable: int
    reserved: int
    device_id: int
    subsystem_id: int
    heads: int
    max_width: int
    max_height: int
    frame_rate: int
    bar1_size: int
    encoder_capacity: int
    profile_size: int
    extra: Mapping[str, int] = attrs.field(factory=dict)


@attrs.frozen
class VgpuSpec:
    """One vGPU to bring up.

    function: VF number from 1. address: bus address of the VF. channels: run of channel ids on every runlist. framebuffer: whole VMMU
    segments.
    heap: VRAM for the firmware's task of this vGPU, outside the framebuffer. uuid: the vGPU's own.
    """

    type_id: int
    function: int
    address: str
    uuid: str
    channels: Range
    plugin_channels: int
    framebuffer: Sequence[Range]
    heap: Range


class VgpuRef(Protocol):
    """A vGPU in the firmware."""

    tenant: Tenant
    function: int


@may_sleep
class VgpuFamily(Family, Protocol):
    """Version 1. Bring-up order: upload_types once, then per vGPU: bootload, negotiate, configure; down: shutdown, cleanup, forget. A task
    that does not answer in time counts as crashed: a `VgpuPluginEvent` says so, and it is asked nothing more."""

    def heap_size(self) -> int:
        """Bytes of VRAM that each vGPU's task needs beside its framebuffer."""

    def upload_types(self, types: Sequence[VgpuTypeSpec]) -> None:
        """Replace the firmware's table of types."""

    def bootload(self, tenant: Tenant, spec: VgpuSpec, heap: Lease) -> VgpuRef:
        """Start the firmware's task for this vGPU and wait until it says that it runs. `heap`: a lease on `spec.heap`, kept by the
        family until cleanup. After an error nothing runs, or the end of the tenant raises."""

    def configure(self, vgpu: VgpuRef, spec: VgpuSpec) -> str:
        """Negotiate the protocol and hand over the settings; the negotiated protocol as a label."""

    def set_bus_master(self, vgpu: VgpuRef, enabled: bool) -> None:
        """Tell the task that the guest's function may or may not do DMA."""

    def reset(self, vgpu: VgpuRef) -> None:
        """Put the task's state back as after `configure`."""

    def shutdown(self, vgpu: VgpuRef) -> None:
        """End the task."""

    def cleanup(self, vgpu: VgpuRef) -> None:
        """Free what the ended (or crashed) task left; the VF can be used again afterwards. What fails does not keep the rest from being
        tried, and is tried again by the next call and by the end of the tenant."""

    def usage(self) -> Mapping[int, int]:
        """Framebuffer in use by guests, bytes by VF number."""
