"""Messages with the device's own work between them: what a device that computes needs of its server.

Owns the order in which one connection looks at its socket and does a piece of work: the socket first while there is more to do, and a piece
in every `BURST` messages however fast they come, so that neither holds up the other for longer than one piece, or one burst. Runs on the
server's thread. Knows nothing of what the work is. Source: DESIGN 6 (slices).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nvcore.api.errors import NvcoreError
from nvcore.vfio_user.wire import Message, Stream

__all__ = ["BURST", "Work", "Working"]

Work = Callable[[], "float | None"]
"""Does one short piece of work. Answers in how many seconds it wants to be called again: 0 when there is more to do, a time when only time
can bring some, None when only a message can."""

BURST: Final = 64
"""Messages that are served one after another, at most, while there is work."""


class Working:
    """The messages of `stream`, with `work` called whenever none has arrived. An error of nvcore's or the system's that ends a piece goes
    to `problem`, as that of a message does, and the next message is waited for."""

    __slots__ = ("_more", "_problem", "_row", "_stream", "_work")

    def __init__(self, stream: Stream, work: Work, problem: Callable[[str], None]) -> None:
        self._stream = stream
        self._work = work
        self._problem = problem
        self._more = False
        self._row = 0

    def receive(self) -> Message | None:
        """As `Stream.receive`. What a message brought to do is begun without another look at the socket; a device with nothing to do costs
        one call of `work` a message and no call of the system."""
        stream = self._stream
        while True:
            if self._row >= BURST:  # before a message is taken: one in hand would be lost, with its descriptors, where a piece raises
                self._piece()
            message = stream.take()
            if message is not None:
                self._row += 1
                return message
            if not (self._more and stream.arrived(0.0)):
                wait = self._piece()
                if self._more or (wait is not None and not stream.arrived(wait)):
                    continue
            if not stream.fill():
                return None

    def _piece(self) -> float | None:
        try:
            wait = self._work()
        except (NvcoreError, OSError) as problem:
            self._problem(f"the device's own work: {problem}")
            wait = None
        self._more = wait is not None and wait <= 0
        self._row = 0
        return wait
