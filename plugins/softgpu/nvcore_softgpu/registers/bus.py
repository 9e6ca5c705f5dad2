"""PBUS, flush, PROM, the configuration mirror, the MMU invalidate and the doorbells: the remaining registers of BAR0.

Owns their rows. Effects are calls into the blocks that own them. Runs under the device's lock.
Source: device-model.md 4.3, 4.8, 8, 9.1; gsp-boot.md 1.4 (open-gpu-kernel-modules 570.144 dev_bus.h, dev_vm.h, dev_flush.h, dev_nv_xve.h).
"""

from __future__ import annotations

from collections.abc import Callable

from nvcore_softgpu.chips import Chip
from nvcore_softgpu.pci import ConfigSpace
from nvcore_softgpu.ports import Faults
from nvcore_softgpu.registers.file import NOUVEAU, OGKM, RegisterFile

__all__ = ["add_bus_registers", "add_doorbells", "add_invalidate", "add_prom"]


def add_bus_registers(registers: RegisterFile, chip: Chip, config: ConfigSpace, faults: Faults) -> None:
    """Scratch, flush and the mirror of configuration space."""
    registers.stored(0x001400, "PBUS_SW_SCRATCH", "scratch; FWSEC leaves its results in 0x0e and 0x15", OGKM + " dev_bus.h", count=64)

    def flush_state(offset: int) -> int:
        return 2 if faults.stands("flush-stuck") else 0

    registers.handled(0x070000, "UFLUSH_FB_FLUSH", "write 1 to flush; bit 1 busy", OGKM + " dev_flush.h", read=flush_state)
    if chip.mirror == 0x088000:
        registers.stored(0x088704, "XVE_MSI_REARM", "written once per interrupt", NOUVEAU + " nvkm/subdev/pci/gk104.c")

    def read(offset: int) -> int:
        return int.from_bytes(config.read(offset & 0xFFC, 4), "little")

    def write(offset: int, value: int) -> None:
        config.write(offset & 0xFFC, value.to_bytes(4, "little"))

    registers.aperture(chip.mirror, 0x1000, "CONFIG_MIRROR", "configuration space", OGKM + " dev_nv_xve.h", read=read, write=write)


def add_prom(registers: RegisterFile, rom: bytes, faults: Faults) -> None:
    """The ROM at 0x300000; all ones behind its end."""
    words = memoryview(rom + b"\xff" * (-len(rom) % 4)).cast("I")
    count = len(words)

    def read(offset: int) -> int:
        index = (offset & 0xFFFFF) >> 2
        return words[index] if index < count and not faults.stands("vbios-missing") else 0xFFFFFFFF

    def write(offset: int, value: int) -> None:
        """A ROM."""

    registers.aperture(0x300000, 1 << 20, "PROM", "expansion ROM", OGKM + " dev_bus.h", read=read, write=write)


def add_invalidate(registers: RegisterFile, drop: Callable[[], None], faults: Faults, halt: Callable[[str], None]) -> None:
    """The MMU invalidate. Every trigger drops everything: a narrower model would hide what a driver forgets. halt: the firmware dies, which
    does not depend on whether the invalidate ends."""
    source = OGKM + " dev_vm.h"
    registers.stored(0xB830A0, "MMU_INVALIDATE_PDB", "page directory, bits 39:12, aperture", source)
    registers.stored(0xB830A4, "MMU_INVALIDATE_UPPER_PDB", "page directory >> 40", source)

    def trigger(offset: int, value: int) -> None:
        if value >> 31 and faults.take("gsp-halt@invalidate") is not None:
            halt("fault gsp-halt@invalidate")
        if not value >> 31 or faults.take("stuck-invalidate") is not None:
            registers.values[offset] = value
        else:
            registers.values[offset] = value & 0x7FFFFFFF
            drop()

    registers.handled(0xB830B0, "MMU_INVALIDATE", "scope, acknowledgement; bit 31 trigger and busy", source, write=trigger)


def add_doorbells(
    registers: RegisterFile, ring: Callable[[int], None], queue: Callable[[], None], privileged: Callable[[int], None]
) -> None:
    """The usermode doorbell, in both views, the privileged doorbell of vGPU tasks, and the GSP's queue registers."""
    source = OGKM + " dev_vm.h"

    def doorbell(offset: int, value: int) -> None:
        registers.values[offset] = value
        ring(value)

    for place in (0x030090, 0xBB0090):
        registers.handled(place, "DOORBELL", "runlist << 16 | channel id", source, write=doorbell)

    def knock(offset: int, value: int) -> None:
        registers.values[offset] = value
        privileged(value)

    registers.handled(0xB82200, "PRIV_DOORBELL", "gfid * 32 + 17: host RPC of a vGPU task", source, write=knock)
    registers.stored(0xB65000, "RUNLIST_DOORBELL_ENABLE", "bit 31: doorbells on", OGKM + " dev_runlist.h")

    def command(offset: int, value: int) -> None:
        registers.values[offset] = value
        queue()

    source = OGKM + " dev_gsp.h"
    registers.handled(0x110C00, "PGSP_QUEUE_HEAD", "command queue doorbell; the value is ignored", source, write=command)
    registers.stored(0x110C04, "PGSP_QUEUE_TAIL", "tail of each queue", source, count=8, stride=8)
    registers.stored(0x110C08, "PGSP_QUEUE_HEAD_1", "heads of queues 1 to 7, which nobody serves", source, count=7, stride=8)
    registers.stored(0x110804, "PGSP_MAILBOX", "mailboxes of the GSP beside those of its falcon", source, count=4)
