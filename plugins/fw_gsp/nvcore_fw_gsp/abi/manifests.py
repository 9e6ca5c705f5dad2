"""Manifests: how a firmware version behaves beyond its layouts, as one declared row a version.

Owns the behaviour keys and nothing else; sizes and numbers are in `data/` and are declared only there. Adding a version is adding a data
file and a row here and, where a key takes a value that no code knows yet, one adapter chosen by that key. Any thread.
Source: open-gpu-kernel-modules at the tag of each version (message_queue_priv.h, rpc_global_enums.h, g_rpc-structures.h,
gsp_init_args.h, kernel_gsp.c, fbsr headers, engine type headers); the first tag of a change is named beside its key.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from nvcore_fw_gsp.abi.errors import AbiVersionError
from nvcore_fw_gsp.abi.store import load

__all__ = ["MANIFESTS", "Manifest", "of"]


class Manifest(NamedTuple):
    """How one version behaves; keys read in no source are None."""

    version: str
    layout_only: bool
    """No image and no outside driver for it here: the layouts are checked, the behaviour is not run."""
    lockless_queues: bool
    """The init arguments name a second queue pair (gone since 555.42.02)."""
    queue_parameters: bool
    """Element size and alignment are passed in the init arguments (since 595.44.02); otherwise both sides know them."""
    reply_sequence: bool
    """Replies echo the request's sequence number (since 570.190 and 580.82.07); otherwise they are matched by function only."""
    sequencer: bool
    """The CPU-sequencer event may come while booting (to 590)."""
    load_exec_events: bool
    """The two load-and-execute events may come instead (since 595.44.02)."""
    gr_static_info: bool
    """GPC, TPC, ZCULL and SM data lie in the static info (to 550); otherwise controls tell them."""
    intr_subtree_masks: bool
    """The interrupt table's tail has masks (since 580); otherwise start and end bytes."""
    intr_gsp_engine: int
    """Engine index of GSP in the interrupt table (a slot came in behind NVENC2 at 550)."""
    rm_engine_shift: int
    """What the RM engine type of SW and of all behind it is more than in 535."""
    suspend: Literal["fbsr-regions", "fbsr-init"]
    """Save and restore by one call a region (to 550), or by one call with resume metadata."""
    events: Literal["535", "550"]
    """Numbering family of the events from 0x101b on."""
    log_regions: tuple[tuple[str, ...], tuple[str, ...]] | None
    """Log regions before RMARGS, in the order of the libos arguments, for (libos2, libos3) images."""
    differs: tuple[str, ...] = ()
    """JSON paths at which the golden transcript may differ from the preferred version's."""

    def family(self) -> dict[str, int | str | bool | None]:
        """The keys that choose a layout family, sizes taken from the data: what a compatibility check compares."""
        data = load(self.version)
        sizes = {
            "control_header": "rpc_gsp_rm_control_v03_00",
            "static_info": "GspStaticConfigInfo",
            "system_info": "GspSystemInfo",
            "rc_triggered": "rpc_rc_triggered_v17_02",
            "os_error_log": "rpc_os_error_log_v17_00",
            "fb_region_entry": "NV2080_CTRL_CMD_FB_GET_FB_REGION_FB_REGION_INFO",
            "root_alloc": "NV0000_ALLOC_PARAMETERS",
            "channel_alloc": "NV_CHANNEL_ALLOC_PARAMS",
            "vaspace_alloc": "NV_VASPACE_ALLOCATION_PARAMETERS",
        }
        result: dict[str, int | str | bool | None] = {key: data.struct(name).size for key, name in sizes.items()}
        result["intr_gsp_engine"] = self.intr_gsp_engine
        result["rm_engine_shift"] = self.rm_engine_shift
        result["events"] = self.events
        result["reply_sequence"] = self.reply_sequence
        result["sequencer"] = self.sequencer
        return result


_LOGS_535: Final = (("LOGINIT", "LOGINTR", "LOGRM"), ("LOGINIT", "LOGINTR", "LOGRM"))
_LOGS_570: Final = (("LOGINIT", "LOGINTR", "LOGRM", "LOGMNOC"), ("LOGINIT", "LOGINTR", "LOGRM", "LOGMNOC", "LOGKRNL"))
_LOGS_595: Final = (
    ("LOGINIT", "LOGRM", "LOGMNOC", "LOGDBG", "LOGROOT", "LOGRMON"),
    ("LOGINIT", "LOGINTR", "LOGRM", "LOGMNOC", "LOGDBG", "LOGROOT", "LOGRMON", "LOGKRNL"),
)

_V535: Final = Manifest(
    "535.113.01",
    layout_only=False,
    lockless_queues=True,
    queue_parameters=False,
    reply_sequence=False,
    sequencer=True,
    load_exec_events=False,
    gr_static_info=True,
    intr_subtree_masks=False,
    intr_gsp_engine=0x31,
    rm_engine_shift=0,
    suspend="fbsr-regions",
    events="535",
    log_regions=_LOGS_535,
    differs=("$[*].record.address", "$[*].record.function", "$[*].answer.capabilities", "$[*].answer.firmware"),
)
_V550: Final = _V535._replace(version="550.163.01", layout_only=True, differs=(), intr_gsp_engine=0x32, rm_engine_shift=1, events="550")
_V570: Final = _V550._replace(
    version="570.144", layout_only=False, lockless_queues=False, gr_static_info=False, suspend="fbsr-init", log_regions=_LOGS_570
)
_V580: Final = _V570._replace(version="580.142", layout_only=True, reply_sequence=True, intr_subtree_masks=True, log_regions=None)
_V590: Final = _V580._replace(version="590.48.01")
_V595: Final = _V590._replace(version="595.45.04", queue_parameters=True, sequencer=False, load_exec_events=True, log_regions=_LOGS_595)

MANIFESTS: Final = (_V535, _V550, _V570, _V580, _V590, _V595)


def of(version: str) -> Manifest:
    """The manifest of a version. Raises AbiVersionError."""
    for row in MANIFESTS:
        if row.version == version:
            return row
    raise AbiVersionError(f"no manifest for firmware version {version!r}", expected=" or ".join(row.version for row in MANIFESTS))
