"""The interrupt tree: from a leaf bit to its owners' eventfds.

Owns the TOP and LEAF registers of one GPU and the routing table. `service` runs on that GPU's receiver thread: it takes no sender's lock
and calls no client, it only writes eventfds. `route` and `mask_all` may be called from any thread. A vector that nobody asked for stays
disabled. Source: reference on the interrupt tree; open-gpu-kernel-modules 570.144 dev_vm.h; handler order as Linux 7.3 nouveau
nvkm/subdev/vfn.
"""

from __future__ import annotations

import os
from contextlib import suppress

from nvcore.api.errors import DeviceGone
from nvcore.api.marks import interrupt_safe
from nvcore.hw import interrupts as hw
from nvcore.hw.chips import read_live
from nvcore.hw.register import RegisterIo
from nvcore.locks import Lock, eventfd

_ONES = 0xFFFFFFFF
_HOLD_BACK, _LET_THROUGH = hw.TOP_ENABLE_CLEAR.OFFSET, hw.TOP_ENABLE_SET.OFFSET


class InterruptTree:
    """The tree of one GPU. leaves: leaf registers of the chip."""

    def __init__(self, io: RegisterIo, leaves: int) -> None:
        self._io, self._leaves = io, leaves
        self._top = (1 << (leaves // hw.LEAVES_PER_TOP_BIT)) - 1
        self._lock = Lock("interrupt-routes", leaf=True)
        self._routes: dict[int, tuple[int, ...]] = {}
        self._firmware: int | None = None
        self._enabled = [0] * leaves
        self._masked = True

    def open(self, firmware: int | None = None) -> None:
        """Clear every enable, then let messages through, and enable what is routed already (after a reset).

        firmware: the vector whose owner is the receiver thread itself, which looks at the firmware after every `service`; it stays enabled.
        Raises UsageError for a vector outside of the tree.
        """
        io = self._io
        with self._lock:
            self._firmware = firmware
            if firmware is not None:
                self._count(firmware, self._routes.get(firmware, ()))
            io.write32(_HOLD_BACK, self._top)
            for leaf, enabled in enumerate(self._enabled):
                hw.LEAF_ENABLE_CLEAR(_ONES).write(io, index=leaf)
                hw.LEAF(_ONES).write(io, index=leaf)
                if enabled:
                    hw.LEAF_ENABLE_SET(enabled).write(io, index=leaf)
            self._masked = False
            io.write32(_LET_THROUGH, self._top)

    def mask_all(self) -> None:
        """Hold every message back until `open`. Any thread; a device that left is masked anyway."""
        with self._lock:
            self._masked = True
            with suppress(DeviceGone):
                self._io.write32(_HOLD_BACK, self._top)

    def route(self, vector: int) -> int:
        """A new eventfd that counts `vector`, owned by the tree; several may count one. Raises UsageError for a vector outside of the
        tree."""
        hw.place_of(vector, self._leaves)
        fd = eventfd()
        with self._lock:
            self._count(vector, (*self._routes.get(vector, ()), fd))
        return fd

    def drop(self, vector: int, fd: int) -> None:
        """Take an eventfd off its vector and close it."""
        with self._lock:
            self._count(vector, tuple(other for other in self._routes[vector] if other != fd))
            os.close(fd)  # under the lock: `service` must not write to a number that somebody else was given

    def _count(self, vector: int, fds: tuple[int, ...]) -> None:
        """Count a vector to these from now on: it is enabled for as long as there are any, or it is the firmware's."""
        leaf, bit = hw.place_of(vector, self._leaves)
        self._routes[vector], wanted = fds, bool(fds) or vector == self._firmware
        self._enabled[leaf] = self._enabled[leaf] | bit if wanted else self._enabled[leaf] & ~bit
        if not self._masked:
            with suppress(DeviceGone):
                (hw.LEAF_ENABLE_SET if wanted else hw.LEAF_ENABLE_CLEAR)(bit).write(self._io, index=leaf)

    @interrupt_safe
    def service(self) -> None:
        """Take what is pending: hold messages back, acknowledge, count it to its owners, let messages through. Raises DeviceGone when the
        tree reads as error patterns."""
        io = self._io
        with self._lock:
            if self._masked:
                return
            io.write32(_HOLD_BACK, self._top)
            top = read_live(io, hw.TOP.OFFSET, "the interrupt tree")
            for leaf in range(self._leaves):
                if top >> (leaf // hw.LEAVES_PER_TOP_BIT) & 1:
                    self._take(io, leaf)
            io.write32(_LET_THROUGH, self._top)

    def _take(self, io: RegisterIo, leaf: int) -> None:
        """Acknowledge what is pending in a leaf and count it to its owners."""
        address = hw.LEAF.OFFSET + hw.LEAF.STRIDE * leaf
        left = io.read32(address) & self._enabled[leaf]
        if left:
            io.write32(address, left)
        while left:
            low = left & -left
            left ^= low
            for fd in self._routes.get(leaf * hw.VECTORS_PER_LEAF + low.bit_length() - 1, ()):
                with suppress(BlockingIOError):  # the owner has 2^64 - 2 counts to read: it will not miss this one
                    os.eventfd_write(fd, 1)
