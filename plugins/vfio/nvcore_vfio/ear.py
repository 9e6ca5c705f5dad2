"""What the firmware tells of one vGPU's task, heard by the vGPU that it is told of.

It comes on the client's delivery thread, and may come when that vGPU was taken down and its function is another one's. So each task has an
ear of its own: it is told what the core meets while it is open, and hears nothing once it is closed. Opened and closed on the life-cycle
thread.
"""

from __future__ import annotations

from collections.abc import Callable

from nvcore.api.client import ClientContext
from nvcore.api.events import VgpuPluginEvent

__all__ = ["Ear"]


class Ear:
    """For the task of one function, open from the start. crashed: called when it crashed; it waits for nothing."""

    __slots__ = ("_crashed", "_end", "_function", "_open")

    def __init__(self, context: ClientContext, function: int, crashed: Callable[[], None]) -> None:
        self._function, self._crashed, self._open = function, crashed, True
        self._end = context.subscribe_vgpu(self._told)

    def _told(self, event: VgpuPluginEvent) -> None:
        if self._open and event.function == self._function and event.what == "crashed":
            self._crashed()

    def close(self) -> None:
        """Hear nothing more, also of what is on its way."""
        self._open = False
        self._end()
