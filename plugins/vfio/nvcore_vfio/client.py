"""The client driver: one `Manager` per GPU that publishes the function "vgpu".

Wiring only. The driver is one per host; the control interface, the panel and the checks find the managers through it.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from nvcore.api.errors import ConflictError, NotSupportedError
from nvcore.api.marks import may_sleep, signalling_safe
from nvcore_vfio.errors import NoFirmware, NoVgpuHost, UnknownVgpu, VgpuExists

if TYPE_CHECKING:  # everything heavy is imported when a GPU is probed: a host without GPUs starts without it
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Literal

    from nvcore.api.client import Client, ClientContext, ClientStatus, Function, QuiesceReason
    from nvcore.api.events import Fault
    from nvcore_vfio.manager import Manager
    from nvcore_vfio.shelf import Shelf

__all__ = ["VfioDriver"]


class VfioDriver:
    """Drives every function "vgpu". records: the folder where declared vGPUs are stored, for those of GPUs that host none now."""

    name = "vfio"

    def __init__(self, limit: int | None = None, records: Path | None = None) -> None:
        self._limit, self._records = limit, records
        self._begun: list[Manager] = []
        self._made: dict[str, Shelf] = {}  # the one shelf, once asked for
        self._names: dict[str, object] = {}

    @property
    def managers(self) -> dict[str, Manager]:
        """Those at work now, by their GPU's address. One whose client the core gave up is let go of here: it is not asked to leave."""
        for manager in tuple(self._begun):
            if manager.gone:
                self._let_go(manager)
        return {manager.context.gpu.address: manager for manager in tuple(self._begun)}

    def _let_go(self, manager: Manager) -> None:
        with suppress(ValueError):  # another thread was first
            self._begun.remove(manager)

    @property
    def shelf(self) -> Shelf:
        """The vGPUs of GPUs that host none now. One for all threads, also the first that ask: it knows who has which records."""
        found = self._made.get("shelf")
        if found is None:
            from nvcore_vfio.shelf import Shelf

            found = self._made.setdefault("shelf", Shelf(self._records))  # atomic: of two that are made the first stays
        return found

    @may_sleep
    def match(self, function: Function) -> bool:
        """Whether it is a vgpu function."""
        return function.kind == "vgpu"

    @may_sleep
    def probe(self, context: ClientContext) -> Client:
        """Take the function and make again what was declared."""
        from nvcore_vfio.manager import Manager

        if context.family("vgpu") is None:
            raise NotSupportedError(f"the firmware of {context.gpu.address} has no vGPU operations")
        manager = Manager(context, self._limit, self.naming)
        self.shelf.claim(manager)
        try:
            manager.begin()
            if not self.shelf.tell(manager, "its GPU came up just now"):
                raise NoFirmware(f"GPU {context.gpu.address} was taken down while its vGPUs were made again")
        except BaseException:
            self._end(manager)
            raise
        self._begun.append(manager)
        return VfioClient(self, manager)

    def forget(self, manager: Manager) -> None:
        """Its client leaves: take everything down, and leave the records to the shelf."""
        self.shelf.tell(manager, "its GPU is going down")
        self._let_go(manager)
        self._end(manager)

    def _end(self, manager: Manager) -> None:
        try:
            manager.end()
        finally:
            self.shelf.give_back(manager)

    def rows(self) -> list[dict[str, Any]]:
        """Every declared vGPU, by GPU and slot; those of GPUs that host none now are "down"."""
        up = self.managers  # looked at once: a GPU that comes or goes meanwhile is told of by one side, not by both or none
        rows = [row for manager in up.values() for row in manager.rows()]
        return sorted([*rows, *self.shelf.rows(up)], key=lambda row: (row["gpu"], row["slot"]))

    def holder(self, name: str) -> Manager | Shelf:
        """Who starts, stops and destroys the vGPU of that name. Raises UnknownVgpu."""
        up = self.managers
        for manager in up.values():
            if manager.declares(name):
                return manager
        if self.shelf.declares(name, up):
            return self.shelf
        names = ", ".join(row["name"] for row in self.rows())
        raise UnknownVgpu(f"no vGPU {name}", expected=names or "none is declared", seen=ascii(name))

    def check_free(self, name: str) -> None:
        """Raise VgpuExists when a GPU has a vGPU of this name, makes one, or has such a record that cannot be used; UsageError when it is
        no name. It holds nothing: an early answer for who would wait for a GPU's turn first."""
        from nvcore_vfio.declared import check_name

        check_name(name)  # a record's file is named by it
        if name in self._names:
            raise _in_the_making(name)
        self._check_unused(name)

    @contextmanager
    def naming(self, name: str) -> Iterator[None]:
        """While a vGPU of this name is made no other is, on no GPU. Raises VgpuExists as `check_free`.

        Entered by the job that makes it, on its GPU's life-cycle thread: who asked for it may have given up waiting. No thread waits here.
        """
        mine = object()
        if self._names.setdefault(name, mine) is not mine:
            raise _in_the_making(name)
        try:
            self._check_unused(name)
            yield
        finally:
            del self._names[name]

    def _check_unused(self, name: str) -> None:
        up = self.managers
        for manager in up.values():
            manager.check_free(name)
        self.shelf.check_free(name, up)

    def manager(self, gpu: str | None) -> Manager:
        """The manager of a GPU, by address or UUID, or of the first GPU with room. Raises NoVgpuHost, ConflictError."""
        managers = self.managers
        if gpu is not None:
            found = [manager for address, manager in managers.items() if gpu in (address, manager.context.inventory.uuid)]
            if len(found) > 1:
                raise ConflictError(f"{len(found)} GPUs have the UUID {gpu}", seen=", ".join(managers), remedy="name one by its address")
            if not found:
                remedy = f"`nvcore gpus` lists the GPUs; for one of them `nvcore gpus show {gpu}` and `nvcore doctor` say why it hosts none"
                raise NoVgpuHost(f"no GPU {gpu} that hosts vGPUs", expected=", ".join(managers) or "none does", remedy=remedy)
            return found[0]
        for manager in managers.values():
            if any(row["left"] for row in manager.capacity()):
                return manager
        for manager in managers.values():
            return manager
        remedy = "`nvcore gpus show GPU` and `nvcore doctor` say why not, `nvcore plugins` whether vfio was stopped"
        raise NoVgpuHost("no GPU hosts vGPUs", remedy=remedy)


def _in_the_making(name: str) -> VgpuExists:
    return VgpuExists(f"a vGPU {name} is being created", remedy="choose another name")


class VfioClient:
    """The client of one function."""

    def __init__(self, driver: VfioDriver, manager: Manager) -> None:
        self._driver, self._manager = driver, manager

    @signalling_safe
    def on_fault(self, fault: Fault) -> None:
        """Mark what is hit."""
        self._manager.recovery.on_fault(fault)

    @may_sleep
    def quiesce(self, reason: QuiesceReason, deadline: float, generation: int) -> None:
        """Stop using the hardware."""
        self._manager.recovery.quiesce(reason)

    @may_sleep
    def resume(self, vram: Literal["kept", "lost"], generation: int) -> None:
        """Go on."""
        self._manager.recovery.resume(vram)

    @may_sleep
    def status(self) -> ClientStatus:
        """One line."""
        return self._manager.status()

    @may_sleep
    def remove(self) -> None:
        """Leave."""
        self._driver.forget(self._manager)
