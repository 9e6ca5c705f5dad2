"""The receiver: the one thread of a GPU that hears what hardware and firmware say.

Owns the interrupt eventfd and the wake-up eventfd. It services the interrupt tree, drains the session, looks at an invalidate that is under
way, and runs urgent work of the fault ladder. It takes no sender's lock and never calls a client. While a call waits for its answer it
polls, so that a lost interrupt costs a millisecond, not a hang. Source: DESIGN "Threads, processes, trust".
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from nvcore.api.device import Device, InterruptKind
from nvcore.api.errors import DeviceGone
from nvcore.api.firmware import FirmwareSession
from nvcore.api.marks import interrupt_safe, may_sleep, signalling_safe
from nvcore.gpu.interrupts import InterruptTree
from nvcore.gpu.invalidate import Invalidator
from nvcore.gpu.threads import Job
from nvcore.locks import atomic, eventfd, start_thread

_KINDS: Final[tuple[InterruptKind, ...]] = ("msi", "msix", "intx")
_POLL: Final = 0.001
_POLL_MAX: Final = 0.008
_IDLE: Final = 1.0  # a heartbeat: a device that left raises no interrupt any more
_IDLE_WITHOUT_INTERRUPT: Final = 0.02


class Receiver:
    """on_fault(cause): the session died, or the device is gone ("device-gone: …"); may be told again. on_error: an urgent job or the
    session raised."""

    def __init__(self, name: str, on_fault: Callable[[str], None], on_error: Callable[[str, BaseException], None]) -> None:
        self.name, self._on_fault, self._on_error = name, on_fault, on_error
        self._urgent: deque[Job] = deque()
        self._target: tuple[Device, FirmwareSession, InterruptTree, Invalidator, InterruptKind | None] | None = None
        self._stopping = False
        self._wake_fd = eventfd()
        self._interrupt_fd = eventfd()
        self._thread = start_thread(name, self._loop)

    def attach(self, device: Device, session: FirmwareSession, tree: InterruptTree, invalidator: Invalidator) -> None:
        """Serve this generation's session from now on: the device's first vector (MSI, else MSI-X, else INTx) is counted here; where it has
        none, the receiver polls."""
        kind = next((kind for kind in _KINDS if device.interrupts.get(kind)), None)
        if kind is not None:
            device.connect_interrupt(kind, 0, self._interrupt_fd)
        self._target = (device, session, tree, invalidator, kind)
        self.wake()

    def detach(self) -> None:
        """Serve none; also of a device that left."""
        target, self._target = self._target, None
        self.wake()
        if target is not None and target[4] is not None:
            with suppress(DeviceGone):
                target[0].connect_interrupt(target[4], 0, None)

    @interrupt_safe
    @signalling_safe
    def wake(self) -> None:
        """Look again soon: a call was sent, an invalidate began. Any thread."""
        with suppress(OSError, ValueError):  # it is awake, or gone
            os.eventfd_write(self._wake_fd, 1)

    @interrupt_safe
    @signalling_safe
    def urgent(self, call: Callable[[], Any], what: str) -> None:
        """Run `call` on this thread, outside of its interrupt section, before anything else."""
        self._urgent.append(Job(call, what))
        self.wake()

    def _loop(self) -> None:
        pause = _POLL
        with select.epoll() as poller:
            for fd in (self._wake_fd, self._interrupt_fd):
                poller.register(fd, select.EPOLLIN)
            while not self._stopping:
                target = self._target
                rest = None if target is None else _IDLE if target[4] is not None else _IDLE_WITHOUT_INTERRUPT
                busy = bool(self._urgent or (target is not None and (target[1].waiting or target[3].busy)))
                fired = [fd for fd, _ in poller.poll(pause if busy else rest)]
                pause = min(pause * 1.5, _POLL_MAX) if busy and not fired else _POLL
                for fd in fired:
                    with suppress(BlockingIOError):
                        os.eventfd_read(fd)
                self._turn(self._interrupt_fd in fired)
        fds, self._wake_fd, self._interrupt_fd = (self._wake_fd, self._interrupt_fd), -1, -1
        for fd in fds:
            os.close(fd)

    def _turn(self, fired: bool) -> None:
        target = self._target
        if target is not None:
            device, session, tree, invalidator, kind = target
            try:
                with atomic():
                    if fired or kind is None:
                        tree.service()
                    session.receive()
                    invalidator.poll()
            except DeviceGone as error:
                self._on_fault(f"device-gone: {error.what}")
            except BaseException as error:  # isolation boundary: worker
                self._on_error("receiver", error)
                self._on_fault(f"receiver-failed: {type(error).__name__}: {error}")
            if device.gone:
                self._on_fault("device-gone: it left its bus")
            elif session.dead is not None:
                self._on_fault(session.dead)
        while self._urgent:
            self._urgent.popleft().run(self._on_error)

    @may_sleep
    def stop(self, timeout: float) -> bool:
        """End the thread, which closes both descriptors; False when it hangs. Idempotent."""
        self._stopping = True
        self.detach()
        self._thread.join(timeout)
        return not self._thread.is_alive()
