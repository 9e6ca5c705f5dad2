"""Model conventions of the GSP: values that no public source attests for these chips, in one table.

They are plausible, fixed and shown as conventions wherever they appear; a driver must not depend on them. Declarations only.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["CONTEXT_BUFFER", "CONVENTIONS", "FAULT_METHOD_BUFFER", "GPUS", "RESUME_MILLISECONDS", "ZCULL", "GpuFacts", "uuid"]


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
"""By the chip's name."""

CHANNELS_PER_RUNLIST: Final = 2048
FAULT_METHOD_BUFFER: Final = 0x2000  # bytes a channel
CONTEXT_BUFFER: Final = 0x1000  # bytes and alignment of each
ZCULL: Final = (32, 32, 512, 1, 0, 256, 256, 0, 1, 0)  # ten words of geometry
MAX_VGPUS: Final = 32
MAX_OBJECTS: Final = 1 << 16
LOG_WORDS: Final = 4
RESUME_MILLISECONDS: Final = 100  # from the start of a resumed firmware to its GSP_INIT_DONE

CONVENTIONS: Final[tuple[tuple[str, str, str], ...]] = (
    ("GPU facts in static info", "short name, L2 size, memory bus, RAM type", "published figures of the boards"),
    ("floorsweeping", "one GPC with two TPCs", "enough for every driver run on the model"),
    (
        "graphics context buffers",
        f"{CONTEXT_BUFFER >> 10} KiB each, 4 KiB alignment",
        "real sizes are not published; drivers only need them non-zero",
    ),
    ("channel ids", f"{CHANNELS_PER_RUNLIST:,} on every runlist", "what sources give for later chips"),
    ("fault method buffer", f"{FAULT_METHOD_BUFFER >> 10} KiB per channel", "any non-zero size up to 64 KiB is accepted"),
    ("zcull geometry", "ten fixed words", "read and passed on, used by nothing here"),
    ("GSP_INIT_DONE", "no payload", "no driver reads one"),
    (
        "GSP_INIT_DONE of a resume",
        f"{RESUME_MILLISECONDS} ms after the start",
        "real firmware needs longer, and one driver loses a message that is there before it looks",
    ),
    ("CPU sequencer", "chips with a booter post one empty sequence before GSP_INIT_DONE", "one driver waits for it, the others accept it"),
    ("GSP log buffers", "four words at the start and at every error, format ids are CRC-32", "the real encoding needs symbol files"),
    (
        "GPU UUID",
        "made from chip, VRAM size, PCI device id and bus address; behind a socket, where the address is not known, without it",
        "the same GPU always shows the same, and two of a host are told apart",
    ),
    ("channel ids picked by the GSP", "the lowest free one, never 0", "a driver that lets the GSP choose asks for the token"),
    ("objects of all clients", f"at most {MAX_OBJECTS:,}", "stands for the firmware's heap: no client makes the model grow without bound"),
    ("vGPU host RPC version", "the one asked for, or 0x10", "drivers send the negotiation without a body"),
    ("vGPU tasks", f"at most {MAX_VGPUS} per GPU; VGPU_GSP_PLUGIN_TRIGGERED at start, end and death", "notifier numbers of NVA084"),
    ("vGPU heap", "48 MiB for an A100-4C, any size that holds the buffers is taken", "no type list names one for GA100"),
    ("doorbell value of a VF", "gfid * 32 + 17 at 0xb82200", "the value of kernel patches under review, used for every chip"),
    ("first channel id that clients get", "1", "newer firmware reserves id 0; one rule for all versions"),
    ("internal handles", "client 0xc2000001, device 0xabcd0080, subdevice 0xabcd2080", "any non-zero values do"),
)
"""(what, value, why), merged into `nvcore_softgpu.conventions`."""


def uuid(chip: str, vram_size: int, device_id: int, place: int | None) -> bytes:
    """16 bytes, RFC 4122 version 4 in form, always the same for one GPU. place: its bus address as GspSystemInfo has it, None where nobody
    told."""
    from hashlib import sha256

    raw = bytearray(sha256(f"nvcore softgpu {chip} {vram_size} {device_id} {place}".encode()).digest()[:16])
    raw[6] = (raw[6] & 0x0F) | 0x40
    raw[8] = (raw[8] & 0x3F) | 0x80
    return bytes(raw)
