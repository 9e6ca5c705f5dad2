"""Calls over the two queues: one at a time, answered by function (and sequence where the firmware echoes it), with events in between.

Owns both ends of the queues, the call that waits, and the declaration of death. `call` and `post` may sleep and hold the command lock from
send to answer; `receive` runs on the receiver thread, takes no lock of a sender and never raises. Knows no function by name: the caller
passes numbers and, for texts, words.
Source: open-gpu-kernel-modules 570.144, rpc.c (_issueRpcAndWait, large messages), kernel_gsp.c; nova-core gsp/cmdq.rs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from nvcore.api.clock import Clock
from nvcore.api.errors import DeviceGone, NvcoreError
from nvcore.locks import Lock
from nvcore_fw_gsp.queue.command import CommandSender
from nvcore_fw_gsp.queue.errors import CallRefused, CallTimeout, FirmwareIsDead, QueueCorrupt, QueueFull
from nvcore_fw_gsp.queue.layout import CONTINUATION, FIRST_EVENT
from nvcore_fw_gsp.queue.memory import SharedBlock
from nvcore_fw_gsp.queue.status import Record, StatusReceiver

__all__ = ["Call", "RpcPort"]

_POLL: Final = 0.0002
_SLICE: Final = 0.25
"""Seconds between two looks at the firmware's health while a call waits."""

_KEPT: Final = 32
_TIMEOUTS: Final = 3
"""Unanswered calls in a row after which the firmware counts as dead, as in the reference driver."""


class Call:
    """One call: what was asked, and the answer once `done` is set. Made by `RpcPort` only.

    head: the first bytes of the request, which its answer repeats. doubted: while it waited, an answer that may have been its own was
    taken for an older call's.
    """

    __slots__ = ("done", "doubted", "expected", "failed", "function", "head", "parts", "received", "result", "sequence", "what")

    def __init__(self, function: int, sequence: int, expected: int, what: str, head: bytes = b"") -> None:
        self.function, self.sequence, self.expected, self.what, self.head = function, sequence, expected, what, head
        self.doubted = False
        self.done = threading.Event()
        self.parts: list[bytes] = []
        self.received = self.result = 0
        self.failed: str | None = None

    def fits(self, function: int, payload: bytes) -> bool:
        """Whether an answer can be this call's by what it says itself."""
        return function == self.function and self.head.startswith(payload[: len(self.head)])

    @property
    def reply(self) -> bytes:
        """The whole answer, continuation records merged."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)


class RpcPort:
    """Both queues of one firmware.

    on_event(number, result, payload): called for every event in the order received, on the receiving thread. on_note(name, text): told of
    what was drained or not understood. on_death(cause): told once. healthy(): a cause when the hardware shows that the firmware stopped.
    echo: whether this firmware version returns the sequence of a call.
    """

    def __init__(
        self,
        block: SharedBlock,
        doorbell: Callable[[], None],
        clock: Clock,
        *,
        on_event: Callable[[int, int, bytes], None],
        on_note: Callable[[str, str], None],
        on_death: Callable[[str], None],
        healthy: Callable[[], str | None] = lambda: None,
        wake: Callable[[], None] = lambda: None,
        echo: bool = False,
        time_scale: float = 1.0,
        room_timeout: float = 1.0,
    ) -> None:
        self.block, self.clock = block, clock
        self.sender = CommandSender(block, doorbell, clock, alive=self.raise_if_dead, timeout=room_timeout * time_scale)
        self.receiver = StatusReceiver(block)
        self.late = self.unknown = 0
        self.history: deque[tuple[str, int, int]] = deque(maxlen=_KEPT)
        self._on_event, self._on_note, self._on_death, self._healthy, self._wake = on_event, on_note, on_death, healthy, wake
        self._echo, self._scale = echo, time_scale
        self._command = Lock("fw_gsp.command")
        self._draining = threading.Lock()
        self._causes: dict[int, tuple[str]] = {}
        self._call: Call | None = None
        self._merging: Call | None = None
        self._abandoned: list[Call] = []
        self._sequence = self._unanswered = 0
        self.attended = self._left = False

    @property
    def dead(self) -> str | None:
        """First cause of death, or None."""
        first = self._causes.get(0)
        return None if first is None else first[0]

    @property
    def waiting(self) -> int:
        """Calls that wait for an answer: 0 or 1."""
        return 0 if self._call is None else 1

    # ---- senders --------------------------------------------------------------------------------------------------------------------

    def call(self, function: int, payload: bytes | bytearray | memoryview, what: str, timeout: float, head: int = 0) -> bytes:
        """Send and wait for the answer's payload. timeout: seconds before scaling; `what`: the call in words, for errors; head: bytes at
        the payload's beginning that the answer repeats, by which calls of one function are told apart.

        Raises FirmwareIsDead (at once when already dead), CallTimeout, CallRefused (transport status other than 0), QueueFull.
        """
        with self._command:
            self.raise_if_dead()
            self._sequence = self._sequence % 0x7FFFFFFF + 1  # never 0: that is what unsequenced messages carry
            call = Call(function, self._sequence, len(payload), what, bytes(payload[:head]))
            self._call = call
            try:
                self.raise_if_dead()  # a death declared before the line above did not see this call
                self._send(function, call.sequence, payload)
                self._wake()
                self._wait(call, timeout * self._scale)
            finally:
                self._call = None
            if call.failed is not None:
                self.raise_if_dead()
            self._unanswered = 0
            if call.result:
                raise CallRefused(
                    f"the firmware refused {what}", call.result, seen=f"result {call.result:#x}", where=f"function {function:#x}"
                )
            return call.reply

    def post(self, function: int, payload: bytes | bytearray | memoryview) -> None:
        """Send without waiting for an answer; such messages carry sequence 0."""
        with self._command:
            self.raise_if_dead()
            self._send(function, 0, payload)

    def _send(self, function: int, sequence: int, payload: bytes | bytearray | memoryview) -> None:
        before = self.sender.sent
        try:
            self.sender.send(function, sequence, payload)
        except DeviceGone as gone:
            self.declare_dead(str(gone))  # the receiver, which waits for interrupts, would never find out
            raise
        except (QueueFull, QueueCorrupt) as error:
            if self.sender.sent != before or isinstance(error, QueueCorrupt):  # half a message is in the queue: out of step for good
                self.declare_dead(str(error))
            raise

    def _wait(self, call: Call, limit: float) -> None:
        clock = self.clock
        end = clock.now() + limit
        piece = _SLICE * self._scale
        done = call.done
        while True:
            if not self.attended:
                self.drain()
            if done.is_set():
                return
            left = end - clock.now()
            if left <= 0:
                break
            if self.attended:
                if clock.wait(done, min(left, piece)):
                    return
                if (cause := self._healthy()) is not None:
                    self.declare_dead(cause)
            else:
                self._pause(left)
        with self._draining:  # nobody is in the middle of an answer: what comes later than this look is late
            self._take_all()
            if done.is_set():
                return
            self._call = None
            self._abandoned.append(call)
        self._give_up(call, limit)

    def _pause(self, left: float) -> None:
        """Between two polls while nobody else receives."""
        if (cause := self._healthy()) is not None:
            self.declare_dead(cause)
        else:
            self.clock.sleep(min(_POLL, left))

    def _give_up(self, call: Call, limit: float) -> None:
        self._unanswered += 1
        seen = f"write pointers: commands {self.sender.pointers[0]}, taken {self.sender.pointers[1]}; answers {self.receiver.pointers}"
        if self._unanswered >= _TIMEOUTS:
            self.declare_dead(f"{_TIMEOUTS} calls in a row were not answered, the last was {call.what}")
        raise CallTimeout(
            f"no answer to {call.what}",
            expected=f"within {limit:g} s",
            seen=seen,
            where=f"function {call.function:#x}",
            remedy="nvcore dump keeps the queues and logs; a late answer will be drained",
        )

    def raise_if_dead(self) -> None:
        """Raise FirmwareIsDead with the first cause when the firmware was declared dead."""
        if self._causes:
            raise FirmwareIsDead(
                "the firmware is dead and is asked nothing more",
                expected="a living firmware",
                seen=self.dead,
                remedy="the core reboots it, or: nvcore gpus retry GPU",
            )

    # ---- receiving ------------------------------------------------------------------------------------------------------------------

    def receive(self) -> int:
        """As `drain`, called by the receiver thread: from now on senders leave receiving to it."""
        self.attended = not self._left
        return self.drain()

    def leave_receiver(self) -> None:
        """Senders receive for themselves again: the receiver thread may be gone from now on."""
        self._left = True
        self.attended = False

    def drain(self) -> int:
        """Take everything that is in the status queue; how many records. Never raises; returns 0 when another thread is at it."""
        if not self._draining.acquire(blocking=False):
            return 0
        try:
            return self._take_all()
        finally:
            self._draining.release()

    def _take_all(self) -> int:
        """The same for whoever holds `_draining`."""
        taken = 0
        try:
            receiver = self.receiver
            if self._causes:
                return 0
            if not receiver.linked:
                rx = receiver.link()
                if rx is None:
                    return 0
                self.sender.link(self.block, rx)
            take = receiver.take
            while (record := take()) is not None:
                taken += 1
                self._dispatch(record)
            if receiver.stale:
                self._on_note("stale-record", f"{receiver.stale} records of a number seen before were skipped")
                receiver.stale = 0
        except NvcoreError as error:
            self.declare_dead(str(error))
        return taken

    def _dispatch(self, record: Record) -> None:
        function, result, sequence, payload = record
        self.history.append(("event" if function >= FIRST_EVENT else "reply", function, len(payload)))
        if function >= FIRST_EVENT:
            self._on_event(function, result, payload)
        elif function == CONTINUATION:
            self._continue(payload)
        else:
            self._answer(function, result, sequence, payload)

    def _answer(self, function: int, result: int, sequence: int, payload: bytes) -> None:
        call = self._call
        if call is None or call.function != function or call.parts or not self._is_for(call, sequence, payload):
            self._drained(function, sequence, payload)
            return
        self._abandoned.clear()  # answers come in order: what older calls miss now never comes
        call.result = result
        call.parts.append(payload)
        call.received = len(payload)
        if call.received < call.expected and len(payload) == self.sender.max_payload:
            self._merging = call
            return
        call.done.set()

    def _is_for(self, call: Call, sequence: int, payload: bytes) -> bool:
        """Whether an answer of the waiting call's function is this call's, rather than one of a call that was given up.

        By the sequence where it is echoed. Else an answer that could also be an older call's counts as that one's, once: should the
        waiting call then get none, the older one's never came, and what the next answer says itself is believed.
        """
        if sequence == call.sequence:
            return True
        if self._echo:
            return False
        alike = (old for old in self._abandoned if old.function == call.function and old.head == call.head)
        return call.fits(call.function, payload) and all(old.doubted for old in alike)

    def _drained(self, function: int, sequence: int, payload: bytes) -> None:
        late = [old for old in self._abandoned if old.fits(function, payload)]
        if not late:
            self.unknown += 1
            self._on_note("unknown-answer", f"an answer to function {function:#x} (sequence {sequence}) that nobody waits for was drained")
            return
        found = next((old for old in late if old.sequence == sequence), late[0])
        del self._abandoned[: self._abandoned.index(found) + 1]
        self._merging = None
        call = self._call
        if call is not None and found.sequence != sequence and call.fits(function, payload):
            call.doubted = True
        self.late += 1
        self._on_note(
            "late-answer", f"an answer to function {function:#x} came after its call was given up ({len(payload)} bytes, drained)"
        )

    def _continue(self, payload: bytes) -> None:
        call = self._merging
        if call is None or call is not self._call:
            self._merging = None
            self.late += 1  # the rest of an answer whose call was given up
            self._on_note("late-answer", f"a continuation of {len(payload)} bytes that nobody waits for was drained")
            return
        call.parts.append(payload)
        call.received += len(payload)
        if call.received > call.expected:
            raise QueueCorrupt(
                "a split answer is longer than its request",
                expected=f"{call.expected} bytes",
                seen=f"{call.received} bytes",
                where=call.what,
            )
        if call.received == call.expected or len(payload) < self.sender.max_payload:
            self._merging = None
            call.done.set()

    def declare_dead(self, cause: str) -> None:
        """Fail the waiting call and all later ones with `cause`. The first declaration wins."""
        if self.close(cause):
            self._on_death(cause)

    def close(self, reason: str) -> bool:
        """The same for an end in order: nobody is told of a death. False when it had ended before."""
        entry = (reason,)
        if self._causes.setdefault(0, entry) is not entry:  # one atomic step decides who was first
            return False
        call = self._call
        if call is not None:
            call.failed = reason
            call.done.set()
        return True

    def forget(self) -> None:
        """Close, and let go of the queues' memory: whoever frees it may do so now. Not on the receiver thread."""
        self.close("the firmware was unloaded")
        with self._draining:
            self.sender.forget()
            self.receiver.forget()
