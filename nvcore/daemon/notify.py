"""The service manager's protocol: one datagram to $NOTIFY_SOCKET. Any thread. Does nothing where no manager listens.

Source: sd_notify(3), systemd.service(5).
"""

from __future__ import annotations

import os
import socket


def notify(*lines: str) -> None:
    """Tell the service manager, as in `notify("READY=1", "STATUS=two GPUs")`, in one message."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
        try:
            link.sendto("\n".join(lines).encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError:  # a manager that went away must not stop the daemon
            return
