"""The software GPU: every block of one physical function, put together, without a transport.

Owns the blocks and the wiring between them, and is what the GSP sees of the device (`ports.Environment`). Knows no socket, no descriptor
of an interrupt, no Python caller. Every method runs under the lock of whoever owns the model.
Source: DESIGN 6; device-model.md 15.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from nvcore.api.clock import Clock
from nvcore_softgpu.access import AccessWatch
from nvcore_softgpu.booter import BootFirmware
from nvcore_softgpu.chips import Chip
from nvcore_softgpu.falcon import HALT, SWGEN0, Falcon
from nvcore_softgpu.faults import ArmedFaults
from nvcore_softgpu.fsp import Fsp
from nvcore_softgpu.host import Host
from nvcore_softgpu.journal import Journal
from nvcore_softgpu.memory import PhysicalMemory
from nvcore_softgpu.mmu import Mmu
from nvcore_softgpu.pci import ConfigSpace
from nvcore_softgpu.ports import Aperture, Environment, Gsp, ImageShelf
from nvcore_softgpu.programs import BootProgram
from nvcore_softgpu.registers.bus import add_bus_registers, add_doorbells, add_invalidate, add_prom
from nvcore_softgpu.registers.chip import add_chip_registers
from nvcore_softgpu.registers.file import RegisterFile
from nvcore_softgpu.registers.interrupts import InterruptTree
from nvcore_softgpu.registers.timer import Timer
from nvcore_softgpu.ticker import ModelTicker
from nvcore_softgpu.vbios import Rom, build_rom
from nvcore_softgpu.windows import BarWindow, add_bar_blocks, add_pramin

__all__ = ["Model"]

MIB: Final = 1 << 20
DIRECTORIES: Final = 0x10000  # top of VRAM that holds the GSP's BAR directories (model convention)


class Model:
    """One GPU. send_message: raises the MSI. make_gsp: builds the behavioural GSP over this model.

    bus_address: domain << 32 | bus << 8 | device << 3 | function, for whoever knows it: behind a socket only the client does.
    """

    def __init__(
        self,
        chip: Chip,
        vram_size: int,
        bar1_size: int,
        clock: Clock,
        lock: threading.RLock,
        send_message: Callable[[], None],
        make_gsp: Callable[[Environment], Gsp],
        shelf: ImageShelf | None = None,
        faults: ArmedFaults | None = None,
        programs: Sequence[BootProgram] = (),
    ) -> None:
        self.chip = chip
        self.shelf = shelf
        self.programs = programs
        self.faults = faults or ArmedFaults()
        self.journal = Journal(self.faults.acted)
        self.ticker = ModelTicker(clock, lock)
        self.memory = PhysicalMemory(vram_size, self.journal)
        self.mmu = Mmu(self.memory, self.journal, chip.tables)
        self.registers = RegisterFile(self.journal)
        self.watch = AccessWatch(self.registers, self.faults)
        self._send_message = send_message
        self.doorbells = 0
        self.messages_lost = 0
        self.bus_address: int | None = None
        self._build(vram_size, bar1_size)
        self.gsp = make_gsp(self)

    @property
    def violations(self) -> Journal:
        """The journal (`ports.Violations`); its `violations` is the list."""
        return self.journal

    @property
    def channels(self) -> Host:
        """The host engine (`ports.ChannelHost`)."""
        return self.host

    def _build(self, vram_size: int, bar1_size: int) -> None:
        chip, registers, memory, journal = self.chip, self.registers, self.memory, self.journal
        self.config = ConfigSpace(chip, {0: 16 * MIB, 1: bar1_size, 3: chip.bar2_size}, self._bus_master, self.function_reset)
        add_chip_registers(registers, chip, vram_size, self.faults, self._startup_awaited)
        self.timer = Timer(registers, chip, self.ticker.now, self.faults)
        self.interrupts = InterruptTree(registers, chip, self._message, journal)
        self.boot = BootFirmware(self, registers)
        self.rom: Rom | None = None
        if chip.fwsec:
            self.rom = build_rom(
                chip,
                wrong_checksum=self.faults.take("vbios-checksum") is not None,
                without_fwsec=self.faults.take("vbios-no-fwsec") is not None,
            )
        add_prom(registers, self.rom.data if self.rom else b"", self.faults)
        self.gsp_falcon = Falcon(
            "GSP", 0x110000, registers, chip, self.faults, journal, self._start_gsp, self._reset_gsp, self._gsp_line
        )
        self.sec2: Falcon | None = None
        self.fsp: Fsp | None = None
        if chip.flow == "booter":
            self.sec2 = Falcon(
                "SEC2", 0x840000, registers, chip, self.faults, journal, self.boot.start_sec2, lambda: None, lambda: None
            )
        else:
            self.fsp = Fsp(registers, self.faults, journal, self.boot.chain_of_trust)
        add_pramin(registers, chip, memory, self.protected, journal)
        self.bar1 = BarWindow("bar1", bar1_size, memory, self.mmu, self.protected, journal)
        self.bar2 = BarWindow("bar2", chip.bar2_size, memory, self.mmu, self.protected, journal)
        add_bar_blocks(registers, chip, memory, self.bar1, self.bar2)
        add_bus_registers(registers, chip, self.config, self.faults)
        add_invalidate(registers, self.invalidate, self.faults, lambda cause: self.gsp.halt(cause))
        self.host = Host(self, self.protected)
        add_doorbells(registers, self._doorbell, self._queue_doorbell, self._privileged_doorbell)
        registers.complete()

    # --- what the blocks call -----------------------------------------------------------------------------------------------------

    def protected(self) -> tuple[int, int] | None:
        """WPR2 as (start, end), or None."""
        return self.boot.wpr2

    def invalidate(self) -> None:
        """Drop every translation."""
        self.mmu.invalidate()
        self.bar1.forget()
        self.bar2.forget()

    def _startup_awaited(self) -> None:
        self.boot.startup_awaited()

    def _message(self) -> None:
        if self.config.bus_master and not self.faults.stands("msi-lost"):
            self._send_message()

    def raise_vector(self, vector: int) -> None:
        """An interrupt of an engine."""
        self.interrupts.set(vector)

    def nanoseconds(self) -> int:
        """The GPU's time."""
        return self.timer.nanoseconds()

    def channel_fault(self, runlist: int, chid: int, cause: str, address: int | None) -> None:
        """A channel was stopped by a fault."""
        self.gsp.channel_fault(runlist, chid, cause, address)

    def _gsp_line(self) -> None:
        self.interrupts.set(self.chip.gsp_vector)

    def _start_gsp(self) -> None:
        self.boot.start_gsp()

    def _reset_gsp(self) -> None:
        if self.gsp.running:
            if self.gsp.serving and self.boot.orderly():
                self.journal.violation("reset-running-gsp", "the GSP's falcon is reset while the firmware serves its driver")
            self.gsp.stop()
            self.gsp_stopped()

    def _doorbell(self, token: int) -> None:
        self.doorbells += 1
        self.host.doorbell(token)

    def _privileged_doorbell(self, value: int) -> None:
        gfid, vector = divmod(value, 32)
        if vector != 17 or gfid == 0:
            self.journal.violation("privileged-doorbell", f"{value:#x}, expected gfid * 32 + 17")
        elif self.gsp.running:
            self.gsp.vgpu_doorbell(gfid)

    def _queue_doorbell(self) -> None:
        if self.gsp.running:
            if self.gsp.serving:
                self.boot.check_version(self.gsp_falcon)
            self.gsp.doorbell()

    def gsp_started(self) -> None:
        """The firmware begins to run: BAR1 goes to its directory, BAR2 is physical until the driver sends its entry."""
        self.gsp_stopped()
        bar1, _ = self.bar_directories()
        self.memory.fill(Aperture.VRAM, self.memory.vram_size - DIRECTORIES, DIRECTORIES, 0)
        self.bar1.set_root((Aperture.VRAM, bar1))

    def gsp_stopped(self) -> None:
        """The firmware is gone: both windows are physical, nothing runs."""
        self.host.reset()
        self.bar1.set_root(None)
        self.bar2.set_root(None)
        self.mmu.invalidate()

    def _bus_master(self, enabled: bool) -> None:
        self.memory.bus_master = enabled
        if not enabled:
            self.boot.driver_left()

    # --- ports.Environment --------------------------------------------------------------------------------------------------------

    def raise_message(self) -> None:
        """A message is in the status queue."""
        self.gsp_falcon.raise_irq(SWGEN0)

    def set_mailbox(self, index: int, value: int) -> None:
        """Write a mailbox of the GSP's falcon."""
        self.gsp_falcon.set_mailbox(index, value)

    def set_halted(self, halted: bool, fault: bool = False) -> None:
        """The RISC-V core stopped: by a fault, or in order."""
        falcon = self.gsp_falcon
        falcon.riscv_halted = halted
        if not halted:
            return
        falcon.riscv_active = False
        if fault:
            falcon.raise_irq(HALT)
        else:
            self.boot.firmware_halted()

    def set_bar2_entry(self, value: int) -> None:
        """UPDATE_BAR_PDE: entry 0 of BAR2's root directory; 0 makes BAR2 physical."""
        _, bar2 = self.bar_directories()
        self.memory.write(Aperture.VRAM, bar2, value.to_bytes(8, "little"))
        self.bar2.set_root((Aperture.VRAM, bar2) if value else None)

    def bar_directories(self) -> tuple[int, int]:
        """VRAM addresses of the BAR1 and BAR2 root directories."""
        base = self.memory.vram_size - DIRECTORIES
        return base, base + 0x1000

    def sriov(self) -> Mapping[str, int]:
        """The SR-IOV facts of configuration space."""
        return self.config.sriov()

    def place(self) -> Mapping[str, int]:
        """What GspSystemInfo should say of this GPU."""
        return self.config.place() | ({} if self.bus_address is None else {"nvDomainBusDeviceFunc": self.bus_address})

    # --- life ---------------------------------------------------------------------------------------------------------------------

    def function_reset(self) -> None:
        """A function-level reset: everything but VRAM's contents and what a fault holds."""
        self.gsp.stop()
        self.gsp_stopped()
        self.registers.reset()
        self.registers.write(self.chip.window, 0)
        self.boot.reset()
        self.interrupts.reset()
        self.gsp_falcon.power_on()
        if self.sec2 is not None:
            self.sec2.power_on()
        if self.fsp is not None:
            self.fsp.power_on()
        self.config.power_on()
        self.memory.bus_master = False

    def close(self) -> None:
        """Give everything back."""
        self.gsp.stop()
        self.host.reset()
        self.ticker.close()
        self.memory.close()
        self.shelf, self.programs = None, ()  # its files stay mapped as long as the shelf lives

    # --- views --------------------------------------------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """Counts since the start."""
        return {
            "violations": self.journal.total,
            "violations_dropped": self.journal.dropped,
            "unknown_registers": len(self.journal.unknown_registers),
            "unknown_controls": len(self.journal.unknown_controls),
            "messages": self.interrupts.messages,
            "messages_lost": self.messages_lost,
            "invalidates": self.mmu.invalidates,
            "walks": self.mmu.walks,
            "doorbells": self.doorbells,
            "slices": self.host.slices,
            **{f"rows_{kind}": count for kind, count in self.registers.counts().items()},
        }

    def view(self) -> dict[str, object]:
        """The device's own view of itself, JSON-able."""
        return {
            "chip": self.chip.name,
            "vram": self.memory.vram_size,
            "gsp": self.gsp.view(),
            "wpr2": self.boot.wpr2,
            "suspended": self.boot.suspended and self.chip.flow == "booter",
            "bar1": "physical" if self.bar1.root is None else "translated",
            "bar2": "physical" if self.bar2.root is None else "translated",
            "channels": [
                {"runlist": key[0], "chid": key[1], "enabled": channel.enabled, "dead": channel.dead, "methods": channel.executed}
                for key, channel in sorted(self.host.channels.items())
            ],
            "waiting": self.host.waiting(),
            "functions": self.config.functions,
            "bus_master": self.config.bus_master,
            "dma_maps": [list(interval) for interval in self.memory.maps()],
            "extents": {hex(offset): size for offset, size in self.memory.extents().items()},
            "faults_armed": list(self.faults.armed()),
        }
