"""Claims: which process holds a vGPU, told apart from another that was given the same number later.

Reads /proc, keeps nothing, any thread. A process that has ended and waits for its parent holds nothing (F17). Source: proc(5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvcore.api.errors import UsageError
from nvcore_vfio.errors import VgpuInUse

if TYPE_CHECKING:
    from nvcore_vfio.declared import Declared

__all__ = ["Claim", "check_unheld", "living"]


class Claim:
    """A process that holds a vGPU: `pid` and the time it was started, so that a number used again is not taken for it."""

    __slots__ = ("pid", "started")

    def __init__(self, pid: int, started: int) -> None:
        self.pid, self.started = pid, started

    @classmethod
    def of(cls, pid: int) -> Claim:
        """The claim of a living process. Raises UsageError."""
        started = _start_time(pid)
        if started is None:
            raise UsageError(f"no process {pid}", remedy="name the process of the virtual machine that will hold the vGPU")
        return cls(pid, started)

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return _start_time(self.pid) == self.started


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, in clock ticks since boot; None without such a process, and for one that has ended (field 3)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if fields[0] in "ZXx" else int(fields[19])


def living(claim: Claim | None) -> bool:
    """Whether a claim is held by somebody."""
    return claim is not None and claim.alive


def check_unheld(record: Declared, force: bool) -> None:
    """Raise VgpuInUse when a living process holds it, unless `force`."""
    claim = record.claim
    if claim is not None and claim.alive and not force:
        seen = f"VM {record.vm or '?'}, process {claim.pid}"
        raise VgpuInUse(f"vGPU {record.name} is in use", seen=seen, remedy="shut the VM down first, or use --force")
