"""Dropping cached translations: the core's one part in a map path; and the gate that ends it, and all else, with its generation.

Owns the invalidate registers of one GPU behind a leaf lock that is held for register accesses only, and the tickets in flight and pending.
It never waits for a client, calls none, and allocates nothing after a space was made: each space brings a ring of tickets. A batch of
waiting tickets costs one invalidate. One that takes longer than the limit fails all tickets, in flight and pending, and is reported once as
a fault of the GPU. Closing a gate is a store that every later look sees. Any thread; inside signalling sections. Source:
open-gpu-kernel-modules 570.144 dev_vm.h; Linux 7.3 nouveau nvkm/subdev/mmu (2 s).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from nvcore.api.clock import Clock, wait_until
from nvcore.api.errors import DeviceGone, FirmwareDead, WaitTimeout
from nvcore.api.marks import interrupt_safe, may_sleep, signalling_safe
from nvcore.hw.chips import read_live
from nvcore.hw.mmu import INVALIDATE, invalidate_writes
from nvcore.hw.register import RegisterIo
from nvcore.locks import Lock, might_wait

_RING: Final = 32


class Gate:
    """Whether the hardware of one generation may be touched. Closed once, for ever; `cause` is the first one."""

    def __init__(self, generation: int) -> None:
        self.generation, self.open = generation, True
        self.cause: str | None = None

    def close(self, cause: str) -> bool:
        """Close it; whether this call did."""
        if not self.open:
            return False
        self.cause, self.open = cause, False
        return True

    def check(self) -> None:
        """Raise FirmwareDead with the first cause when the generation is over."""
        if not self.open:
            raise FirmwareDead(f"generation {self.generation} of the GPU is over", seen=self.cause, remedy="wait for resume")


class Ticket:
    """One asked-for invalidate. It is the caller's until it is done; the ring of its space reuses it 31 invalidates later."""

    __slots__ = ("_invalidator", "done", "error", "pdb", "ring")

    def __init__(self, ring: TicketRing, invalidator: Invalidator) -> None:
        self.ring, self._invalidator, self.done, self.pdb = ring, invalidator, True, 0
        self.error: str | None = None

    @interrupt_safe
    @signalling_safe
    def poll(self) -> bool:
        """Look at the hardware once; whether the ticket is done."""
        if not self.done:
            self._invalidator.poll()
        return self.done

    @may_sleep
    def wait(self, timeout: float) -> bool:
        """Wait until done, at most `timeout` seconds; whether it is. The GPU's own limit ends it earlier with an error."""
        might_wait("invalidate ticket")
        with suppress(WaitTimeout):
            wait_until(self.poll, bool, timeout=timeout, what="an invalidate", clock=self._invalidator.clock)
        return self.done

    def finish(self) -> None:
        """Wait for its end. Raises FirmwareDead with the first cause when it failed, WaitTimeout when nobody ended it."""
        limit = 2 * self._invalidator.limit
        if not self.wait(limit):
            raise WaitTimeout("an invalidate did not end", expected=f"within {limit:g} s", remedy="the GPU is being reset")
        if self.error is not None:
            raise FirmwareDead("an invalidate failed", seen=self.error, remedy="the GPU is being reset")


class TicketRing:
    """The reserve of one address space in one generation: at most one ticket of it is pending and one in flight, so a ring of 32 never runs
    dry."""

    __slots__ = ("_gate", "_next", "_tickets")

    def __init__(self, invalidator: Invalidator, gate: Gate) -> None:
        self._tickets = tuple(Ticket(self, invalidator) for _ in range(_RING))
        self._gate, self._next = gate, 0

    def take(self, pdb: int) -> Ticket:
        """The next free ticket, armed; on a dead generation done, with its first cause. Called under the leaf lock."""
        ticket = self._tickets[self._next]
        self._next = (self._next + 1) % _RING
        ticket.pdb, ticket.done = pdb, not self._gate.open  # looked at first: a closed gate has its cause
        ticket.error = self._gate.cause if ticket.done else None
        return ticket


class Invalidator:
    """The invalidate unit of one GPU.

    on_timeout: called once, outside the lock, with the cause; it closes the generation's gate and hands the fault over. limit: seconds.
    wake: makes the receiver look, so that a ticket ends although nobody polls it.
    """

    def __init__(self, io: RegisterIo, clock: Clock, on_timeout: Callable[[str], None], limit: float, wake: Callable[[], None]) -> None:
        self._io, self.clock, self._on_timeout, self.limit, self._wake = io, clock, on_timeout, limit, wake
        self._lock = Lock("invalidate", leaf=True)
        self._active: list[Ticket] = []
        self._pending: list[Ticket] = []
        self._since: float | None = None

    @property
    def busy(self) -> bool:
        """Whether somebody has to look at the hardware again."""
        return bool(self._active or self._pending)

    @signalling_safe
    def start(self, ring: TicketRing, pdb: int) -> Ticket:
        """Ask for an invalidate of the space whose root directory lies at `pdb`. One that has not started yet covers later changes too, so
        a second request before it starts is given the same ticket. After the ring's generation died the ticket is done, with its error."""
        with self._lock:
            ticket = next((ticket for ticket in self._pending if ticket.ring is ring), None)
            if ticket is None:
                ticket = ring.take(pdb)
                if ticket.done:
                    return ticket
                self._pending.append(ticket)
            cause = self._advance() or self._advance()  # begin, and see whether it is over already: hardware takes a microsecond
        if cause is not None:
            self._on_timeout(cause)
        elif not ticket.done:
            self._wake()
        return ticket

    @interrupt_safe
    @signalling_safe
    def poll(self) -> None:
        """Look at the hardware once, finish and start what can be."""
        with self._lock:
            cause = self._advance()
        if cause is not None:
            self._on_timeout(cause)

    def fail_all(self, cause: str) -> None:
        """The generation is dead: every ticket fails with its first cause."""
        with self._lock:
            self._finish(cause)

    def _finish(self, error: str | None = None) -> str | None:
        """What is in flight is done; with an error, which is returned, what is pending too."""
        if error is not None:
            self._active, self._pending = self._active + self._pending, []
        for ticket in self._active:
            ticket.error, ticket.done = error, True
        self._active, self._since = [], None
        return error

    def _advance(self) -> str | None:
        """One step, under the lock. The cause, when this step found the unit stuck."""
        if not self.busy:
            return None
        try:
            raw = read_live(self._io, INVALIDATE.OFFSET, "the invalidate register")
            if raw & INVALIDATE.trigger.mask:  # ours, or the firmware's: ours then starts behind it, within the same limit
                now = self.clock.now()
                self._since = now if self._since is None else self._since
                if now - self._since < self.limit:
                    return None
                return self._finish(f"invalidate-timeout: busy for {self.limit:g} s, INVALIDATE {raw:#010x}")
            self._finish()
            if self._pending:
                self._active, self._pending, self._since = self._pending, [], self.clock.now()
                roots = {ticket.pdb for ticket in self._active}
                for register, value in invalidate_writes(roots.pop() if len(roots) == 1 else None):
                    self._io.write32(register, value)
        except DeviceGone as error:
            return self._finish(f"device-gone: {error.what}")
        return None
