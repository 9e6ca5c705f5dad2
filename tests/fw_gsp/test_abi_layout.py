"""A structure is written within its widths and read within its buffer, or an error says why not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvcore_fw_gsp import abi

V = abi.load("570.144")
META = V.struct("GspFwWprMeta")
LEVELS = V.struct("NV90F1_CTRL_VASPACE_COPY_SERVER_RESERVED_PDES_PARAMS")


def test_paths_reach_into_structures_and_arrays():
    static = V.struct("GspStaticConfigInfo")
    info = V.struct("NV2080_CTRL_CMD_FB_GET_FB_REGION_INFO_PARAMS")
    entry = V.struct("NV2080_CTRL_CMD_FB_GET_FB_REGION_FB_REGION_INFO")
    expected = static.offset("fbRegionInfoParams") + info.offset("fbRegion") + 3 * entry.size + entry.offset("limit")
    assert static.offset("fbRegionInfoParams.fbRegion[3].limit") == expected
    assert LEVELS.offset("levels[2].size") == 40 + 2 * 24 + 8
    assert static.field("gpuNameString").type == "NvU8[64]"
    assert static.field("gpuNameString[63]").size == 1
    assert V.struct("rpc_run_cpu_sequencer_v17_00").offset("commandBuffer[5]") == 60


@pytest.mark.parametrize(
    "path", ["", "nope", "magic[0]", "magic.x", ".magic", "magic.", "padding[2]", "padding[-1]", "padding[0][0]", "a b"]
)
def test_a_path_that_leads_nowhere_is_an_error(path):
    with pytest.raises(abi.AbiFieldError):
        META.offset(path)


@given(st.dictionaries(st.sampled_from(["magic", "fbSize", "verified", "revision"]), st.integers(0, 2**64 - 1)))
def test_what_is_packed_comes_back_and_the_rest_is_zero(values):
    packed = META.pack(values)
    view = META.unpack(packed)
    assert {name: view[name] for name in values} == values
    assert len(packed) == 256
    for name in ("bootCount", "frtsOffset"):
        assert view[name] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flags", 256),
        ("flags", -1),
        ("magic", 2**64),
        ("magic", "x"),
        ("magic", None),
        ("padding", b"123"),
        ("partitionRpcPadding", [0] * 5),
    ],
)
def test_a_value_that_does_not_fit_is_refused(name, value):
    with pytest.raises(abi.AbiValueError, match=name):
        META.pack({name: value})


def test_unknown_members_are_errors():
    with pytest.raises(abi.AbiFieldError):
        META.pack(magik=1)


def test_short_buffers_are_refused_before_reading():
    with pytest.raises(abi.AbiValueError):
        META.unpack(bytes(255))
    with pytest.raises(abi.AbiValueError):
        META.unpack(bytes(256), 1)
    with pytest.raises(abi.AbiValueError):
        META.unpack(bytes(256), -1)
    with pytest.raises(abi.AbiValueError):
        META.get(bytes(100), "verified")
    with pytest.raises(abi.AbiValueError):
        META.put(bytearray(100), "verified", 1)


def test_structures_inside_take_mappings_and_bytes():
    packed = LEVELS.pack({"levels": [{"physAddress": 1}, {"size": 2}], "levels[5].pageShift": 47, "pageSize": 4096})
    view = LEVELS.unpack(packed)
    assert [level["physAddress"] for level in view["levels"]] == [1, 0, 0, 0, 0, 0]
    assert view["levels[1].size"] == 2
    assert view["levels"][5]["pageShift"] == 47
    again = LEVELS.pack(levels=view["levels"], pageSize=4096)
    assert again == packed
    assert view.as_dict()["levels"][1] == {"physAddress": 0, "size": 2, "aperture": 0, "pageShift": 0}


def test_members_of_a_union_share_their_place():
    command = V.struct("GSP_SEQUENCER_BUFFER_CMD")
    packed = command.pack({"opCode": 1, "payload.regWrite": {"addr": 0x110040, "val": 7}})
    assert command.get(packed, "payload.regModify.addr") == 0x110040
    assert command.offset("payload.regPoll") == command.offset("payload.regWrite") == 4


def test_bit_fields_keep_their_neighbours():
    pte = V.struct("pte_desc")
    packed = pte.pack(idr=2, length=5)
    assert pte.unpack(packed)["length"] == 5
    assert packed[:4] == (5 << 16 | 2).to_bytes(4, "little")
    with pytest.raises(abi.AbiValueError):
        pte.pack(idr=4)


def test_booleans_and_byte_arrays_read_as_such():
    static = V.struct("GspStaticConfigInfo")
    packed = static.pack(bIsTesla=True, gpuNameString=b"abc")
    assert static.get(packed, "bIsTesla") is True
    assert static.get(packed, "gpuNameString") == b"abc" + bytes(61)


def test_a_view_is_a_copy():
    buffer = META.pack(magic=1)
    view = META.unpack(buffer)
    META.put(buffer, "magic", 2)
    assert view["magic"] == 1


def test_a_packer_is_one_struct_over_the_whole_size():
    element = V.struct("GSP_MSG_QUEUE_ELEMENT")
    codec = element.packer("checkSum", "seqNum", "elemCount", "rpc.function")
    assert codec.size == element.size == 80
    packed = codec.pack(1, 2, 3, 4)
    assert (element.get(packed, "seqNum"), element.get(packed, "rpc.function")) == (2, 4)
    with pytest.raises(abi.AbiValueError):
        element.packer("seqNum", "checkSum")
    with pytest.raises(abi.AbiValueError):
        element.packer("rpc")
