"""The control interface `io.nvcore.Vgpu`: parameters read here, work done by the managers.

Runs on the control socket's threads. The methods' names are varlink's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nvcore.api.control import Call
    from nvcore_vfio.client import VfioDriver

__all__ = ["VgpuHandler"]


class VgpuHandler:
    """Serves `data/io.nvcore.Vgpu.varlink`."""

    def __init__(self, driver: VfioDriver) -> None:
        self._driver = driver

    def List(self, call: Call) -> dict[str, Any]:
        """Every declared vGPU."""
        return {"vgpus": self._driver.rows()}

    def Types(self, call: Call) -> dict[str, Any]:
        """Types, with the room for each on each GPU."""
        return {
            "types": [{"gpu": address, **row} for address, manager in sorted(self._driver.managers.items()) for row in manager.capacity()],
        }

    def Create(self, call: Call) -> dict[str, Any]:
        """Declare and start."""
        kind, gpu, name = call.text("type"), call.optional("gpu"), call.optional("name")
        if name is not None:
            self._driver.check_free(name)
        return {"vgpu": self._driver.manager(gpu).create(kind, name=name, vm=call.optional("vm"), start=call.flag("start", True))}

    def Start(self, call: Call) -> dict[str, Any]:
        """Start a declared one."""
        name = call.text("name")
        return {"vgpu": self._driver.holder(name).start(name, pid=call.number("pid"))}

    def Stop(self, call: Call) -> dict[str, Any]:
        """Stop it; it stays declared."""
        name = call.text("name")
        return {"vgpu": self._driver.holder(name).stop(name, force=call.flag("force", False))}

    def Destroy(self, call: Call) -> dict[str, Any]:
        """Stop and forget it."""
        name = call.text("name")
        return {"vgpu": self._driver.holder(name).destroy(name, force=call.flag("force", False))}
