"""Interrupts of one client: which eventfd counts which vector.

Owns the received eventfds. Runs on the server's thread. Source: reference page vfio-user.md, section 6; Linux include/uapi/linux/vfio.h.
"""

from __future__ import annotations

import errno
import os
from struct import Struct
from typing import Final

from nvcore.api.device import Device, InterruptKind
from nvcore.api.errors import NvcoreError
from nvcore.vfio_user.eventfds import add_one, is_eventfd
from nvcore.vfio_user.wire import Refused

__all__ = ["IRQ_INDEXES", "Interrupts"]

_SET: Final = Struct("<IIIII")  # argsz, flags, index, start, count
_INFO: Final = Struct("<IIII")
NONE, BOOL, EVENTFD = 1, 2, 4
MASK, UNMASK, TRIGGER = 8, 16, 32
INFO_EVENTFD, INFO_MASKABLE, INFO_AUTOMASKED, INFO_NORESIZE = 1, 2, 4, 8
IRQ_INDEXES: Final = 5  # INTx, MSI, MSI-X, ERR, REQ
_KINDS: Final[tuple[InterruptKind, ...]] = ("intx", "msi", "msix")
_FLAGS: Final = (INFO_EVENTFD | INFO_MASKABLE | INFO_AUTOMASKED, INFO_EVENTFD | INFO_NORESIZE, INFO_EVENTFD, 0, 0)


class Interrupts:
    """The client's eventfds by (index, vector)."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._fds: dict[tuple[int, int], int] = {}

    def _count(self, index: int) -> int:
        return self._device.interrupts.get(_KINDS[index], 0) if index < len(_KINDS) else 0

    def info(self, body: memoryview) -> bytes:
        """DEVICE_GET_IRQ_INFO."""
        if len(body) < _INFO.size:
            raise Refused(errno.EINVAL, "GET_IRQ_INFO too short")
        argsz, _, index, _ = _INFO.unpack_from(body)
        if argsz < _INFO.size or index >= IRQ_INDEXES:
            raise Refused(errno.EINVAL, f"GET_IRQ_INFO argsz {argsz}, index {index}")
        return _INFO.pack(_INFO.size, _FLAGS[index], index, self._count(index))

    def set(self, body: memoryview, fds: list[int]) -> bytes:
        """DEVICE_SET_IRQS; takes descriptors out of `fds` as it stores them."""
        if len(body) < _SET.size:
            raise Refused(errno.EINVAL, "SET_IRQS too short")
        argsz, flags, index, start, count = _SET.unpack_from(body)
        kind, action = flags & 7, flags & 0x38
        if argsz < _SET.size or flags & ~0x3F or kind not in (NONE, BOOL, EVENTFD) or action not in (MASK, UNMASK, TRIGGER):
            raise Refused(errno.EINVAL, f"SET_IRQS argsz {argsz}, flags {flags:#x}")
        if index >= IRQ_INDEXES or start + count > max(self._count(index), 1 if kind == EVENTFD else 0):
            raise Refused(errno.EINVAL, f"SET_IRQS index {index}, vectors {start} + {count} of {self._count(index) if index < 5 else 0}")
        if kind == BOOL and len(body) != _SET.size + count:
            raise Refused(errno.EINVAL, f"SET_IRQS with {len(body) - _SET.size} flags for {count} vectors")
        if fds and (kind != EVENTFD or len(fds) != count):
            raise Refused(errno.EINVAL, f"SET_IRQS with {len(fds)} descriptors for {count} vectors")
        if action != TRIGGER:
            return b""  # no maskable line is offered (INTx count 0): there is nothing to hold back
        if kind == NONE and count == 0:
            if problems := self._drop([key for key in self._fds if key[0] == index]):
                raise problems[0]
        elif kind == EVENTFD:
            if not all(map(is_eventfd, fds)):  # of all, before the first is used
                raise Refused(errno.EINVAL, "SET_IRQS with a descriptor that is no eventfd")
            for vector in range(start, start + count):
                self._assign(index, vector, fds)
        else:
            wanted = body[_SET.size :] if kind == BOOL else b"\1" * count
            self._inject(index, start, bytes(wanted))
        return b""

    def _assign(self, index: int, vector: int, fds: list[int]) -> None:
        """Connect the first of `fds`, or nothing when there is none. Where the device cannot, all stays as it was."""
        if vector < self._count(index):
            self._device.connect_interrupt(_KINDS[index], vector, fds[0] if fds else None)
        old = self._fds.pop((index, vector), None)
        if fds:
            self._fds[index, vector] = fds.pop(0)
        if old is not None:  # after the new one is in place
            os.close(old)

    def _inject(self, index: int, start: int, wanted: bytes) -> None:
        for vector, flag in enumerate(wanted, start):
            fd = self._fds.get((index, vector))
            if flag and fd is not None:
                add_one(fd)

    def clear(self) -> list[NvcoreError | OSError]:
        """Disconnect and close everything, as the client is gone; what the device said to vectors that it did not let go of."""
        return self._drop(list(self._fds))

    def _drop(self, keys: list[tuple[int, int]]) -> list[NvcoreError | OSError]:
        problems: list[NvcoreError | OSError] = []
        for index, vector in keys:
            try:
                if vector < self._count(index):
                    self._device.connect_interrupt(_KINDS[index], vector, None)
            except (NvcoreError, OSError) as problem:
                problems.append(problem)
            os.close(self._fds.pop((index, vector)))
        return problems
