"""What a falcon must be like when a boot program starts on it: reset, allowed to reach memory, its code where tags and security say.

Owns the checks and no state. Raises BootRefusal; a real falcon would trap, or the program's first transfer would never end. Runs under the
device's lock, once a start.
Source: gsp-boot.md 3.4, 3.5, 3.8, 5.2 (open-gpu-kernel-modules 570.144 kernel_falcon_tu102.c, kernel_gsp_falcon_tu102.c; Linux 7.3 nouveau
nvkm/falcon/gm200.c, nvkm/subdev/gsp/fwsec.c).
"""

from __future__ import annotations

from typing import Final

from nvcore_softgpu.chips import Chip
from nvcore_softgpu.falcon import Falcon
from nvcore_softgpu.wpr import BootRefusal

__all__ = ["check_booter_code", "check_context", "check_loader_code", "check_prepared"]

RM, BOOTVEC, DMACTL, TRANSCFG, FBIF_CTL = 0x084, 0x104, 0x10C, 0x600, 0x624
LEAST_WORDS: Final = 64
_BLOCK: Final = 8  # log2 of the bytes of a block of IMEM


def check_prepared(falcon: Falcon, chip: Chip) -> None:
    """Reset since whatever ran last, told which chip it is in, and allowed to transfer without a context."""
    if not falcon.clean:
        raise BootRefusal(0x0C, "start-without-reset", f"{falcon.name} was not reset since its last program")
    told = falcon.register(RM)
    if told != chip.boot0:
        raise BootRefusal(0x0C, "falcon-rm", f"{falcon.name}: RM is {told:#x}, BOOT_0 {chip.boot0:#x}")
    control, limits = falcon.register(FBIF_CTL), falcon.register(DMACTL)
    if not control & 0x80 or limits & 1:
        raise BootRefusal(0x0C, "falcon-dma", f"{falcon.name}: FBIF_CTL {control:#x}, DMACTL {limits:#x}")


def check_context(falcon: Falcon, context: int) -> None:
    """The DMA context that the program was told to use leads to host memory."""
    config = falcon.register(TRANSCFG + 4 * context) if context < 8 else 0
    if not config & 4 or config & 3 not in (1, 2):
        raise BootRefusal(0x0C, "falcon-dma-context", f"{falcon.name}: context {context} is {config:#x}, not physical system memory")


def check_booter_code(falcon: Falcon) -> None:
    """A booter: its first block open, all others secure, each tagged with its own place; it starts at 0."""
    vector, blocks = falcon.register(BOOTVEC), falcon.blocks
    if falcon.code_words < LEAST_WORDS or vector:
        raise BootRefusal(0x09, "start-without-code", f"{falcon.code_words} words, boot vector {vector:#x}")
    for index in sorted(blocks):
        tag, secure = blocks[index]
        if tag != index:
            raise BootRefusal(0x09, "imem-tag", f"block {index} has tag {tag:#x}")
        if secure != (index > 0):
            raise BootRefusal(0x09, "imem-secure", f"block {index} is {'secure' if secure else 'open'}")
    if sorted(blocks) != list(range(len(blocks))) or len(blocks) < 2:
        raise BootRefusal(0x09, "start-without-code", f"{len(blocks)} blocks, up to block {max(blocks)}")


def check_loader_code(falcon: Falcon) -> None:
    """The generic bootloader, which pulls FWSEC in: open code, found by its tag."""
    vector = falcon.register(BOOTVEC)
    found = [secure for tag, secure in falcon.blocks.values() if tag == vector >> _BLOCK]
    if not found:
        raise BootRefusal(0x09, "imem-tag", f"{falcon.name} starts at {vector:#x} and no block has that tag")
    if any(found):
        raise BootRefusal(0x09, "imem-secure", f"{falcon.name}: the generic bootloader is loaded as secure code")
