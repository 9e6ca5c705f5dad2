"""The interrupt tree: from a leaf bit to its owners' eventfds.

Owns the TOP and LEAF registers of one GPU and the routing table. `service` runs on that GPU's receiver thread: it takes no sender's lock
and calls no client, it only writes eventfds. `route` and `mask_all` may be called from any thread. A vector that nobody asked for stays
disabled. Source: reference on the interrupt tree; open-gpu-kernel-modules 570.144 dev_vm.h; handler order as Linux 7.3 nouveau
nvkm/subdev/vfn.
"""

from __future__ import annotations

import os
from contextlib import suppress

from nvcore.api.errors import DeviceGone, UsageError
from nvcore.api.marks import interrupt_safe, may_sleep
from nvcore.hw.chips import bus_is_dead
from nvcore.hw.interrupts import (
    LEAF,
    LEAF_ENABLE_CLEAR,
    LEAF_ENABLE_SET,
    LEAVES_PER_TOP_BIT,
    TOP,
    TOP_ENABLE_CLEAR,
    TOP_ENABLE_SET,
    VECTORS_PER_LEAF,
)  # fmt: skip
from nvcore.hw.register import RegisterIo, is_bus_error
from nvcore.locks import Lock, eventfd

__all__ = ["InterruptTree", "Line"]

_ONES = 0xFFFFFFFF


class Line:
    """One owner's count of one vector: an eventfd that the core owns."""

    __slots__ = ("_tree", "fd", "vector")

    def __init__(self, tree: InterruptTree, vector: int) -> None:
        self._tree, self.vector = tree, vector
        self.fd = eventfd()

    @may_sleep
    def close(self) -> None:
        """Stop counting and close the descriptor. Idempotent."""
        self._tree.drop(self)


class InterruptTree:
    """The tree of one GPU. leaves: leaf registers of the chip."""

    def __init__(self, io: RegisterIo, leaves: int) -> None:
        self._io, self._leaves = io, leaves
        self._top = (1 << (leaves // LEAVES_PER_TOP_BIT)) - 1
        self._lock = Lock("interrupt-routes", leaf=True)
        self._routes: dict[int, tuple[Line, ...]] = {}
        self._listened: set[int] = set()
        self._enabled = [0] * leaves
        self._masked = True
        self.spurious = 0

    @may_sleep
    def open(self) -> None:
        """Clear every enable, then let messages through, and enable what is routed already (after a reset)."""
        io = self._io
        with self._lock:
            TOP_ENABLE_CLEAR(self._top).write(io)
            for leaf in range(self._leaves):
                LEAF_ENABLE_CLEAR(_ONES).write(io, index=leaf)
                LEAF(_ONES).write(io, index=leaf)
                if self._enabled[leaf]:
                    LEAF_ENABLE_SET(self._enabled[leaf]).write(io, index=leaf)
            self._masked = False
            TOP_ENABLE_SET(self._top).write(io)

    def mask_all(self) -> None:
        """Hold every message back until `open`. Any thread; a device that left is masked anyway."""
        with self._lock:
            self._masked = True
            with suppress(DeviceGone):
                TOP_ENABLE_CLEAR(self._top).write(self._io)

    @may_sleep
    def route(self, vector: int) -> Line:
        """A new line that counts `vector`; several owners may count one. Raises UsageError for a vector outside of the tree."""
        line = Line(self, self._checked(vector))
        self._add(vector, line)
        return line

    @may_sleep
    def listen(self, vector: int) -> None:
        """Enable a vector whose owner is the receiver thread itself: it looks at the firmware after every `service`."""
        self._listened.add(vector)
        self._add(self._checked(vector), None)

    def _checked(self, vector: int) -> int:
        if not 0 <= vector < self._leaves * VECTORS_PER_LEAF:
            raise UsageError("no such interrupt vector", expected=f"0 to {self._leaves * VECTORS_PER_LEAF - 1}", seen=vector)
        return vector

    def _add(self, vector: int, line: Line | None) -> None:
        leaf, bit = vector // VECTORS_PER_LEAF, 1 << vector % VECTORS_PER_LEAF
        with self._lock:
            self._routes[vector] = (*self._routes.get(vector, ()), *([line] if line else []))
            if not self._enabled[leaf] & bit:
                self._enabled[leaf] |= bit
                if not self._masked:
                    LEAF_ENABLE_SET(bit).write(self._io, index=leaf)

    def drop(self, line: Line) -> None:
        """Take a line off its vector, and the vector off the hardware with its last line."""
        leaf, bit = line.vector // VECTORS_PER_LEAF, 1 << line.vector % VECTORS_PER_LEAF
        with self._lock:
            fd, line.fd = line.fd, -1
            if fd < 0:
                return
            rest = tuple(other for other in self._routes.get(line.vector, ()) if other is not line)
            if rest or line.vector in self._listened:
                self._routes[line.vector] = rest
            else:
                self._routes.pop(line.vector, None)
                self._enabled[leaf] &= ~bit
                if not self._masked:
                    with suppress(DeviceGone):
                        LEAF_ENABLE_CLEAR(bit).write(self._io, index=leaf)
            os.close(fd)  # under the lock: `service` must not write to a number that somebody else was given

    @interrupt_safe
    def service(self) -> int:
        """Take what is pending: hold messages back, acknowledge, count it to its owners, let messages through. Number of vectors taken.

        Raises DeviceGone when the tree reads as error patterns.
        """
        io, taken = self._io, 0
        with self._lock:
            if self._masked:
                return 0
            io.write32(TOP_ENABLE_CLEAR.OFFSET, self._top)
            top = io.read32(TOP.OFFSET)
            if is_bus_error(top) and bus_is_dead(io):
                raise DeviceGone("the interrupt tree cannot be read", seen=f"{top:#010x}", where="TOP")
            for leaf in range(self._leaves):
                if not top >> (leaf // LEAVES_PER_TOP_BIT) & 1:
                    continue
                address = LEAF.OFFSET + LEAF.STRIDE * leaf
                pending = io.read32(address) & self._enabled[leaf]
                if not pending:
                    continue
                io.write32(address, pending)
                while pending:
                    low = pending & -pending
                    pending ^= low
                    taken += 1
                    self._deliver(leaf * VECTORS_PER_LEAF + low.bit_length() - 1)
            io.write32(TOP_ENABLE_SET.OFFSET, self._top)
        if not taken:
            self.spurious += 1
        return taken

    def _deliver(self, vector: int) -> None:
        for line in self._routes.get(vector, ()):
            with suppress(BlockingIOError):  # the owner has 2^64 - 2 counts to read: it will not miss this one
                os.eventfd_write(line.fd, 1)
