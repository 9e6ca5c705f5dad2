"""The service manager's protocol: one datagram a message to $NOTIFY_SOCKET. Does nothing where no manager listens.

Source: sd_notify(3), systemd.service(5).
"""

from __future__ import annotations

import os
import socket

__all__ = ["Notifier"]


class Notifier:
    """Tells the service manager how the daemon is. Any thread."""

    def __init__(self, address: str | None = None) -> None:
        given = os.environ.get("NOTIFY_SOCKET") if address is None else address
        self._address = "\0" + given[1:] if given and given[0] == "@" else given

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
            try:
                link.sendto("\n".join(lines).encode(), self._address)
            except OSError:  # a manager that went away must not stop the daemon
                return

    def ready(self, status: str) -> None:
        """The socket listens and what is required is up. Sent last."""
        self._send("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def stopping(self) -> None:
        """The stop began; starts the manager's stop clock."""
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask for more time to start or stop."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")
