"""Errors of the queues and calls. Each is one thing a caller can do something about; texts name the numbers that were seen."""

from __future__ import annotations

from nvcore.api.errors import FirmwareDead, FirmwareRefused, FormatError, WaitTimeout

__all__ = ["CallRefused", "CallTimeout", "FirmwareIsDead", "QueueCorrupt", "QueueFull", "TaskGone"]


class QueueCorrupt(FormatError):
    """The status queue cannot be believed any more (checksum, sequence, lengths or pointers); nothing of the record was used."""

    code = "NVC-2210"
    usual_remedy = "nvcore dump keeps the queues; the firmware is booted anew: nvcore gpus reset GPU"


class QueueFull(WaitTimeout):
    """The firmware did not take messages out of the command queue in time."""

    code = "NVC-2211"
    usual_remedy = "nvcore dump keeps the queues; if it lasts: nvcore gpus reset GPU"


class CallTimeout(WaitTimeout):
    """The firmware did not answer a call in time. A late answer is drained and reported, never given to another call."""

    code = "NVC-2212"
    usual_remedy = "nvcore dump keeps the queues and logs; if it lasts: nvcore gpus reset GPU"


class CallRefused(FirmwareRefused):
    """The firmware answered a call with an error. `status` is its number."""

    code = "NVC-2213"
    usual_remedy = "nvcore dump keeps the logs of the firmware, which may say why"

    def __init__(self, what: str, status: int, *, seen: object = None, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what, expected="status 0", seen=seen, where=where, remedy=remedy)
        self.status = status


class FirmwareIsDead(FirmwareDead):
    """The firmware was declared dead; `seen` is the first cause."""

    code = "NVC-2214"


class TaskGone(FirmwareRefused):
    """The firmware told that the task of a vGPU crashed or ended: what it was asked is answered by nobody, and not waited for."""

    code = "NVC-2215"
    usual_remedy = "nvcore events shows what the firmware said of it; nvcore dump keeps its logs"
