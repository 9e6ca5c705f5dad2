"""The model's own offsets against the layouts that the driver's data holds: two tables made apart that must agree."""

from __future__ import annotations

import pytest

from nvcore_fw_gsp import abi
from nvcore_softgpu.gsp import events
from nvcore_softgpu.gsp.controls import CONTROLS
from nvcore_softgpu.gsp.rpc import FUNCTIONS
from nvcore_softgpu.gsp.static_info import sriov_block
from nvcore_softgpu.gsp.status import Status
from nvcore_softgpu.gsp.versions import VERSIONS, Version

EACH = pytest.mark.parametrize("version", VERSIONS.values(), ids=lambda version: version.name)


@EACH
def test_static_info_offsets(version: Version) -> None:
    layout, own = abi.load(version.name).struct("GspStaticConfigInfo"), version.static_info
    expected = {
        "gidInfo": own.gid, "fbRegionInfoParams": own.regions, "sriovCaps": own.sriov, "sriovMaxGfid": own.max_gfid,
        "fb_length": own.fb_length, "fb_bus_width": own.fb_bus_width, "fb_ram_type": own.fb_bus_width + 4,
        "l2_cache_size": own.l2_size, "gpuNameString": own.name, "gpuShortNameString": own.short_name,
        "gpuNameString_Unicode": own.unicode_name, "bar1PdeBase": own.bar1_pde, "bar2PdeBase": own.bar1_pde + 8,
        "hInternalClient": own.handles, "hInternalDevice": own.handles + 4, "hInternalSubdevice": own.handles + 8,
    }  # fmt: skip
    if own.gpc is not None:
        expected |= {"gpcInfo": own.gpc, "tpcInfo": own.gpc + 4}
    if own.wpr_layout is not None:
        expected["fwWprLayoutOffset"] = own.wpr_layout
    assert {name: layout.offset(name) for name in expected} == expected
    assert layout.size == own.size


@EACH
def test_message_and_allocation_sizes(version: Version) -> None:
    load = abi.load(version.name).struct
    own = {
        "GspSystemInfo": version.system_info_size, "GSP_ARGUMENTS_CACHED": version.arguments_size,
        "NV0000_ALLOC_PARAMETERS": version.root_size,
        "NV_CHANNEL_ALLOC_PARAMS": version.channel_size, "NV0080_CTRL_GPU_GET_SRIOV_CAPS_PARAMS": version.static_info.sriov_size,
        "NV2080_CTRL_VGPU_MGR_INTERNAL_BOOTLOAD_GSP_VGPU_PLUGIN_TASK_PARAMS": version.bootload.size,
        "NV2080_CTRL_VGPU_MGR_INTERNAL_PGPU_ADD_VGPU_TYPE_PARAMS": version.upload_size, "NVA081_CTRL_VGPU_INFO": version.type_size,
        "NV0080_ALLOC_PARAMETERS": 56, "NV_VASPACE_ALLOCATION_PARAMETERS": 48, "NVC0B5_ALLOCATION_PARAMETERS": 8,
        "NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS": 20, "NV_CTXSHARE_ALLOCATION_PARAMETERS": 12, "NV0005_ALLOC_PARAMETERS": 24,
    }  # fmt: skip
    assert {name: load(name).size for name in own} == own
    assert load("GspSystemInfo").offset("gspVFInfo") == version.vf_info
    info = load("GspSystemInfo")
    assert {name: (info.offset(name), info.field(name).size) for name in version.identity} == dict(version.identity)
    assert load("GSP_ARGUMENTS_CACHED").offset("srInitArguments") == version.resume_arguments


@EACH
def test_bootload_offsets(version: Version) -> None:
    layout = abi.load(version.name).struct("NV2080_CTRL_VGPU_MGR_INTERNAL_BOOTLOAD_GSP_VGPU_PLUGIN_TASK_PARAMS")
    at = version.bootload
    assert [layout.offset(name) for name in ("chidOffset", "numGuestFbSegments", "guestFbPhysAddrList", "guestFbLengthList")] == [
        at.chids, at.segment_count, at.segment_addresses, at.segment_lengths,
    ]  # fmt: skip
    names = ("pluginHeapMemoryPhysAddr", "pluginHeapMemoryLength", "ctrlBuffOffset", "initTaskLogBuffOffset", "initTaskLogBuffSize")
    assert [layout.offset(name) for name in names] == [at.heap + 8 * index for index in range(5)]
    if at.kernel_log is not None:
        assert layout.offset("kernelLogBuffOffset") == at.kernel_log


# control number: structure of its parameters, where the names follow no rule
STRUCTS = {
    0x20800137: "NV2080_CTRL_GPU_GET_FERMI_GPC_INFO_PARAMS", 0x20800138: "NV2080_CTRL_GPU_GET_FERMI_TPC_INFO_PARAMS",
    0x2080014A: "NV2080_CTRL_GPU_GET_GID_INFO_PARAMS", 0x20800110: "NV2080_CTRL_GPU_GET_NAME_STRING_PARAMS",
    0x20800170: "NV2080_CTRL_GPU_GET_ENGINES_V2_PARAMS", 0x2080017E: "NV2080_CTRL_GPU_GET_VMMU_SEGMENT_SIZE_PARAMS",
    0x20800301: "NV2080_CTRL_EVENT_SET_NOTIFICATION_PARAMS", 0x20801303: "NV2080_CTRL_FB_GET_INFO_V2_PARAMS",
    0x20801320: "NV2080_CTRL_CMD_FB_GET_FB_REGION_INFO_PARAMS", 0x20801701: "NV2080_CTRL_MC_GET_ARCH_INFO_PARAMS",
    0x20800A5C: "NV2080_CTRL_INTERNAL_INTR_GET_KERNEL_TABLE_PARAMS", 0x20800AAC: "NV2080_CTRL_INTERNAL_BIF_GET_STATIC_INFO_PARAMS",
    0x20801112: "NV2080_CTRL_FIFO_GET_DEVICE_INFO_TABLE_PARAMS", 0x20802A08: "NV2080_CTRL_CE_GET_FAULT_METHOD_BUFFER_SIZE_PARAMS",
    0x20800A61: "NV2080_CTRL_INTERNAL_FIFO_GET_NUM_CHANNELS_PARAMS", 0x2080110B: "NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS",
    0xA06F0104: "NVA06F_CTRL_BIND_PARAMS", 0xA06F0103: "NVA06F_CTRL_GPFIFO_SCHEDULE_PARAMS", 0xA06F0112: "NVA06F_CTRL_STOP_CHANNEL_PARAMS",
    0x906F0102: "NV906F_CTRL_CMD_RESET_CHANNEL_PARAMS", 0xA06C0103: "NVA06C_CTRL_TIMESLICE_PARAMS",
    0x20800A32: "NV2080_CTRL_INTERNAL_STATIC_KGR_GET_CONTEXT_BUFFERS_INFO_PARAMS", 0x20801206: "NV2080_CTRL_GR_GET_ZCULL_INFO_PARAMS",
    0x2080012B: "NV2080_CTRL_GPU_PROMOTE_CTX_PARAMS", 0x00801813: "NV0080_CTRL_DMA_SET_PAGE_DIRECTORY_PARAMS",
    0x00801814: "NV0080_CTRL_DMA_UNSET_PAGE_DIRECTORY_PARAMS", 0x90F10106: "NV90F1_CTRL_VASPACE_COPY_SERVER_RESERVED_PDES_PARAMS",
    0x20800A1C: "NV2080_CTRL_INTERNAL_MEMSYS_GET_STATIC_CONFIG_PARAMS", 0x00801306: "NV0080_CTRL_FB_GET_COMPBIT_STORE_INFO_PARAMS",
    0x20800AC2: "NV2080_CTRL_INTERNAL_FBSR_INIT_PARAMS",
    0x20804004: "NV2080_CTRL_VGPU_MGR_INTERNAL_ENUMERATE_VGPU_PER_PGPU_PARAMS",
    0x20804006: "NV2080_CTRL_VGPU_MGR_INTERNAL_GET_VGPU_FB_USAGE_PARAMS",
    0x20804007: "NV2080_CTRL_VGPU_MGR_INTERNAL_SET_VGPU_ENCODER_CAPACITY_PARAMS",
    0x20804009: "NV2080_CTRL_VGPU_MGR_INTERNAL_GET_PGPU_FS_ENCODING_PARAMS",
    0x2080400C: "NV2080_CTRL_VGPU_MGR_INTERNAL_FREE_STATES_PARAMS",
}  # fmt: skip


@EACH
def test_control_parameter_sizes(version: Version) -> None:
    data = abi.load(version.name)
    wrong = {}
    for command, name in STRUCTS.items():
        expected = CONTROLS[command].bytes_in(version)
        found = data.struct(name).size if data.has_struct(name) else None
        if expected != found:
            wrong[f"{command:#x} {name}"] = (expected, found)
    assert wrong == {}


@EACH
def test_event_layouts_and_numbers(version: Version) -> None:
    data = abi.load(version.name)
    triggered = events.rc_triggered(version, engine_type=9, chid=1, gfid=0, xid=31, address=0)
    assert len(triggered) == data.struct("rpc_rc_triggered_v17_02").size
    assert len(events.error_log(version, xid=31, runlist=0, chid=1, text="x")) == data.struct("rpc_os_error_log_v17_00").size
    assert data.enum("NV_VGPU_MSG_EVENT_GSP_LOCKDOWN_NOTICE") == version.lockdown_event
    for name in ("RC_TRIGGERED", "MMU_FAULT_QUEUED", "OS_ERROR_LOG"):
        assert data.enum(f"NV_VGPU_MSG_EVENT_{name}") == getattr(events, name)
    assert data.enum("NV_VGPU_MSG_EVENT_GSP_INIT_DONE") == events.INIT_DONE
    assert data.enum("NV_VGPU_MSG_EVENT_VGPU_GSP_PLUGIN_TRIGGERED") == events.VGPU_PLUGIN_TRIGGERED


@EACH
def test_function_numbers_and_statuses(version: Version) -> None:
    data = abi.load(version.name)
    wrong = {name: number for number, name in FUNCTIONS.items() if data.enum(f"NV_VGPU_MSG_FUNCTION_{name}") != number}
    assert wrong == {}
    assert (data.enum("MC_ENGINE_IDX_GSP"), data.enum("MC_ENGINE_IDX_GR0")) == (version.engine_gsp, version.engine_gr0)
    assert data.enum("MC_ENGINE_IDX_CE0") == version.engine_ce0
    public = {name: value for name, value in vars(Status).items() if not name.startswith("_")}
    statuses = {name: value for name, value in public.items() if isinstance(value, int) and 0 < value < 0xFF}
    renamed = {"DUPLICATE_NAME": "INSERT_DUPLICATE_NAME"}
    assert {name: data.enum(f"NV_ERR_{renamed.get(name, name)}") for name in statuses} == statuses


def test_sriov_block_fields() -> None:
    layout = abi.load("570.144").struct("NV0080_CTRL_GPU_GET_SRIOV_CAPS_PARAMS")
    block = sriov_block({"total_vfs": 16, "first_vf_offset": 4, "bar1_size": 1 << 32, "bar1_address": 1 << 40}, True, 80)
    view = layout.unpack(block)
    assert (view["totalVFs"], view["firstVfOffset"], view["bar1Size"], view["FirstVFBar1Address"]) == (16, 4, 1 << 32, 1 << 40)
    assert (bool(view["bSriovEnabled"]), bool(view["b64bitBar1"]), bool(view["bSriovHeavyEnabled"])) == (True, True, False)
