"""The client side of the control socket: one varlink call, with a time limit. Main thread; standard library; imported when a call is made.

Owns what a caller is told when nobody answers, or nothing sensible. Source: unix(7); the daemon's interface files.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from typing import Any

from nvcore.api import errors
from nvcore.daemon.varlink import BadMessage, Gone, Link, error_from

_LIMIT = 64 << 20  # a dump is passed by path, so an answer this long is damage


def _unreachable(what: str, path: str, seen: object, remedy: str | None = None) -> errors.UnreachableError:
    return errors.UnreachableError(what, where=path, seen=seen, remedy=remedy)


def _connect(path: str, timeout: float) -> socket.socket:
    if len(path.encode()) > 107:
        seen = f"{len(path.encode())} bytes, more than 107"
        raise _unreachable("the path of the control socket is too long", path, seen, "set NVCORE_SOCKET to a shorter path")
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    link.settimeout(timeout)
    try:
        link.connect(path)
    except OSError as error:
        link.close()
        if isinstance(error, PermissionError):
            remedy = "run as root, or join the group nvcore"
            raise errors.DeniedError("the control socket refuses this user", where=path, remedy=remedy) from error
        remedy = "start it: nvcore run (or systemctl start nvcore)"
        raise _unreachable("no daemon answers at the control socket", path, error.strerror or error, remedy) from error
    return link


def stream(
    path: str, method: str, parameters: dict[str, Any], *, timeout: float, more: bool = True, output: int | None = None
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A call with `more`: answers as they come, without limit once connected (`timeout` is for connecting). output: descriptor that they
    are printed to; where that is a pipe, the end of its reader ends the call with BrokenPipeError."""
    deadline, poll = None if more else time.monotonic() + timeout, select.poll()
    with _connect(path, timeout) as connection:
        link = Link(connection, idle=timeout, limit=_LIMIT)
        poll.register(connection, select.POLLIN)
        if output is not None:
            poll.register(output, 0)  # errors are told without being asked for
        try:
            link.send({"method": method, "parameters": parameters, **({"more": True} if more else {})})
            while True:
                if more and not link.pending and any(descriptor == output for descriptor, _ in poll.poll()):
                    raise BrokenPipeError
                answer = link.receive(deadline)
                if answer.get("error"):
                    raise error_from(str(answer["error"]), answer.get("parameters") or {})
                yield answer.get("parameters") or {}
                if not answer.get("continues"):
                    return
        except TimeoutError as error:
            remedy = "give it more with --timeout, or look at nvcore doctor"
            raise errors.WaitTimeout(f"no answer to {method}", expected=f"within {timeout:g} s", where=path, remedy=remedy) from error
        except Gone as error:
            remedy = "look at its log: journalctl -u nvcore"
            raise _unreachable(f"the daemon ended the connection during {method}", path, error, remedy) from error
        except BadMessage as error:
            raise _unreachable("what answers at the control socket does not speak varlink", path, error) from error


def call(path: str, method: str, parameters: dict[str, Any], *, timeout: float) -> dict[str, Any]:
    """One call; its answer. timeout: seconds. Raises UnreachableError, DeniedError, WaitTimeout, or what the daemon reports."""
    return next(stream(path, method, parameters, timeout=timeout, more=False))
