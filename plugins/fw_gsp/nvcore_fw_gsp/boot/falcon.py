"""Driving one falcon: reset, load by PIO, start, wait for its halt.

Owns the registers of one falcon for as long as the opener (or the unload) drives it. The way of chips without PIO protection: Turing,
GA100.
Source: nova-core falcon.rs and falcon/hal/tu102.rs; nouveau nvkm/falcon/{gm200,tu102,ga100}.c.
"""

from __future__ import annotations

from typing import Final

from nvcore.hw.chips import BOOT_0
from nvcore.hw.registers import falcon as reg
from nvcore_fw_gsp.boot.io import BootIo

__all__ = ["Falcon"]

_BLOCK: Final = 256
_SETTLE_READS: Final = 8


class Falcon:
    """The falcon `name` ("GSP", "SEC2") at `base`."""

    __slots__ = ("base", "io", "name", "unit")

    def __init__(self, io: BootIo, name: str, base: int) -> None:
        self.io, self.name, self.base, self.unit = io, name, base, f"{name}."

    def reset(self) -> None:
        """Reset into the falcon core with scrubbed memories, by the way of Turing and GA100."""
        io, base = self.io, self.base
        io.write(reg.ENGINE.of(reset=1), base)
        for _ in range(_SETTLE_READS):  # the reference driver's delay: reads that reach the unit, instead of a timer
            io.peek(reg.ENGINE, base, unit=self.unit)
        io.write(reg.ENGINE.zero(), base)
        io.wait(
            lambda: io.read(reg.DMACTL, base, unit=self.unit),
            lambda v: not v.dmem_scrubbing and not v.imem_scrubbing,
            timeout=0.010,
            what=f"the memory scrub of {self.name}",
        )
        io.write(reg.RM(io.read(BOOT_0).raw), base)

    def prepare_dma(self) -> None:
        """Let the ucode do physical DMA without a context."""
        io, base = self.io, self.base
        io.write(io.read(reg.FBIF_CTL, base, unit=self.unit).replace(allow_physical_no_context=1), base)
        io.write(reg.DMACTL.zero(), base)

    def load_code(self, data: bytes | bytearray | memoryview, at: int, tag: int, *, secure: bool) -> None:
        """Store code at IMEM byte `at` (a multiple of 256), its blocks tagged from `tag` on; the last block is padded with zeros."""
        io, base = self.io, self.base
        io.write(reg.IMEMC.of(block=at // _BLOCK, increment_write=1, secure=int(secure)), base)
        port = reg.IMEMD.address(base)
        tags = reg.IMEMT.address(base)
        bar = io.bar
        view = memoryview(bytes(data) + bytes(-len(data) % _BLOCK))
        for start in range(0, len(view), _BLOCK):
            bar.write32(tags, tag)
            bar.write_port(port, view[start : start + _BLOCK])
            tag += 1

    def load_data(self, data: bytes | bytearray | memoryview, at: int) -> None:
        """Store data at DMEM byte `at` (a multiple of 4)."""
        io, base = self.io, self.base
        io.write(reg.DMEMC.of(offset=at % _BLOCK // 4, block=at // _BLOCK, increment_write=1), base)
        io.bar.write_port(reg.DMEMD.address(base), bytes(data) + bytes(-len(data) % 4))

    def set_mailboxes(self, low: int, high: int) -> None:
        """Both mailboxes."""
        self.io.write(reg.MAILBOX0(low), self.base)
        self.io.write(reg.MAILBOX1(high), self.base)

    def mailbox0(self) -> int:
        """The first mailbox, as it is (a result may be any number; all ones means that nothing answers)."""
        return self.io.read(reg.MAILBOX0, self.base, unit=self.unit).raw

    def mailbox1(self) -> int:
        """The second mailbox."""
        return self.io.read(reg.MAILBOX1, self.base, unit=self.unit).raw

    def start(self, vector: int | None = None) -> None:
        """Start at `vector` (None: where it stands)."""
        io, base = self.io, self.base
        if vector is not None:
            io.write(reg.BOOTVEC(vector), base)
        if io.read(reg.CPUCTL, base, unit=self.unit).alias_enable:
            io.write(reg.CPUCTL_ALIAS.of(startcpu=1), base)
        else:
            io.write(reg.CPUCTL.of(startcpu=1), base)

    def wait_halted(self, what: str, timeout: float = 2.0) -> None:
        """Wait for the core's halt. Raises BootTimeout; DEBUGINFO, HWCFG2 and both mailboxes are then among the last registers."""
        io, base = self.io, self.base
        try:
            io.wait(lambda: io.read(reg.CPUCTL, base, unit=self.unit), lambda v: bool(v.halted), timeout=timeout, what=what)
        finally:
            for register in (reg.MAILBOX0, reg.MAILBOX1, reg.HWCFG2, reg.DEBUGINFO):
                io.peek(register, base, unit=self.unit)
