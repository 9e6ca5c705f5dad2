"""Running a table of stages: times, last registers, the cause when one fails.

Owns the list of stages of one boot or unload. The opener's thread. A stage is a function of the boot's state; what it returns is the detail
shown on the boot report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from nvcore.api.clock import Clock
from nvcore.api.errors import NvcoreError
from nvcore.api.firmware import BootStage
from nvcore_fw_gsp.boot.errors import SystemRefused
from nvcore_fw_gsp.boot.io import BootIo

__all__ = ["SKIPPED", "Stage", "StageLog"]

_S = TypeVar("_S")
SKIPPED = "skipped: "
"""A stage that returns a detail beginning like this had nothing to do."""


class Stage(NamedTuple):
    """One row of a flow: a name for people, and the function that does it on the boot's state."""

    name: str
    run: Callable[..., str | None]


class StageLog:
    """The stages so far. progress: told each finished one."""

    __slots__ = ("_clock", "_progress", "stages")

    def __init__(self, clock: Clock, progress: Callable[[BootStage], None]) -> None:
        self._clock, self._progress = clock, progress
        self.stages: list[BootStage] = []

    def run(self, table: Sequence[Stage], state: object, io: BootIo | None) -> NvcoreError | None:
        """Run the stages of `table` in order; the error of the first that fails, or None."""
        for stage in table:
            error = self.one(stage, state, io)
            if error is not None:
                return error
        return None

    def one(self, stage: Stage, state: object, io: BootIo | None) -> NvcoreError | None:
        """Run one stage; its error, or None. Declared errors and the system's are expected: anything else is a bug and passes through."""
        start = self._clock.now()
        if io is not None:
            io.last = {}
        error: NvcoreError | None = None
        detail = ""
        try:
            detail = stage.run(state) or ""
        except NvcoreError as caught:
            error, detail = caught, str(caught)
        except OSError as caught:
            error = SystemRefused("the operating system refused an access", seen=caught, where=caught.filename)
            detail = str(error)
        outcome = "failed" if error is not None else "skipped" if detail.startswith(SKIPPED) else "ok"
        registers = {} if io is None else io.last
        record = BootStage(stage.name, self._clock.now() - start, outcome, detail.removeprefix(SKIPPED), registers)  # type: ignore[arg-type]
        self.stages.append(record)
        self._progress(record)
        return error
