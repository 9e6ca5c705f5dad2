"""Errors: one class per thing a caller can do about it, each with a code that `nvcore explain` knows.

Every error says what was expected, what was seen and what to do. Plugins subclass these and take codes of their own range:
1xxx host, plugins, configuration; 2xxx firmware and boot (fw_gsp); 3xxx vGPUs (vfio); 4xxx resources and leases; 5xxx devices and buses;
6xxx locking; 7xxx softgpu; 8xxx control socket; 9xxx free for third parties.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs a whole bare start; type checkers take this name as true
if TYPE_CHECKING:
    from typing import ClassVar

__all__ = [
    "BootError", "ConfigError", "ConflictError", "ContractError", "DeniedError", "DeviceGone", "FirmwareDead", "FirmwareRefused",
    "FormatError", "GpuLost", "LeaseRevoked", "LockRuleError", "NotFoundError", "NotRunningError", "NotSupportedError", "NvcoreError",
    "OutOfResources", "PluginError", "UnreachableError", "UsageError", "WaitTimeout",
]


class NvcoreError(Exception):
    """Base of every error that nvcore raises on purpose.

    what: one sentence, what failed and on what. expected, seen: the two values that differ. where: file, register, offset, line.
    remedy: what the reader should do next; `usual_remedy` of the class where nothing better is known at the place that raises. All are
    plain text made safe for a terminal by the view, not here.
    """

    code: ClassVar[str] = "NVC-1000"
    exit_code: ClassVar[int] = 1
    usual_remedy: ClassVar[str | None] = None

    def __init__(
        self, what: str, *, expected: object = None, seen: object = None, where: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.expected = None if expected is None else str(expected)
        self.seen = None if seen is None else str(seen)
        self.where = where
        self.remedy = self.usual_remedy if remedy is None else remedy

    def __str__(self) -> str:
        said = {"at": self.where or None, "expected": self.expected, "seen": self.seen}
        parts = [self.what, *(f"{word} {value}" for word, value in said.items() if value is not None), self.remedy]
        return f"{'; '.join(filter(None, parts))} ({self.code})"

    def as_dict(self) -> dict[str, str | None]:
        """The error as the control socket and JSON views carry it."""
        return {field: getattr(self, field) for field in ("code", "what", "expected", "seen", "where", "remedy")}


class UsageError(NvcoreError):
    """The caller's words are off; nothing was done."""

    code, exit_code = "NVC-1001", 2


class NotFoundError(NvcoreError):
    """The thing named does not exist here."""

    code, exit_code = "NVC-1002", 3


class NotRunningError(NvcoreError):
    """The thing named exists and is not running."""

    code, exit_code = "NVC-1003", 3


class DeniedError(NvcoreError):
    """The caller may not do this."""

    code, exit_code = "NVC-1004", 4


class ConflictError(NvcoreError):
    """Two parties claim one thing; neither is chosen silently."""

    code = "NVC-1005"


class ConfigError(NvcoreError):
    """A configuration file cannot be used; `where` is file and line."""

    code, exit_code = "NVC-1006", 78


class NotSupportedError(NvcoreError):
    """This chip, firmware version or plugin set cannot do it."""

    code, usual_remedy = "NVC-1007", "docs/status.md says what works on which chip and firmware; nvcore firmware list shows what is here"


class PluginError(NvcoreError):
    """A plugin broke its side of the contract; the host goes on without it."""

    code, usual_remedy = "NVC-1010", "nvcore plugins shows its state; report it to the plugin's authors"


class ContractError(NvcoreError):
    """A caller used an object out of order (a plan committed twice, a call after close): a programming error."""

    code, usual_remedy = "NVC-1011", "report it with what nvcore dump writes"


class FormatError(NvcoreError):
    """Bytes from outside (file, message, ROM) are not what their format says; nothing was used of them."""

    code, usual_remedy = "NVC-2001", "get it again from where it came; if it stays the same, report it"


class FirmwareRefused(NvcoreError):
    """The firmware answered, and the answer is no."""

    code, usual_remedy = "NVC-2002", "nvcore events and nvcore dump have what the firmware said; nvcore gpus reset GPU starts it anew"


class FirmwareDead(NvcoreError):
    """The firmware is dead and is asked nothing more; carries the first cause."""

    code, usual_remedy = "NVC-2003", "start it anew: nvcore gpus reset GPU"


class BootError(NvcoreError):
    """A boot stopped; `report` (a `nvcore.api.firmware.BootReport`) says at which stage, with the last registers seen."""

    code, usual_remedy = "NVC-2100", "nvcore gpus show GPU has the boot report; then: nvcore gpus retry GPU"

    def __init__(
        self, what: str, *, report: object = None, expected: object = None, seen: object = None, where: str | None = None,
        remedy: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(what, expected=expected, seen=seen, where=where, remedy=remedy)
        self.report = report


class OutOfResources(NvcoreError):
    """The ledger cannot serve a request; it is unchanged. `seen` names the largest free piece and the owners."""

    code, usual_remedy = "NVC-4001", "nvcore gpus show GPU has the books: free what is owned, or ask for less"


class LeaseRevoked(NvcoreError):
    """The memory behind a lease is no longer the holder's: acquire it again or give up."""

    code, usual_remedy = "NVC-4002", "nvcore events says why it was revoked; start its user again"


class DeviceGone(NvcoreError):
    """The device left the bus (or reads all ones); every later call fails the same way."""

    code, usual_remedy = "NVC-5001", "put the device back, then: nvcore gpus retry GPU"


class GpuLost(NvcoreError):
    """The last rung of the ladder: the GPU is given up until an operator retries it."""

    code, usual_remedy = "NVC-5002", "nvcore gpus retry GPU; if it fails again, power-cycle"


class WaitTimeout(NvcoreError):
    """A wait ended without what it waited for; `seen` is the last value, `expected` the condition and its limit."""

    code, usual_remedy = "NVC-5003", "nvcore status and nvcore events show what it waits for; then try again"


class LockRuleError(NvcoreError):
    """The lock validator saw a rule broken (L1 to L11); both places are in the text."""

    code = "NVC-6001"


class UnreachableError(NvcoreError):
    """No daemon answers at the control socket."""

    code, exit_code, usual_remedy = "NVC-8001", 5, "start it: nvcore run (or systemctl start nvcore)"
