"""vGPU types: one row each, with where it comes from. Data only.

Sizes in bytes. A type fits a GPU of its `chip` whose memory is at least `region` units of 1 GiB. Sources, per row: S2 type table of
vgpudconfig (vGPU 13/14); S3 NVIDIA AI Enterprise documentation, release 6, C-series; S4 open-gpu-kernel-modules 595.45.04,
g_vgpu_chip_flags.h; S7 derived with the placement algorithm of kernel_vgpu_mgr.c of the same tag.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nvcore.api.errors import NotFoundError

__all__ = ["MACHINE", "TYPES", "VgpuType", "type_named", "types_for"]

MIB: Final = 1 << 20
GIB: Final = 1 << 30

MACHINE: Final = "nvcore-vgpu-1"
"""The machine type that new vGPUs are pinned to: guest protocol, configuration space, BARs and identity of this release."""


class VgpuType(NamedTuple):
    """One type. size, region: in slots of 1 GiB; channels: ids per vGPU on each runlist; bring_up: "published" or "model convention"."""

    name: str
    type_id: int
    chip: str
    vgpu_class: str
    size: int
    region: int
    framebuffer: int
    reserved: int
    max_instances: int
    channels: int
    heads: int
    max_width: int
    max_height: int
    frame_rate: int
    bar1_size: int
    encoder_capacity: int
    device_id: int
    subsystem_id: int
    bring_up: str
    source: str


TYPES: Final = (
    VgpuType(
        name="A100-4C",
        type_id=468,
        chip="GA100",
        vgpu_class="Compute",
        size=4,
        region=40,
        framebuffer=3776 * MIB,
        reserved=320 * MIB,
        max_instances=10,
        channels=128,  # the largest power of two that is not above 2048 / max_instances
        heads=1,
        max_width=3840,
        max_height=2400,
        frame_rate=60,
        bar1_size=4096 * MIB,
        encoder_capacity=100,
        device_id=0x20F1,
        subsystem_id=0x1498,
        # Plugins inside the firmware begin with Ada; on GA100 the bring-up through the firmware is this project's convention.
        bring_up="model convention",
        source="S2 S3 S4 S7; bring-up: model convention",
    ),
)


def type_named(name: str) -> VgpuType:
    """The type of that name. Raises NotFoundError with the known names."""
    for row in TYPES:
        if row.name == name:
            return row
    raise NotFoundError(f"no vGPU type {name!r}", expected=", ".join(row.name for row in TYPES), seen=name)


def types_for(chip: str, memory: int) -> list[VgpuType]:
    """Types that a GPU of this chip and memory size (bytes) can have."""
    return [row for row in TYPES if row.chip == chip and memory >= row.region * GIB]
