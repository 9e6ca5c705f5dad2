"""A falcon: its memories, data ports, reset, start and halt, and the RISC-V status beside it.

Owns the registers of one falcon (GSP or SEC2). Knows nothing of what the loaded program means: starting calls back. Runs under the device's
lock. The data-port writes are hot (15,000 words a boot).
Source: device-model.md 5.1, 5.2; gsp-boot.md 3 (open-gpu-kernel-modules 570.144 dev_falcon_v4.h, dev_falcon_second_pri.h,
dev_riscv_pri.h).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nvcore_softgpu.chips import Chip
from nvcore_softgpu.ports import Faults, Violations
from nvcore_softgpu.registers.file import OGKM, RegisterFile

__all__ = ["HALT", "SWGEN0", "Falcon"]

SWGEN0: Final = 1 << 6  # interrupt line: software, raised by what the core runs
HALT: Final = 1 << 4  # interrupt line: the core halted
MEMORY: Final = 1 << 16
WORD: Final = 0xFFFFFFFF
_ACTIVE_LINES: Final = SWGEN0 | HALT
_CLEARED: Final = (0x018, 0x084, 0x104, *range(0x600, 0x620, 4), 0x624)
"""What a reset takes back: interrupt mask, RM, BOOTVEC, the targets of transfers and the leave to make them."""


class Falcon:
    """One falcon at `base`. on_start, on_reset: what the model does then. raise_line: called when an unmasked interrupt becomes pending.

    imem, dmem: 64 KiB each. code_words: words put into IMEM since the last reset; blocks: tag and security of each of its blocks; clean:
    reset, and nothing ran since; version_written: OS was written since the firmware started; halted, riscv_active: as the registers show.
    """

    def __init__(
        self,
        name: str,
        base: int,
        registers: RegisterFile,
        chip: Chip,
        faults: Faults,
        violations: Violations,
        on_start: Callable[[], None],
        on_reset: Callable[[], None],
        raise_line: Callable[[], None],
    ) -> None:
        self.name = name
        self.base = base
        self.imem = memoryview(bytearray(MEMORY))
        self.dmem = memoryview(bytearray(MEMORY))
        self.code_words = 0
        self.blocks: dict[int, tuple[int, bool]] = {}
        self.clean = False
        self.version_written = False
        self.halted = True
        self.riscv_active = False
        self.riscv_halted = False
        self.lockdown = chip.flow == "fsp"
        self.pending = 0
        self.in_reset = False
        self._values = registers.values
        self._faults = faults
        self._violation = violations.violation
        self._on_start = on_start
        self._on_reset = on_reset
        self._raise_line = raise_line
        self._chip = chip
        self._add_control(registers)
        self._add_ports(registers)
        self._add_riscv(registers)

    # --- what the rest of the model uses ------------------------------------------------------------------------------------------

    def mailbox(self) -> int:
        """Mailboxes 0 and 1 as one 64-bit value."""
        return self._values[self.base + 0x40] | self._values[self.base + 0x44] << 32

    def register(self, offset: int) -> int:
        """What one of its registers holds."""
        return self._values[self.base + offset]

    def set_mailbox(self, index: int, value: int) -> None:
        """Write one mailbox."""
        self._values[self.base + 0x40 + 4 * index] = value & WORD

    def raise_irq(self, bits: int) -> None:
        """Set interrupt bits; the line follows the mask of the running core."""
        self.pending |= bits
        if self.pending & self._mask():
            self._raise_line()

    def power_on(self) -> None:
        """State after power on or a function-level reset."""
        self._clear()
        self.halted = True
        self.clean = self.version_written = False
        self.lockdown = self._chip.flow == "fsp"
        for offset in (0x40, 0x44, 0x80, 0x84):
            self._values[self.base + offset] = 0

    # --- control registers --------------------------------------------------------------------------------------------------------

    def _add_control(self, registers: RegisterFile) -> None:
        source = OGKM + " dev_falcon_v4.h"
        base, prefix = self.base, self.name
        handled, stored, constant = registers.handled, registers.stored, registers.constant
        handled(base + 0x000, f"{prefix}_IRQSSET", "set interrupt bits", source, write=self._irq_set)
        handled(base + 0x004, f"{prefix}_IRQSCLR", "clear interrupt bits", source, write=self._irq_clear)
        handled(base + 0x008, f"{prefix}_IRQSTAT", "pending interrupt bits", source, read=lambda _: self.pending)
        handled(base + 0x010, f"{prefix}_IRQMSET", "unmask falcon interrupts", source, write=self._mask_set)
        handled(base + 0x014, f"{prefix}_IRQMCLR", "mask falcon interrupts", source, write=self._mask_clear)
        stored(base + 0x018, f"{prefix}_IRQMASK", "falcon interrupt mask", source)
        stored(base + 0x01C, f"{prefix}_IRQDEST", "falcon interrupt routing", source)
        stored(base + 0x040, f"{prefix}_MAILBOX0", "arguments of a program, and its result", source)
        stored(base + 0x044, f"{prefix}_MAILBOX1", "high word of an address in mailbox 0", source)
        stored(base + 0x048, f"{prefix}_ITFEN", "interface enables", source)
        handled(base + 0x080, f"{prefix}_OS", "application version of the boot program", source, write=self._version)
        stored(base + 0x084, f"{prefix}_RM", "BOOT_0, written by the driver after a reset", source)
        constant(base + 0x094, f"{prefix}_DEBUGINFO", "crash information: none", source, value=0)
        handled(base + 0x0F4, f"{prefix}_HWCFG2", "reset ready, scrubbing, lockdown", source, read=self._hwcfg2)
        handled(base + 0x100, f"{prefix}_CPUCTL", "start, halted", source, read=self._cpuctl, write=self._start)
        stored(base + 0x104, f"{prefix}_BOOTVEC", "first instruction", source)
        constant(base + 0x108, f"{prefix}_HWCFG", "256 blocks of IMEM and of DMEM", source, value=0x20100)
        handled(base + 0x10C, f"{prefix}_DMACTL", "context, scrubbing", source, read=self._dmactl, value=1)
        constant(base + 0x12C, f"{prefix}_HWCFG1", "core revision, security, ports", source, value=0x1136)
        handled(base + 0x130, f"{prefix}_CPUCTL_ALIAS", "start", source, read=self._cpuctl, write=self._start)
        for group, what in enumerate(("scratch", "scratch", "crash report wayfinder", "scratch")):
            stored(base + 0x300 + 16 * group, f"{prefix}_COMMON_SCRATCH_GROUP_{group}", what, source, count=4)
        handled(base + 0x3C0, f"{prefix}_ENGINE", "reset", source, read=self._engine, write=self._reset)
        handled(base + 0x3E8, f"{prefix}_INTR_RETRIGGER", "raise the line again if something is pending", source, write=self._retrigger)
        constant(base + 0x408, f"{prefix}_DEBUG_CONTROL", "bit 20: debug signatures; 0 = production", source, value=0)
        stored(base + 0x600, f"{prefix}_FBIF_TRANSCFG", "targets of DMA contexts", source, count=8)
        stored(base + 0x624, f"{prefix}_FBIF_CTL", "physical access without context", source)

    def _version(self, offset: int, value: int) -> None:
        self._values[offset] = value
        self.version_written = True

    def _irq_set(self, offset: int, value: int) -> None:
        self.raise_irq(value)

    def _irq_clear(self, offset: int, value: int) -> None:
        self.pending &= ~value & WORD

    def _mask_set(self, offset: int, value: int) -> None:
        self._values[self.base + 0x18] |= value

    def _mask_clear(self, offset: int, value: int) -> None:
        self._values[self.base + 0x18] &= ~value & WORD

    def _mask(self) -> int:
        return _ACTIVE_LINES if self.riscv_active or self.riscv_halted else self._values[self.base + 0x18]

    def _retrigger(self, offset: int, value: int) -> None:
        if value & 1 and self.pending & self._mask():
            self._raise_line()

    def _scrubbing(self) -> bool:
        return self._faults.stands("scrub-never", "", self.name.lower())

    def _hwcfg2(self, offset: int) -> int:
        return 1 << 31 | 1 << 10 | (1 << 13 if self.lockdown else 0) | (1 << 12 if self._scrubbing() else 0)

    def _dmactl(self, offset: int) -> int:
        return self._values[offset] & 1 | (6 if self._scrubbing() else 0)

    def _cpuctl(self, offset: int) -> int:
        return 1 << 4 if self.halted else 0

    def _start(self, offset: int, value: int) -> None:
        if not value & 2:
            return
        if self.in_reset:
            self._violation("start-in-reset", f"{self.name} started while its reset is asserted")
            return
        if self.riscv_active and self.name == "GSP":
            self._violation("start-running-falcon", f"{self.name} started while its RISC-V core runs")
        self.halted = False
        self._on_start()
        if self.code_words:
            self.clean = False

    def _engine(self, offset: int) -> int:
        return 1 if self.in_reset else 0x200 if self._chip.flow == "fsp" else 0

    def _reset(self, offset: int, value: int) -> None:
        asserted = bool(value & 1)
        if asserted and not self.in_reset:
            self._on_reset()
            self._clear()
        self.in_reset = asserted

    def _clear(self) -> None:
        if self.code_words:
            self.imem[:] = bytes(MEMORY)
            self.dmem[:] = bytes(MEMORY)
        self.code_words = 0
        self.blocks.clear()
        self.clean = True
        self.halted = self.riscv_active = self.riscv_halted = self.in_reset = False
        self.pending = 0
        for offset in _CLEARED:
            self._values[self.base + offset] = 0
        self._values[self.base + 0x10C] = 1  # a context is needed until the driver says otherwise

    # --- data ports ---------------------------------------------------------------------------------------------------------------

    def _add_ports(self, registers: RegisterFile) -> None:
        source = OGKM + " dev_falcon_v4.h"
        for port in range(4):
            registers.stored(self.base + 0x188 + 16 * port, f"{self.name}_IMEMT{port}", "tag of the block at the port", source)
            self._add_port(registers, self.base + 0x180 + 16 * port, f"{self.name}_IMEM{port}", self.imem, True)
        for port in range(8):
            self._add_port(registers, self.base + 0x1C0 + 8 * port, f"{self.name}_DMEM{port}", self.dmem, False)

    def _add_port(self, registers: RegisterFile, control: int, name: str, memory: memoryview, code: bool) -> None:
        """The control and the data register of one port; closures over plain cells keep the word path short."""
        words = memory.cast("I")
        position = 0  # in words
        flags = 0
        count = MEMORY // 4
        outside = self._violation
        values, tag = self._values, control + 8

        def mark(first: int, last: int) -> None:
            """The words [first, last) of IMEM were written: their blocks have the port's tag and security."""
            secure = bool(flags & 0x10000000)
            for block in range(first >> 6, last + 63 >> 6):
                self.blocks[block] = (values[tag] & 0xFFFF, secure)

        def write_control(offset: int, value: int) -> None:
            nonlocal position, flags
            position = (value & 0xFFFFFC) >> 2
            flags = value & 0xFF000000

        def read_control(offset: int) -> int:
            return flags | position << 2

        def write_data(offset: int, value: int) -> None:
            nonlocal position
            if position < count:
                words[position] = value
                if code:
                    self.code_words += 1
                    if not position & 63:
                        mark(position, position + 1)
            else:
                outside("falcon-memory-outside", f"{name} write beyond {MEMORY:#x}")
            if flags & 0x01000000:
                position += 1

        def read_data(offset: int) -> int:
            nonlocal position
            value = words[position] if position < count else 0
            if flags & 0x02000000:
                position += 1
            return value

        def write_many(data: memoryview) -> None:
            nonlocal position
            number = len(data) // 4
            if flags & 0x01000000 and position + number <= count:
                memory[position * 4 : (position + number) * 4] = data
                if code:
                    self.code_words += number
                    mark(position, position + number)
                position += number
                return
            for value in data.cast("I"):
                write_data(0, value)

        source = OGKM + " dev_falcon_v4.h"
        registers.handled(control, name + "C", "position and auto-increment", source, read=read_control, write=write_control)
        registers.handled(control + 4, name + "D", "data at the position", source, read=read_data, write=write_data)
        registers.ports_in[control + 4] = write_many

    # --- RISC-V and boot ROM ------------------------------------------------------------------------------------------------------

    def _add_riscv(self, registers: RegisterFile) -> None:
        source = OGKM + " dev_riscv_pri.h"
        base, prefix = self.base + 0x1000, self.name
        if self._chip.riscv == "turing":
            registers.handled(base + 0x240, f"{prefix}_RISCV_STATUS", "bit 0 active", source, read=lambda _: int(self.riscv_active))
            mask = base + 0x2B4
        else:
            registers.handled(base + 0x388, f"{prefix}_RISCV_CPUCTL", "bit 7 active, bit 4 halted", source, read=self._riscv_cpuctl)
            mask = base + 0x528
        registers.handled(mask, f"{prefix}_RISCV_IRQMASK", "lines the core lets through", source, read=lambda _: self._riscv_lines())
        registers.handled(mask + 4, f"{prefix}_RISCV_IRQDEST", "lines routed to the host", source, read=lambda _: self._riscv_lines())
        source = OGKM + " dev_falcon_second_pri.h"
        registers.stored(base + 0x180, f"{prefix}_MOD_SEL", "signature algorithm", source)
        registers.stored(base + 0x198, f"{prefix}_BROM_CURR_UCODE_ID", "ucode id", source)
        registers.stored(base + 0x19C, f"{prefix}_BROM_ENGIDMASK", "engine mask", source)
        registers.stored(base + 0x210, f"{prefix}_BROM_PARAADDR", "signature offset in DMEM", source)
        registers.handled(base + 0x668, f"{prefix}_BCR_CTRL", "core select, valid", source, read=lambda o: self._values[o] | 1)
        registers.stored(base + 0x66C, f"{prefix}_BCR_DMACFG", "aperture of the boot parameters, lock", source)
        parts = (("PKCPARAM", "signature parameters"), ("FMCCODE", "the FMC's code"), ("FMCDATA", "the FMC's data"))
        for place, (name, what) in enumerate(parts):
            registers.stored(base + 0x670 + 8 * place, f"{prefix}_BCR_{name}_LO", f"address of {what} >> 8, low word", source)
            registers.stored(base + 0x674 + 8 * place, f"{prefix}_BCR_{name}_HI", f"address of {what} >> 8, high word", source)

    def _riscv_cpuctl(self, offset: int) -> int:
        return (0x80 if self.riscv_active else 0) | (0x10 if self.riscv_halted else 0)

    def _riscv_lines(self) -> int:
        return _ACTIVE_LINES if self.riscv_active or self.riscv_halted else 0
