"""The control interface `io.nvcore.Vgpu`: parameters checked here, work done by the managers.

Runs on the control socket's threads. The methods' names are varlink's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvcore.api.errors import UsageError

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
        return {"vgpus": [row for manager in self._driver.managers.values() for row in manager.rows()]}

    def Types(self, call: Call) -> dict[str, Any]:
        """Types, with the room for each on each GPU."""
        return {
            "types": [{"gpu": address, **row} for address, manager in self._driver.managers.items() for row in manager.capacity()],
        }

    def Create(self, call: Call) -> dict[str, Any]:
        """Declare and start."""
        kind, gpu = _text(call, "type"), _optional(call, "gpu")
        manager = self._driver.manager(gpu)
        row = manager.create(kind, name=_optional(call, "name"), vm=_optional(call, "vm"), start=_flag(call, "start", True))
        return {"vgpu": row}

    def Start(self, call: Call) -> dict[str, Any]:
        """Start a declared one."""
        name, pid = _text(call, "name"), call.parameters.get("pid")
        if pid is not None and type(pid) is not int:
            raise UsageError("bad pid", expected="a number", seen=ascii(pid))
        return {"vgpu": self._driver.manager(None, declares=name).start(name, pid=pid)}

    def Stop(self, call: Call) -> dict[str, Any]:
        """Stop it; it stays declared."""
        name = _text(call, "name")
        return {"vgpu": self._driver.manager(None, declares=name).stop(name, force=_flag(call, "force", False))}

    def Destroy(self, call: Call) -> dict[str, Any]:
        """Stop and forget it."""
        name = _text(call, "name")
        return {"vgpu": self._driver.manager(None, declares=name).destroy(name, force=_flag(call, "force", False))}


def _text(call: Call, key: str) -> str:
    value = call.parameters.get(key)
    if not isinstance(value, str) or not value:
        raise UsageError(f"{call.method} needs {key}", expected="text", seen=ascii(value))
    return value


def _optional(call: Call, key: str) -> str | None:
    return None if call.parameters.get(key) is None else _text(call, key)


def _flag(call: Call, key: str, default: bool) -> bool:
    value = call.parameters.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise UsageError(f"bad {key}", expected="true or false", seen=ascii(value))
    return value
