"""Whether other threads have come to rest: the question a virtual clock must answer before it moves.

Owns nothing. A thread rests when it sleeps in the kernel and has neither moved nor been scheduled over several looks; between looks the
interpreter's lock is given up, so that a thread that merely waited for it runs. Linux only.
Source: proc_pid_status(5): State, voluntary_ctxt_switches.
"""

from __future__ import annotations

import sys
import threading
import time

from nvcore.testing.lockdep.stack import own_work

__all__ = ["Watch", "give_way"]

LOOK = 0.001
"""Real seconds between two looks."""

LOOKS = 3
"""How many equal looks in a row count as rest."""


class Watch:
    """Watches one thread over successive looks."""

    __slots__ = ("_last", "_same", "thread")

    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread
        self._last: object = None
        self._same = 0

    def resting(self) -> bool:
        """Take one look; whether the thread has ended or stood still over the last looks."""
        ident, native = self.thread.ident, self.thread.native_id
        if ident is None or native is None:
            return not self.thread.is_alive()
        frame = sys._current_frames().get(ident)
        if frame is None or not self.thread.is_alive():
            return True
        look = (id(frame), frame.f_code, frame.f_lasti, *_scheduled(native))
        self._same = self._same + 1 if look == self._last and look[3] == "S" else 0
        self._last = look
        return self._same >= LOOKS


def _scheduled(native: int) -> tuple[str, str]:
    """The kernel's state letter of a thread and how often it went to sleep."""
    with own_work():  # a job in its signalling path may be what moves an automatic clock
        try:
            with open(f"/proc/self/task/{native}/status", encoding="ascii", errors="replace") as status:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
        except (FileNotFoundError, ProcessLookupError):
            return "gone", ""
    return fields["State"][:1], fields["voluntary_ctxt_switches"]


def give_way() -> None:
    """Let the others run for one look, in real time."""
    time.sleep(LOOK)
