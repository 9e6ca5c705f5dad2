"""The client driver: one `Manager` per GPU that publishes the function "vgpu".

Wiring only. The driver is one per host; the control interface, the panel and the checks find the managers through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvcore.api.errors import NotSupportedError
from nvcore.api.marks import may_sleep, signalling_safe
from nvcore_vfio.errors import NoVgpuHost

if TYPE_CHECKING:  # everything heavy is imported when a GPU is probed: a host without GPUs starts without it
    from typing import Literal

    from nvcore.api.client import Client, ClientContext, ClientStatus, Function, QuiesceReason
    from nvcore.api.events import Fault
    from nvcore_vfio.manager import Manager

__all__ = ["VfioDriver"]


class VfioDriver:
    """Drives every function "vgpu"."""

    name = "vfio"

    def __init__(self, limit: int | None = None) -> None:
        self.managers: dict[str, Manager] = {}
        self._limit = limit

    def match(self, function: Function) -> bool:
        """Whether it is a vgpu function."""
        return function.kind == "vgpu"

    @may_sleep
    def probe(self, context: ClientContext) -> Client:
        """Take the function and make again what was declared."""
        from nvcore_vfio.manager import Manager

        if context.family("vgpu") is None:
            raise NotSupportedError(f"the firmware of {context.gpu.address} has no vGPU operations")
        manager = Manager(context, self._limit)
        try:
            manager.begin()
        except BaseException:
            manager.end()
            raise
        self.managers[context.gpu.address] = manager
        return VfioClient(self, manager)

    def manager(self, gpu: str | None, *, declares: str | None = None) -> Manager:
        """The manager of a GPU (by address), of the GPU that declares a vGPU, or the only one. Raises NoVgpuHost."""
        if declares is not None:
            for manager in self.managers.values():
                if manager.declares(declares):
                    return manager
        if gpu is not None:
            found = self.managers.get(gpu)
            if found is None:
                raise NoVgpuHost(f"GPU {gpu} hosts no vGPUs", expected=", ".join(self.managers) or "none does", remedy="see `nvcore gpus`")
            return found
        if declares is None or not self.managers:
            for manager in self.managers.values():
                if any(row["left"] for row in manager.capacity()):
                    return manager
        if self.managers:
            return next(iter(self.managers.values()))
        raise NoVgpuHost("no GPU hosts vGPUs", remedy="`nvcore gpus show GPU` says why not, `nvcore plugins` whether vfio was stopped")


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

    def status(self) -> ClientStatus:
        """One line."""
        return self._manager.status()

    @may_sleep
    def remove(self) -> None:
        """Leave."""
        self._driver.managers.pop(self._manager.context.gpu.address, None)
        self._manager.end()
