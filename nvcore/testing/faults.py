"""Fault scripts: what goes wrong in the fake device and its firmware, by name, in the order armed.

Owns the armed faults of one fake GPU. Names follow those of a software GPU where they mean the same: `gsp-halt@prepare`,
`gsp-halt@invalidate`, `gsp-halt@unset-pdb`, `rpc-delay:SECONDS`, `rpc-refuse:NAME`, `stuck-invalidate`, `boot-fails`, `unload-dirty`,
`device-gone`. Any thread.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from nvcore.api.errors import UsageError

__all__ = ["FAULTS", "FaultScript"]

FAULTS: Final = {
    "boot-fails": "the next start of the firmware fails; argument: the cause",
    "device-gone": "the device leaves at the next register access",
    "gsp-halt@invalidate": "the firmware dies when an invalidate is triggered, which then never completes",
    "gsp-halt@prepare": "the firmware dies while a page-table update is prepared",
    "gsp-halt@unset-pdb": "the firmware dies when it is asked to unlink a page directory",
    "inventory-differs": "the next start leaves less memory than before",
    "rpc-delay": "one answer is late; argument: SECONDS[,CALL]; events go on",
    "rpc-refuse": "one call is refused; argument: CALL",
    "stuck-invalidate": "every invalidate from now on stays busy until a reset",
    "unload-dirty": "the next unload leaves something behind and asks for a reset",
}
"""Every fault of the fakes."""


class FaultScript:
    """Armed faults; each acts once, except `stuck-invalidate`, which a reset ends."""

    def __init__(self) -> None:
        self._armed: dict[str, deque[str]] = {}
        self.acted: list[str] = []

    def arm(self, text: str) -> None:
        """Arm "NAME" or "NAME:ARGUMENT". Raises UsageError for a name that is not in FAULTS."""
        name, _, argument = text.partition(":")
        if name not in FAULTS:
            raise UsageError(f"no fault {name!r}", expected=", ".join(FAULTS), seen=text)
        self._armed.setdefault(name, deque()).append(argument)

    def take(self, name: str, call: str = "") -> str | None:
        """The argument of an armed fault, used up; None when it is not armed (or is armed for another call)."""
        queue = self._armed.get(name)
        if not queue:
            return None
        argument = queue[0]
        words = argument.split(",")
        wanted = words[-1] if name == "rpc-refuse" or (name == "rpc-delay" and len(words) > 1) else ""
        if wanted and call and wanted != call:
            return None
        queue.popleft()
        self.acted.append(f"{name}:{argument}" if argument else name)
        return argument

    def peek(self, name: str) -> bool:
        """Whether it is armed."""
        return bool(self._armed.get(name))

    def disarm(self, name: str) -> None:
        """Forget an armed fault."""
        self._armed.pop(name, None)
