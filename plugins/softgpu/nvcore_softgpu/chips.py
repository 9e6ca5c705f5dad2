"""The chips that the software GPU can be: one row each.

Owns the facts in which chips differ, as the model shows them. Data only, no behaviour; imported from any thread. It is deliberately not
`nvcore.hw.chips`: a driver's table and a model's table that were one could not disagree.
Source: device-model.md tables 0, 4 and 8 (Linux 7.3 nouveau; open-gpu-kernel-modules 570.144 published manuals); gsp-boot.md 1.1 to 1.8.
What no source attests (vectors, SR-IOV, segment size) is listed in `nvcore_softgpu.conventions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

__all__ = ["CHIPS", "NO_VECTOR", "Chip", "Engine", "Sriov", "chip_named"]

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
NO_VECTOR: Final = 0xFFFFFFFF
"""An interrupt that an engine does not have."""


class Engine(NamedTuple):
    """One engine behind the host: what the GSP reports of it and what its channels run on.

    engine_type: NV2080 numbering (GR0 1, COPYn 9 + n). stall, nonstall: interrupt vectors or NO_VECTOR. runlist_base: PRI base of the
    runlist.
    """

    name: str
    engine_type: int
    instance: int
    runlist: int
    runlist_base: int
    fault_id: int
    pbdma: int
    stall: int
    nonstall: int


class Sriov(NamedTuple):
    """The SR-IOV capability of a chip (model convention): count, routing ids, VF bar sizes in bytes (bar 1 is per VF)."""

    total_vfs: int
    first_vf_offset: int
    stride: int
    vf_device: int
    bar0: int
    bar1: int
    bar2: int


class Chip(NamedTuple):
    """One chip. Addresses are BAR0 byte offsets.

    flow: who starts the GSP. tables: page-table version. fb_size: layout of the size register.
    riscv: which RISC-V status registers exist. fwsec: ucode descriptor version in the ROM, 0 for none. image: the family of GSP images that
    the chip runs. signature: section of the GSP image.
    """

    name: str
    boot0: int
    boot42: int
    device_id: int
    marketing: str
    flow: Literal["booter", "fsp"]
    tables: Literal[2, 3]
    fb_size: Literal["turing", "ampere"]
    riscv: Literal["turing", "ga102"]
    fwsec: Literal[0, 2]
    ifr: bool
    frts_size: int
    window: int
    mirror: int
    gfw: Sequence[tuple[int, int]]
    flush_page: Sequence[tuple[int, str]]
    display_fuse: int
    debug_fuse: int
    leaves: int
    cot_version: int
    image: Literal["tu10x", "ga10x"]
    signature: str
    channel_class: int
    copy_class: int
    graphics_class: int
    address_bits: int
    default_vram: int
    bar2_size: int
    vmmu_segment: int
    gsp_vector: int
    engines: Sequence[Engine]
    sriov: Sriov


def _engines(fault_gr: int, fault_ce: int) -> tuple[Engine, ...]:
    """One graphics and two copy engines, each on a runlist of its own (vectors: model convention)."""
    return (
        Engine("GR0", 1, 0, 0, 0x700000, fault_gr, 0, NO_VECTOR, 32),
        Engine("COPY0", 9, 0, 1, 0x710000, fault_ce, 1, NO_VECTOR, 0),
        Engine("COPY1", 10, 1, 2, 0x720000, fault_ce + 1, 2, NO_VECTOR, 1),
    )


CHIPS: Final[Sequence[Chip]] = (
    Chip(
        name="GA100",
        boot0=0x170000A1,
        boot42=0x170A1000,
        device_id=0x20B0,
        marketing="NVIDIA A100 (software model)",
        flow="booter",
        tables=2,
        fb_size="turing",
        riscv="turing",
        fwsec=2,
        ifr=True,
        frts_size=0,
        window=0x001700,
        mirror=0x088000,
        gfw=((0x118128, 0x1), (0x118234, 0xFF)),
        flush_page=((0x100C10, "address >> 8"), (0x100C40, "address >> 40")),
        display_fuse=0x820C04,
        debug_fuse=0x82074C,
        leaves=8,
        cot_version=0,
        image="tu10x",
        signature=".fwsignature_ga100",
        channel_class=0xC56F,
        copy_class=0xC6B5,
        graphics_class=0xC697,
        address_bits=47,
        default_vram=40 * GIB,
        bar2_size=32 * MIB,
        vmmu_segment=64 * MIB,
        gsp_vector=155,
        engines=_engines(0x80, 0x0F),
        sriov=Sriov(16, 4, 1, 0x20B0, 256 * KIB, 4 * GIB, 32 * MIB),
    ),
    Chip(
        name="GH100",
        boot0=0x180000A1,
        boot42=0x180A1000,
        device_id=0x2330,
        marketing="NVIDIA H100 (software model)",
        flow="fsp",
        tables=3,
        fb_size="ampere",
        riscv="ga102",
        fwsec=0,
        ifr=False,
        frts_size=1 * MIB,
        window=0x10FD40,
        mirror=0x092000,
        gfw=((0x0200BC, 0xFF),),
        flush_page=((0x100A34, "address, low half"), (0x100A38, "address, high half")),
        display_fuse=0x820C04,
        debug_fuse=0x82074C,
        leaves=16,
        cot_version=1,
        image="ga10x",
        signature=".fwsignature_gh100",
        channel_class=0xC86F,
        copy_class=0xC8B5,
        graphics_class=0xCB97,
        address_bits=52,
        default_vram=80 * GIB,
        bar2_size=32 * MIB,
        vmmu_segment=256 * MIB,
        gsp_vector=155,
        engines=_engines(0x80, 0x0F),
        sriov=Sriov(16, 4, 1, 0x2330, 256 * KIB, 8 * GIB, 32 * MIB),
    ),
)
"""Every chip of the model. A further chip is a further row: TU102, GA102, AD102 and GB20x differ only in these columns."""


def chip_named(name: str) -> Chip | None:
    """The row of a chip, by name without regard to case."""
    wanted = name.upper()
    return next((chip for chip in CHIPS if chip.name == wanted), None)
