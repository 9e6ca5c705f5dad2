"""What differs between the two firmware versions that the model plays: sizes, offsets, numbers.

Declarations only, one place each; kept apart from the driver's layouts on purpose, so that the two can disagree (a test compares them).
Source: open-gpu-kernel-modules at the tags 535.113.01 and 570.144: gsp_static_config.h, g_rpc-structures.h, gsp_init_args.h,
ctrl2080*.h, ctrl0080*.h, alloc/*; engine numbers of gpu_engine_type.h and intr_table.h. Names of logs: the strings of the released images
gsp_tu10x.bin and gsp_ga10x.bin (gsp-boot.md 4.9).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["VERSIONS", "Bootload", "StaticInfo", "Version"]


class StaticInfo(NamedTuple):
    """Offsets inside GspStaticConfigInfo."""

    size: int
    gid: int
    gpc: int | None  # FERMI_GPC_INFO, FERMI_TPC_INFO[32] behind it; by control from 550 on
    regions: int
    sriov: int
    sriov_size: int
    max_gfid: int
    fb_length: int
    fb_bus_width: int  # the type of RAM behind it
    l2_size: int
    name: int
    short_name: int
    unicode_name: int
    bar1_pde: int  # BAR2's behind it
    handles: int
    wpr_layout: int | None  # nonWprHeapOffset, frtsOffset


class Bootload(NamedTuple):
    """Offsets inside the parameters of BOOTLOAD_GSP_VGPU_PLUGIN_TASK."""

    size: int
    chids: int
    chid_count: int
    segment_count: int
    segment_addresses: int
    segment_lengths: int
    heap: int  # address, length, control offset, init log offset and size, task log offset and size, one u64 each
    kernel_log: int | None


class Version(NamedTuple):
    """One firmware version."""

    name: str
    static_info: StaticInfo
    system_info_size: int
    vf_info: int
    resume_arguments: int  # srInitArguments inside GSP_ARGUMENTS_CACHED
    arguments_size: int
    root_size: int
    channel_size: int
    engine_gsp: int  # MC_ENGINE_IDX of the GSP in the interrupt table
    engine_gr0: int
    engine_ce0: int
    context_properties: int
    falcon_info: int  # control number of the constructed falcons
    memsys_size: int
    fbsr_size: int
    region_controls: bool  # 0x20800ac3 describes a suspend region (535) or toggles channel scheduling (570)
    fb_info_size: int
    compbit_size: int
    lockdown_event: int
    fault_gfid: bool  # RC_TRIGGERED carries gfid, level and fault address
    error_log_size: int
    bootload: Bootload
    type_size: int
    upload_size: int
    processed: int  # message_seq_num_processed inside the response buffer; the result follows
    heap_floor: int  # bytes of GSP heap that a vGPU host boot needs
    identity: Mapping[str, tuple[int, int]]  # (offset, bytes) of what GspSystemInfo says of the GPU's place and identity
    logs: Mapping[str, frozenset[str]]  # by the family of the image: the log regions that it knows and writes


_STATIC_535: Final = StaticInfo(
    size=0x878, gid=0x18, gpc=0x124, regions=0x348, sriov=0x658, sriov_size=72, max_gfid=0x6A0, fb_length=0x6D8,
    fb_bus_width=0x6E4, l2_size=0x6F0, name=0x71C, short_name=0x75C, unicode_name=0x79C, bar1_pde=0x828,
    handles=0x868, wpr_layout=None,
)  # fmt: skip
_STATIC_570: Final = StaticInfo(
    size=0x678, gid=0x18, gpc=None, regions=0x158, sriov=0x460, sriov_size=80, max_gfid=0x4B0, fb_length=0x4C8,
    fb_bus_width=0x4D8, l2_size=0x4E8, name=0x4EC, short_name=0x52C, unicode_name=0x56C, bar1_pde=0x600,
    handles=0x640, wpr_layout=0x668,
)  # fmt: skip

_PLACE: Final = {"gpuPhysAddr": (0, 8), "gpuPhysFbAddr": (8, 8), "gpuPhysInstAddr": (16, 8)}
_PLACE_535: Final = {**_PLACE, "nvDomainBusDeviceFunc": (24, 8), "pciConfigMirrorBase": (64, 4), "pciConfigMirrorSize": (68, 4)}
_PLACE_570: Final = {
    **_PLACE, "nvDomainBusDeviceFunc": (32, 8), "pciConfigMirrorBase": (80, 4), "pciConfigMirrorSize": (84, 4), "PCIDeviceID": (88, 4),
    "PCISubDeviceID": (92, 4), "PCIRevisionID": (96, 4),
}  # fmt: skip

_LOGS_535: Final = {"tu10x": frozenset({"LOGINIT", "LOGRM"}), "ga10x": frozenset({"LOGINIT", "LOGINTR", "LOGRM"})}
_LOGS_570: Final = {"tu10x": _LOGS_535["tu10x"], "ga10x": _LOGS_535["ga10x"] | {"LOGMNOC", "LOGKRNL"}}

_535: Final = Version(
    name="535.113.01", static_info=_STATIC_535, system_info_size=0x298, vf_info=0x270, resume_arguments=0x30, arguments_size=80,
    root_size=108, channel_size=360, engine_gsp=0x31, engine_gr0=0x52, engine_ce0=0x0F, context_properties=25, falcon_info=0x20800A42,
    memsys_size=56, fbsr_size=32, region_controls=True, fb_info_size=436, compbit_size=72, lockdown_event=0x101D, fault_gfid=False,
    error_log_size=268,
    bootload=Bootload(6496, 28, 62, 280, 288, 3360, 6432, None), type_size=4952, upload_size=316936, processed=0,
    heap_floor=549 << 20, identity=_PLACE_535, logs=_LOGS_535,
)  # fmt: skip
_570: Final = Version(
    name="570.144", static_info=_STATIC_570, system_info_size=0x3A0, vf_info=0x358, resume_arguments=0x20, arguments_size=72,
    root_size=120, channel_size=368, engine_gsp=0x32, engine_gr0=0x54, engine_ce0=0x0F, context_properties=26, falcon_info=0x208001B0,
    memsys_size=40, fbsr_size=24, region_controls=False, fb_info_size=460, compbit_size=80, lockdown_event=0x101C, fault_gfid=True,
    error_log_size=272,
    bootload=Bootload(6616, 28, 84, 368, 376, 3448, 6520, 6576), type_size=5224, upload_size=334344, processed=4,
    heap_floor=581 << 20, identity=_PLACE_570, logs=_LOGS_570,
)  # fmt: skip

VERSIONS: Final[dict[str, Version]] = {row.name: row for row in (_535, _570)}
"""By their full version string."""
