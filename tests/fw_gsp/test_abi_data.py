"""The ABI data says what the headers of each version say."""

import json
import subprocess
import sys

import pytest

from nvcore_fw_gsp import abi
from nvcore_fw_gsp.images.find import VERSIONS

ALL = ("535.113.01", "550.163.01", "570.144", "580.142", "590.48.01", "595.45.04")

# Sizes per version, None where the structure does not exist: compiled from open-gpu-kernel-modules at the six tags.
SIZES = {
    "GspSystemInfo": (664, 880, 928, 936, 944, 944),
    "ACPI_METHOD_DATA": (484, 676, 676, 676, 676, 676),
    "GspStaticConfigInfo": (2168, 2184, 1656, 1792, 1808, 1592),
    "NV2080_CTRL_CMD_FB_GET_FB_REGION_FB_REGION_INFO": (48, 48, 48, 56, 56, 56),
    "MESSAGE_QUEUE_INIT_ARGUMENTS": (48, 48, 32, 32, 32, 64),
    "GSP_ARGUMENTS_CACHED": (80, 80, 72, 88, 88, 136),
    "GspFwWprMeta": (256,) * 6,
    "GspFwSRMeta": (256,) * 6,
    "GSP_FMC_BOOT_PARAMS": (56, 80, 80, 88, 88, 88),
    "RM_RISCV_UCODE_DESC": (84, 84, 84, 84, 92, 92),
    "rpc_gsp_rm_alloc_v03_00": (32,) * 6,
    "rpc_gsp_rm_control_v03_00": (24, 24, 24, 40, 40, 40),
    "rpc_rc_triggered_v17_02": (20, 28, 48, 48, 48, 48),
    "rpc_os_error_log_v17_00": (268, 268, 272, 272, 272, 272),
    "rpc_run_cpu_sequencer_v17_00": (40, 40, 40, 40, 40, None),
    "NV0000_ALLOC_PARAMETERS": (108, 108, 120, 120, 120, 120),
    "NV_CHANNEL_ALLOC_PARAMS": (360, 360, 368, 368, 368, 368),
    "NV2080_CTRL_INTERNAL_FBSR_SEND_REGION_INFO_PARAMS": (40, 40, None, None, None, None),
    "NV2080_CTRL_INTERNAL_GCX_ENTRY_PREREQUISITE_PARAMS": (None, 2, 2, 2, 2, 2),
    "NV2080_CTRL_VGPU_MGR_INTERNAL_BOOTLOAD_GSP_VGPU_PLUGIN_TASK_PARAMS": (6496, 6520, 6616, 6616, 6616, 6616),
    "NV2080_CTRL_VGPU_MGR_INTERNAL_PGPU_ADD_VGPU_TYPE_PARAMS": (316936, 325640, 334344, 694280, 694280, 694280),
}


def test_six_versions_are_there_in_order():
    assert abi.versions() == ALL


@pytest.mark.parametrize("name", SIZES)
def test_structures_have_the_sizes_of_their_headers(name):
    for version, size in zip(ALL, SIZES[name], strict=True):
        data = abi.load(version)
        assert data.has_struct(name) == (size is not None)
        if size is not None:
            assert data.struct(name).size == size


def test_members_move_inside_structures_of_one_size():
    assert abi.load("570.144").struct("GspFwWprMeta").offset("pmuReservedSize") == 244
    assert not abi.load("550.163.01").struct("GspFwWprMeta").has("pmuReservedSize")
    offsets = [abi.load(v).struct("GSP_ARGUMENTS_CACHED").offset("srInitArguments.bInPMTransition") for v in ALL]
    assert (offsets[0], offsets[1], offsets[2], offsets[5]) == (56, 56, 40, 72)
    assert [abi.load(v).struct("GSP_FMC_BOOT_PARAMS").offset("gspRmParams.bootArgsOffset") for v in ALL] == [48] * 6


def test_every_structure_of_every_version_loads():
    for version in ALL:
        data = abi.load(version)
        names = data.struct_names()
        assert len([name for name in names if "/" not in name]) in (1341, 2092, 2281, 2417, 2442, 2471)
        for name in names:
            layout = data.struct(name)
            ends = [field.offset + field.size for field in layout.fields.values()]
            assert max(ends, default=0) <= layout.size


def test_event_numbers_are_those_of_the_version():
    name = "NV_VGPU_MSG_EVENT_GSP_LOCKDOWN_NOTICE"
    assert [abi.load(version).enum(name) for version in ALL] == [0x101D] + [0x101C] * 5


def test_numbers_get_their_names_back():
    names = abi.load("570.144").enums("NV_VGPU_MSG_FUNCTION_GSP_RM_")
    assert names["NV_VGPU_MSG_FUNCTION_GSP_RM_CONTROL"] == 76


def test_text_and_bit_ranges_are_told_from_numbers():
    data = abi.load("570.144")
    assert data.text("GSP_IMAGE_SECTION_NAME") == ".fwimage"
    assert data.bits("GSP_FW_FLAGS") == (8, 0)
    with pytest.raises(abi.AbiNameError, match="no number"):
        data.enum("GSP_FW_FLAGS")
    with pytest.raises(abi.AbiNameError, match="no bit range"):
        data.bits("GSP_IMAGE_SECTION_NAME")


def test_what_is_missing_is_a_typed_error():
    with pytest.raises(abi.AbiVersionError, match=r"570\.144"):
        abi.load("570.145")
    with pytest.raises(abi.AbiNameError, match="no structure"):
        abi.load("595.45.04").struct("rpc_run_cpu_sequencer_v17_00")
    with pytest.raises(abi.AbiNameError, match="no constant"):
        abi.load("570.144").enum("NO_SUCH_NAME")


def test_loading_one_structure_does_not_parse_the_version():
    code = (
        "import json, sys; from nvcore_fw_gsp import abi; version = abi.load('595.45.04'); version.struct('GspFwWprMeta');"
        "print(json.dumps([list(version._structs), sorted(sys.modules)]))"
    )
    structures, modules = json.loads(subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True).stdout)
    assert structures == ["GspFwWprMeta"]
    own = [name for name in modules if name.startswith("nvcore") and not name.startswith(("nvcore_fw_gsp.abi", "nvcore.api"))]
    assert own == ["nvcore", "nvcore_fw_gsp"]
    assert not {"attr", "attrs", "pluggy"} & set(modules)


@pytest.mark.parametrize("version", ALL)
def test_manifest_agrees_with_the_layouts(version):
    row, data = abi.manifest(version), abi.load(version)
    init = data.struct("MESSAGE_QUEUE_INIT_ARGUMENTS")
    assert init.has("queueElementHdrSize") == row.queue_parameters
    assert data.has_struct("rpc_run_cpu_sequencer_v17_00") == row.sequencer


def test_versions_without_an_image_are_layout_only():
    assert {row for row in ALL if not abi.manifest(row).layout_only} == set(VERSIONS)
    with pytest.raises(abi.AbiVersionError):
        abi.manifest("570.124.04")
