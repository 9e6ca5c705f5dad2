"""Model conventions: what the software GPU shows and no source attests.

Owns one table, for `nvcore softgpu conventions` and docs/status.md. Data only; where the code has a constant, its value is put into the
text from there. A value listed here proves nothing about hardware.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from nvcore_softgpu.chips import CHIPS, KIB, Chip
from nvcore_softgpu.gsp.conventions import CONVENTIONS as GSP_CONVENTIONS
from nvcore_softgpu.wpr import REFUSALS

__all__ = ["CONVENTIONS", "Convention"]


class Convention(NamedTuple):
    """One choice of ours: `what` it concerns, the `value`, and `why` this one was taken."""

    what: str
    value: str
    why: str


def _size(value: int) -> str:
    for unit, name in ((KIB**3, "GiB"), (KIB**2, "MiB")):
        if not value % unit:
            return f"{value // unit} {name}"
    return f"{value // KIB} KiB"


def _each(of: Callable[[Chip], str]) -> str:
    """What each chip has, by name, or once where all have the same."""
    found = {chip.name: of(chip) for chip in CHIPS}
    if len(set(found.values())) == 1:
        return f"{of(CHIPS[0])} ({' and '.join(found)})"
    return ", ".join(f"{value} ({name})" for name, value in found.items())


CONVENTIONS: Final = (
    Convention(
        "SR-IOV: VF count, first offset, stride",
        _each(lambda chip: f"{chip.sriov.total_vfs}, {chip.sriov.first_vf_offset}, {chip.sriov.stride}"),
        "published boards name 16 to 20 VFs; none of the sources gives offsets",
    ),
    Convention("SR-IOV: device id of a VF", "that of the physical function", "no source gives another"),
    Convention(
        "SR-IOV: size of VF bar 0",
        _each(lambda chip: _size(chip.sriov.bar0)),
        "the register window that sources give for later chips",
    ),
    Convention(
        "SR-IOV: sizes of VF bars 1 and 2",
        _each(lambda chip: f"{_size(chip.sriov.bar1)} and {_size(chip.sriov.bar2)}"),
        "bar 1 by the largest vGPU, bar 2 as the physical function",
    ),
    Convention(
        "VMMU segment",
        _each(lambda chip: _size(chip.vmmu_segment)),
        "values that the control may return; 3,776 MiB of an A100-4C are whole segments of 64 MiB",
    ),
    Convention(
        "bus addresses of the BARs after a reset",
        "from 0x90000000 and from 32 TiB upwards, each on a boundary of 64 GiB",
        "in place of start-up firmware; whoever owns the device may write others",
    ),
    Convention(
        "PCI configuration space",
        "subsystem 10de:134f, serial number from it and the device id, 16 GT/s x16",
        "no driver run on the model reads them for more than showing",
    ),
    Convention("BAR1 size", "VRAM rounded up to a power of two, at least 256 MiB", "resizable in PCI; a power of two is a rule of PCI"),
    Convention(
        "interrupt vectors",
        "GSP 155, GR0 32, COPYn n",
        "values of the run that device-model.md describes; drivers take them from the interrupt table",
    ),
    Convention(
        "engines",
        "GR0, COPY0, COPY1 on runlists 0, 1, 2, registers of a runlist at 0x700000 + 0x10000 n",
        "the smallest set that lets user space open channels",
    ),
    Convention("fault ids, PBDMA ids", "GR0 0x80, COPYn 0x0f + n; 0, 1, 2", "numbers with no reader in the drivers run on the model"),
    Convention("BAR1 and BAR2 directories of the GSP", "in the top 64 KiB of VRAM", "inside the VGA workspace, which no driver hands out"),
    Convention(
        "BAR1 mode", "physical until the GSP runs, then the GSP's directory", "a driver that writes 0 to 0x1704 gets physical mode back"
    ),
    Convention(
        "errors of booter, FWSEC and FMC in mailbox 0",
        ", ".join(f"{code:#04x} {why}" for code, why in REFUSALS.items()),
        "the firmware's own numbers are opaque",
    ),
    Convention("error of a refused chain of trust", "0xa1, invalid data, whatever is wrong", "the list of numbers is known, their use not"),
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
