"""The bench on which the contract checks of a firmware backend run: one device, what a core holds of it, and its receiver.

Owns the device that it opened and two kinds of threads: one that stands for the core's receiver, and one for each call that is left
waiting. The test's thread makes everything else. `contract_backend` judges; the bench tells what the receiver met.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from nvcore.api.clock import Clock
from nvcore.api.device import Device
from nvcore.api.events import FirmwareEvent
from nvcore.api.firmware import BootStage, FirmwareSession, OpenContext, SavedState
from nvcore.api.identity import ChipId
from nvcore.api.needs import BootNeeds
from nvcore.hw.chips import chip_row
from nvcore.locks import atomic, start_thread
from nvcore.testing.contract import broken, raised_by

__all__ = ["Bench", "LeftWaiting"]


class Bench:
    """One device and what a core would hold of it. `stages`, `events`, `saved`: what the backend told in its latest start."""

    def __init__(
        self, make: Callable[[], Device], chip: str, needs: BootNeeds, version: str | None, time_scale: float, clock: Clock
    ) -> None:
        self._make, self.device = make, make()
        self.needs, self.version, self.time_scale, self.clock = needs, version, time_scale, clock
        self.chip = ChipId(chip, chip_row(chip).family, "a1")
        self.stages: list[BootStage] = []
        self.events: list[FirmwareEvent] = []
        self.saved: SavedState | None = None
        self._raised: list[BaseException] = []
        self._wrong: list[str] = []  # answers of receive() that are no number
        self._turns = 0
        self._session: FirmwareSession | None = None
        self._stopping = False
        self._thread = start_thread("contract receiver", self._receive)

    def context(self, saved: SavedState | None = None, save: Callable[[SavedState], None] | None = None) -> OpenContext:
        """For one start, with nothing told yet. Bus mastering is on, as the core has it. save: instead of the bench's."""
        self.stages, self.saved = [], None
        if not self.device.gone:
            self.device.set_bus_master(True)
        return OpenContext(
            self.device, self.chip, self.needs, self.clock, self.events.append, self.stages.append, _nothing,
            self.version, saved, save or self._save, self.time_scale,
        )  # fmt: skip

    def _save(self, saved: SavedState) -> None:
        self.saved = saved

    def serve(self, session: FirmwareSession | None) -> None:
        """Have this session received from now on; returns after a whole turn."""
        self._session = session
        wanted, end = self._turns + 2, time.monotonic() + 5.0
        while self._turns < wanted and time.monotonic() < end:
            time.sleep(0.001)

    def _receive(self) -> None:
        while not self._stopping:
            session = self._session
            if session is not None:
                try:
                    with atomic():
                        taken: object = session.receive()
                    if isinstance(taken, bool) or not isinstance(taken, int):
                        self._wrong.append(repr(taken))
                except Exception as error:  # isolation boundary: worker
                    self._raised.append(error)
                    self._session = None
            self._turns += 1
            time.sleep(0.001)

    def judge(self, who: str) -> None:
        """Raise BrokenContract for what the receiver met so far."""
        if self._raised:
            error = self._raised[0]
            broken("backend-receive", who, f"{type(error).__name__}: {error}")
        if self._wrong:
            broken("backend-receive", who, f"it gave {self._wrong[0]}")

    def reopen(self) -> None:
        """What the end of a process does to a device: host memory goes, the hardware stays as it is."""
        self.serve(None)
        self.device.close()
        self.device = self._make()

    def close(self) -> None:
        """End the receiver."""
        self._stopping = True
        self._thread.join(5.0)


def _nothing() -> None:
    return None


class LeftWaiting:
    """A call of a session whose answer nobody receives, on a thread of its own. `error`: what it raised, once it has ended."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self.error: BaseException | None = None
        self._ended = threading.Event()
        start_thread("contract caller", self._run)

    def _run(self) -> None:
        self.error = raised_by(self._call)
        self._ended.set()

    def ended(self, within: float = 0.0) -> bool:
        """Whether it has come back, after so many real seconds at the latest."""
        return self._ended.wait(within)
