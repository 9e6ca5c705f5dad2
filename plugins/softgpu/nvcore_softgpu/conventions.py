"""Model conventions: what the software GPU shows and no source attests.

Owns one table, used by the documents and by `nvcore softgpu` views. Data only. A value listed here proves nothing about hardware.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nvcore_softgpu.gsp.conventions import CONVENTIONS as GSP_CONVENTIONS

__all__ = ["CONVENTIONS", "Convention"]


class Convention(NamedTuple):
    """One choice of ours: `what` it concerns, the `value`, and `why` this one was taken."""

    what: str
    value: str
    why: str


CONVENTIONS: Final = (
    Convention(
        "SR-IOV: VF count, first offset, stride",
        "16, 4, 1 (GA100 and GH100)",
        "published boards name 16 to 20 VFs; none of the sources gives offsets",
    ),
    Convention(
        "SR-IOV: sizes of VF bars 1 and 2",
        "4 GiB (GA100) or 8 GiB (GH100), 32 MiB",
        "bar 1 by the largest vGPU, bar 2 as the physical function",
    ),
    Convention(
        "VMMU segment",
        "64 MiB (GA100), 256 MiB (GH100)",
        "values that the control may return; 3,776 MiB of an A100-4C are whole segments of 64 MiB",
    ),
    Convention("BAR1 size", "VRAM rounded up to a power of two, at least 256 MiB", "resizable in PCI; a power of two is a rule of PCI"),
    Convention(
        "interrupt vectors",
        "GSP 155, GR0 32, COPYn n",
        "values of the run that device-model.md describes; drivers take them from the interrupt table",
    ),
    Convention("engines", "GR0, COPY0, COPY1 on runlists 0, 1, 2", "the smallest set that lets user space open channels"),
    Convention("fault ids, PBDMA ids", "GR0 0x80, COPYn 0x0f + n; 0, 1, 2", "numbers with no reader in the drivers run on the model"),
    Convention("BAR1 and BAR2 directories of the GSP", "in the top 64 KiB of VRAM", "inside the VGA workspace, which no driver hands out"),
    Convention(
        "BAR1 mode", "physical until the GSP runs, then the GSP's directory", "a driver that writes 0 to 0x1704 gets physical mode back"
    ),
    Convention("booter mailbox errors", "0x01 to 0x1f, table in booter.py", "the firmware's own numbers are opaque"),
    Convention(
        "FMC layout on GH100",
        "frts, boot binary, image, heap, non-WPR heap downwards from 2 MiB below the top",
        "the GPU chooses; drivers read it from static info",
    ),
    Convention("WPR2 contents", "the image is compared page by page and not copied", "nothing outside the WPR may read it"),
    Convention(
        "access to WPR2 through BARs and copies",
        "all ones, lost writes, a violation",
        "hardware refuses; the exact pattern is not attested",
    ),
    Convention("VBIOS", "synthetic, version 92.00.22.11.01", "no ROM image is in any package"),
    Convention(
        "doorbell of a function", "0x030090 and 0xbb0090 take the same token", "both are views of one page for the physical function"
    ),
    Convention(
        "copies",
        "slices of at most 64 KiB, round robin over functions, then over their channels",
        "measured: one guest's copies must not stall another's reads",
    ),
    Convention("old semaphores 0x10 to 0x1c", "acquire and release only", "the operations that drivers send"),
    Convention(
        "bus addresses of in-process DMA",
        "upwards from 4 TiB, a guard page between buffers",
        "never reused, so that use after free is seen",
    ),
    *(Convention(*row) for row in GSP_CONVENTIONS),
)
"""All conventions."""
