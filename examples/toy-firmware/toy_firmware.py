"""A firmware backend of nvcore, for a firmware that is one mailbox register: 0 nothing runs, 1 it runs, 2 it has halted.

It drives the fake device of `nvcore.testing`, or the `chips` of its configuration. Its one family is "inventory": its GPUs run, and publish
no function. Methods run, and are documented, where `nvcore.api.firmware` says.
"""
# ruff: noqa: D101, D102, D103

import attrs

from nvcore.api import firmware, hookimpl
from nvcore.api.errors import BootError, DeviceGone, FirmwareDead
from nvcore.api.families import Family, InventoryFamily, Tenant
from nvcore.api.identity import ChipId
from nvcore.api.inventory import Inventory, MemoryRegion, Range, VgpuSupport
from nvcore.api.marks import follows
from nvcore.api.offers import ConfigSection, FirmwareOffer, HostInfo

MAILBOX, VECTOR, MIB = 0x110040, 155, 1 << 20


@follows(Tenant)
@attrs.define(eq=False)
class Root:
    label: str
    session: "Session"

    @property
    def open(self) -> bool:
        return self.session.dead is None and self in self.session.roots

    def close(self) -> None:
        self.session.roots = [root for root in self.session.roots if root is not self]


@follows(firmware.FirmwareSession, InventoryFamily)
class Session:
    name, version, families, waiting = "inventory", 1, {"inventory": 1}, 0  # no call waits: every one is answered at once

    def __init__(self, context: firmware.OpenContext, report: firmware.BootReport) -> None:
        self._bar, self.report, self.image, self.roots = context.device.bars[0], report, report.image, list[Root]()
        self.dead: str | None = None
        self._unloaded: firmware.UnloadReport | None = None

    def check(self) -> None:
        if self.dead is not None:
            raise FirmwareDead("the toy firmware is dead", seen=self.dead)

    def family(self, name: str) -> Family | None:
        return self if name == "inventory" else None

    def read(self) -> Inventory:
        self.check()
        regions, vgpu = (MemoryRegion(Range(0, 32 * MIB), True, "clients"),), VgpuSupport(False, 0, "a toy hosts none")
        return Inventory("toy", "GPU-toy", 64 * MIB, regions, (), 0, 64, None, 2, 64 * MIB, VECTOR, 0, vgpu, "toy 1", frozenset())

    def bar1_directory(self) -> int:
        return 32 * MIB

    def open_tenant(self, label: str) -> Root:
        self.check()
        self.roots.append(Root(label, self))
        return self.roots[-1]

    def objects(self) -> dict[str, int]:
        return {"client": len(self.roots)}

    def receive(self) -> int:
        if self.dead is None and self._bar.read32(MAILBOX) != 1:
            self.declare_dead("the mailbox says that it has halted")
        return 0

    def declare_dead(self, cause: str) -> None:
        self.dead = self.dead or cause

    def unload(self) -> firmware.UnloadReport:
        self.declare_dead("unloaded")
        if self._unloaded is None:
            try:
                self._bar.write32(MAILBOX, 0)
                self._unloaded = firmware.UnloadReport((firmware.BootStage("stop", 0.0, "ok"),), True)
            except DeviceGone as error:
                self._unloaded = firmware.UnloadReport((firmware.BootStage("stop", 0.0, "failed"),), False, cause=error.what)
        return self._unloaded


@follows(firmware.FirmwareBackend)
@attrs.define
class Backend:  # it is also the record of its configuration, [plugins.toy_firmware]: `chips` is the one key
    chips: tuple[str, ...] = ("TU102",)
    name = "toy-firmware"

    def supports(self, chip: ChipId) -> list[firmware.FirmwareImage]:
        return [firmware.FirmwareImage(chip.name, "1", "synthetic", "built in")] if chip.name in self.chips else []

    def open(self, context: firmware.OpenContext) -> Session:
        report = firmware.BootReport(context.chip.name, self.supports(context.chip)[0], (firmware.BootStage("start", 0.0, "ok"),))
        if context.device.bars[0].read32(MAILBOX):
            report = attrs.evolve(report, cause="a firmware runs already", stages=())
            raise BootError("the toy firmware cannot start", report=report, seen=report.cause, remedy="reset the GPU")
        if context.save is not None:
            context.save(firmware.SavedState(self.name, "1", {}))
        context.progress(report.stages[0])
        context.device.bars[0].write32(MAILBOX, 1)
        return Session(context, report)

    def recover(self, context: firmware.OpenContext) -> firmware.UnloadReport:
        return Session(context, firmware.BootReport(context.chip.name, self.supports(context.chip)[0], ())).unload()


@hookimpl
def nvcore_config_sections(host: HostInfo) -> list[ConfigSection]:
    return [ConfigSection("toy_firmware", "the chips that it claims", Backend)]


@hookimpl
def nvcore_firmware_backends(host: HostInfo) -> list[FirmwareOffer]:
    return [FirmwareOffer("toy-firmware", "one register", host.config.chips, ("1",), lambda: host.config)]
