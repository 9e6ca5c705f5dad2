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
    "BootError", "ConfigError", "ConflictError", "ContractError", "DeniedError", "DeviceGone", "FirmwareDead",
    "FirmwareRefused", "FormatError", "GpuLost", "LeaseRevoked", "LockRuleError", "NotFoundError", "NotRunningError",
    "NotSupportedError", "NvcoreError", "OutOfResources", "PluginError", "UnreachableError", "UsageError",
    "WaitTimeout",
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

    code = "NVC-1007"


class PluginError(NvcoreError):
    """A plugin broke its side of the contract; the host goes on without it."""

    code = "NVC-1010"


class ContractError(NvcoreError):
    """A caller used an object out of order (a plan committed twice, a call after close): a programming error."""

    code = "NVC-1011"


class FormatError(NvcoreError):
    """Bytes from outside (file, message, ROM) are not what their format says; nothing was used of them."""

    code = "NVC-2001"


class FirmwareRefused(NvcoreError):
    """The firmware answered, and the answer is no."""

    code = "NVC-2002"


class FirmwareDead(NvcoreError):
    """The firmware is dead and is asked nothing more; carries the first cause."""

    code = "NVC-2003"


class BootError(NvcoreError):
    """A boot stopped; `report` (a `nvcore.api.firmware.BootReport`) says at which stage, with the last registers seen."""

    code = "NVC-2100"

    def __init__(
        self, what: str, *, report: object = None, expected: object = None, seen: object = None, where: str | None = None,
        remedy: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(what, expected=expected, seen=seen, where=where, remedy=remedy)
        self.report = report


class OutOfResources(NvcoreError):
    """The ledger cannot serve a request; it is unchanged. `seen` names the largest free piece and the owners."""

    code = "NVC-4001"


class LeaseRevoked(NvcoreError):
    """The memory behind a lease is no longer the holder's: acquire it again or give up."""

    code = "NVC-4002"


class DeviceGone(NvcoreError):
    """The device left the bus (or reads all ones); every later call fails the same way."""

    code = "NVC-5001"


class GpuLost(NvcoreError):
    """The last rung of the ladder: the GPU is given up until an operator retries it."""

    code = "NVC-5002"


class WaitTimeout(NvcoreError):
    """A wait ended without what it waited for; `seen` is the last value, `expected` the condition and its limit."""

    code = "NVC-5003"


class LockRuleError(NvcoreError):
    """The lock validator saw a rule broken (L1 to L11); both places are in the text."""

    code = "NVC-6001"


class UnreachableError(NvcoreError):
    """No daemon answers at the control socket."""

    code, exit_code = "NVC-8001", 5
