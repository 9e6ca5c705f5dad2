"""Model conventions of the GSP: values that no public source attests for these chips, in one table.

They are plausible, fixed and shown as conventions wherever they appear; a driver must not depend on them. Declarations only.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

__all__ = ["CONVENTIONS", "GPUS", "GpuFacts", "uuid"]


class GpuFacts(NamedTuple):
    """What the GSP tells about a chip that nobody can check."""

    short_name: str
    gpc_mask: int
    tpc_mask: int  # of every GPC
    l2_size: int
    bus_width: int
    ram_type: int
    architecture: int
    implementation: int


GPUS: Final[dict[str, GpuFacts]] = {
    "GA100": GpuFacts("GA100-A", 0x1, 0x3, 40 << 20, 5120, 14, 0x17, 0x0),
    "GH100": GpuFacts("GH100-A", 0x1, 0x3, 50 << 20, 5120, 18, 0x18, 0x0),
}

CHANNELS_PER_RUNLIST: Final = 2048
FAULT_METHOD_BUFFER: Final = 0x2000
CONTEXT_BUFFER: Final = 0x1000
ZCULL: Final = (32, 32, 512, 1, 0, 256, 256, 0, 1, 0)
MAX_VGPUS: Final = 32
LOG_WORDS: Final = 4

CONVENTIONS: Final[dict[str, str]] = {
    "gsp.names": "short GPU name, L2 size, memory bus and RAM type of both chips",
    "gsp.floorsweeping": "one GPC with two TPCs",
    "gsp.context-buffers": "every graphics context buffer is 4 KiB with 4 KiB alignment",
    "gsp.fault-method-buffer": "8 KiB per channel",
    "gsp.zcull": "zcull geometry",
    "gsp.init-done": "GSP_INIT_DONE carries no payload",
    "gsp.sequencer": "chips with a booter post one empty CPU sequence before GSP_INIT_DONE",
    "gsp.logs": "each log buffer receives four words at the start and at every error",
    "gsp.uuid": "the GPU's UUID is made from its chip name, VRAM size and bus address",
    "gsp.channel-pick": "without a fixed USERD page the GSP takes the lowest free channel id, never 0",
    "gsp.vgpu-version": "host RPC version negotiation answers the version asked for, or 0x10 when none is",
    "gsp.vgpu-limit": "32 vGPU tasks per GPU",
    "gsp.object-handles": "internal client 0xc2000001, device 0xabcd0080, subdevice 0xabcd2080",
}


def uuid(chip: str, vram_size: int, address: int) -> bytes:
    """16 bytes, RFC 4122 version 4 in form, always the same for one GPU."""
    raw = bytearray(hashlib.sha256(f"nvcore softgpu {chip} {vram_size} {address}".encode()).digest()[:16])
    raw[6] = (raw[6] & 0x0F) | 0x40
    raw[8] = (raw[8] & 0x3F) | 0x80
    return bytes(raw)
