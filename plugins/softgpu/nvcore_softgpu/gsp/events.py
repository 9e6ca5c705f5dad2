"""Events that the GSP posts on its own: numbers and payloads.

Pure functions; the layouts that differ come from the version. Source: open-gpu-kernel-modules 570.144 and 535.113.01,
rpc_global_enums.h, g_rpc-structures.h, rmgspseq.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from nvcore_softgpu.gsp.versions import Version

__all__ = [
    "INIT_DONE", "MMU_FAULT_QUEUED", "OS_ERROR_LOG", "RC_TRIGGERED", "RUN_CPU_SEQUENCER", "UNKNOWN", "VGPU_PLUGIN_TRIGGERED",
    "XID_MMU_FAULT", "XID_PBDMA", "cpu_sequence", "error_log", "rc_triggered",
]  # fmt: skip

INIT_DONE: Final = 0x1001  # the firmware is up
RUN_CPU_SEQUENCER: Final = 0x1002  # register writes that the host is to make
RC_TRIGGERED: Final = 0x1004  # a channel was taken off after an error
MMU_FAULT_QUEUED: Final = 0x1005  # the fault buffer has something; no payload
OS_ERROR_LOG: Final = 0x1006  # an Xid with its text
VGPU_PLUGIN_TRIGGERED: Final = 0x100D  # a vGPU's task came up, ended or crashed
UNKNOWN: Final = 0x1FFF  # a number that no version has
XID_MMU_FAULT: Final = 31  # an access that no page table allows
XID_PBDMA: Final = 32  # a pushbuffer that the host engine refuses
_SCOPE_CHANNEL: Final = 1
_LEVEL: Final = 2
_TEXT: Final = 256
_REG_WRITE: Final = 0


def rc_triggered(version: Version, *, engine_type: int, chid: int, gfid: int, xid: int, address: int) -> bytes:
    """RC_TRIGGERED: a channel was taken off after an error. engine_type: NV2080 numbering; address: of an MMU fault, else 0."""
    if not version.fault_gfid:
        return struct.pack("<IIIIH2x", engine_type, chid, xid, _SCOPE_CHANNEL, 0)
    low, high = address & 0xFFFFFFFF, address >> 32
    return struct.pack("<6IH2x5I", engine_type, chid, gfid, _LEVEL, xid, _SCOPE_CHANNEL, 0, low, high, 0, 0, 0)


def error_log(version: Version, *, xid: int, runlist: int, chid: int, text: str) -> bytes:
    """OS_ERROR_LOG: the Xid text of an error; cut to 255 bytes."""
    data = text.encode("ascii", "replace")[: _TEXT - 1].ljust(_TEXT, b"\0")
    return (struct.pack("<III", xid, runlist, chid) + data).ljust(version.error_log_size, b"\0")


def cpu_sequence(writes: Sequence[tuple[int, int]] = ()) -> bytes:
    """RUN_CPU_SEQUENCER with one REG_WRITE per (address, value); an empty sequence is legal."""
    words = [word for address, value in writes for word in (_REG_WRITE, address, value)]
    # the buffer is announced larger than what is used: one driver insists on it
    return struct.pack(f"<II8I{len(words)}I", len(words) + 1, len(words), *[0] * 8, *words)
