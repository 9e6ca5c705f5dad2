"""The session: one running GSP-RM on one device.

Owns the boot's remains (memory, queues, unload bundle), the port, the books of objects and the families. `receive` belongs to the core's
receiver thread; calls to threads that may sleep; the unload to the life-cycle thread. Knows no client.
Source: nvcore.api.firmware.FirmwareSession.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from nvcore.api.errors import ContractError, NvcoreError
from nvcore.api.families import Family
from nvcore.api.firmware import BootReport, FirmwareImage, UnloadReport
from nvcore.api.marks import interrupt_safe, may_sleep, signalling_safe
from nvcore.hw.register import is_bus_error
from nvcore.hw.registers import falcon as reg
from nvcore_fw_gsp.boot.health import core_stopped
from nvcore_fw_gsp.boot.state import Boot
from nvcore_fw_gsp.families.channel import ChannelFamily
from nvcore_fw_gsp.families.memory import MemoryFamily
from nvcore_fw_gsp.queue.errors import FirmwareIsDead
from nvcore_fw_gsp.session.events import EventDesk
from nvcore_fw_gsp.session.rm import Rm
from nvcore_fw_gsp.session.tenant import GspTenant, ObjectBook

__all__ = ["GspSession"]

_IRQSTAT: Final = reg.IRQSTAT.address(reg.GSP)
_IRQSCLR: Final = reg.IRQSCLR.address(reg.GSP)
_RETRIGGER: Final = reg.INTR_RETRIGGER.address(reg.GSP)
_MESSAGE: Final = reg.IRQSTAT.swgen0.mask
_HALT: Final = reg.IRQSTAT.halt.mask


class GspSession:
    """See `nvcore.api.firmware.FirmwareSession`."""

    def __init__(self, boot: Boot, desk: EventDesk, report: BootReport, image: FirmwareImage) -> None:
        assert boot.port is not None
        self.boot, self.desk, self.report, self.image = boot, desk, report, image
        self.port = boot.port
        self.manifest = boot.manifest
        self.engines = desk.engines
        self.static_info = boot.abi.struct("GspStaticConfigInfo").unpack(boot.static_info)
        info = self.static_info
        self.rm = Rm(self.port, boot.abi, int(info["hInternalClient"]), int(info["hInternalSubdevice"]))
        self.book = ObjectBook()
        self.memory_family = MemoryFamily(self)
        self.channel_family = ChannelFamily(self)
        self._made: dict[str, Family] = {"memory": self.memory_family, "channel": self.channel_family}
        self.runlist_of: dict[str, int] = {}
        self._unloaded: UnloadReport | None = None
        self._read, self._write = boot.io.bar.read32, boot.io.bar.write32
        self._versions = {"inventory": 1, "memory": 1, "channel": 1, "diagnostics": 1, **({"vgpu": 1} if boot.vgpu_host else {})}

    @property
    def dead(self) -> str | None:
        """The first cause of the firmware's death, or None."""
        return self.port.dead

    @property
    def families(self) -> Mapping[str, int]:
        """Families that this session offers, with their versions."""
        return dict(self._versions)

    @may_sleep
    def family(self, name: str) -> Family | None:
        """The family's object, made on the first use, or None."""
        if name not in self._versions:
            return None
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = self._make(name)
        return found

    def _make(self, name: str) -> Family:
        match name:
            case "inventory":
                from nvcore_fw_gsp.families.inventory import InventoryFamily

                return InventoryFamily(self)
            case "vgpu":
                from nvcore_fw_gsp.families.vgpu import VgpuFamily

                return VgpuFamily(self)
            case _:
                from nvcore_fw_gsp.families.diagnostics import DiagnosticsFamily

                return DiagnosticsFamily(self)

    def runlists(self) -> Mapping[str, int]:
        """Runlist of every engine by name, as the inventory told; it is read when nobody did yet."""
        if not self.runlist_of:
            from nvcore_fw_gsp.families.inventory import InventoryFamily

            InventoryFamily(self).read()
        return self.runlist_of

    @may_sleep
    def open_tenant(self, label: str) -> GspTenant:
        """A root for objects in the firmware that live and die together."""
        if self._unloaded is not None:
            raise ContractError("the firmware was unloaded", remedy="open the device again")
        return GspTenant(self, label)

    @interrupt_safe
    def receive(self) -> int:
        """Drain what the firmware sent; how many messages. Receiver thread only; never raises."""
        port = self.port
        if port.dead is not None:
            return 0
        taken = 0
        try:
            pending = 0 if self.desk.lockdown else self._read(_IRQSTAT)
            if is_bus_error(pending):
                pending = 0
                if self._stopped():
                    return 0
            if pending & _MESSAGE:  # before draining, or a message posted in between is lost
                self._write(_IRQSCLR, _MESSAGE)
            taken = port.receive()
            if pending & _HALT and port.dead is None:
                if self._stopped():
                    return taken
                self._write(_IRQSCLR, _HALT)
            if pending and not self.desk.lockdown:
                self._write(_RETRIGGER, 1)
        except NvcoreError as error:  # the device left between two of these accesses
            port.declare_dead(str(error))
        return taken

    def _stopped(self) -> bool:
        """Whether the hardware shows that the firmware does not run any more; it is declared dead then."""
        cause = core_stopped(self.boot)
        if cause is not None:
            self.port.declare_dead(cause)
        return cause is not None

    @property
    def waiting(self) -> int:
        """Calls that wait for an answer now."""
        return self.port.waiting

    @signalling_safe
    def declare_dead(self, cause: str) -> None:
        """Fail every waiting and every later call with `cause`. The first declaration wins."""
        self.port.declare_dead(cause)

    def try_free(self, call: Callable[[], object], what: str) -> NvcoreError | None:
        """A step of a teardown: a dead firmware has nothing to free, any other failure is told, returned, and the teardown goes on."""
        try:
            call()
        except FirmwareIsDead:
            return None
        except NvcoreError as error:
            self.desk.note("free-failed", f"{what}: {error}")
            return error
        return None

    @may_sleep
    def unload(self) -> UnloadReport:
        """Take the firmware down from wherever it stands. Never raises; idempotent."""
        if self._unloaded is None:
            from nvcore_fw_gsp.boot.unload import run_unload

            if self.dead is None:
                for tenant in list(self.book.tenants):
                    self.try_free(tenant.close, f"the end of {tenant.label}")
            self._unloaded = run_unload(self.boot, self.boot.context.progress)
            self.port.close("the firmware was unloaded")
            for tenant in list(self.book.tenants):
                self.try_free(tenant.close, f"the end of {tenant.label}")
        return self._unloaded

    @may_sleep
    def objects(self) -> Mapping[str, int]:
        """Objects that are alive in the firmware as this side knows them."""
        return self.book.snapshot()
