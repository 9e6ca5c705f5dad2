"""The client side of the control socket: one varlink call, with a time limit. Main thread; standard library; imported when a call is made.

Owns the framing (JSON objects that end in a zero byte) and the way back from a varlink error to a class of `nvcore.api.errors`.
Source: varlink.org, service specification; the daemon's interface files.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

from nvcore.api import errors

__all__ = ["call", "stream"]

_LIMIT = 64 << 20  # a dump is passed by path, so an answer this long is damage
_LOG = "look at its log: journalctl -u nvcore"
_CLASSES: dict[str, type[errors.NvcoreError]] = {
    "NotFound": errors.NotFoundError,
    "NotRunning": errors.NotRunningError,
    "Denied": errors.DeniedError,
    "Conflict": errors.ConflictError,
    "Invalid": errors.UsageError,
}


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


def _error(name: str, parameters: dict[str, Any]) -> errors.NvcoreError:
    """The nearest class for a varlink error; its text is the daemon's."""
    kind = name.rpartition(".")[2]
    more = {key: parameters.get(key) for key in ("expected", "seen", "where", "remedy")}
    error = _CLASSES.get(kind, errors.NvcoreError)(str(parameters.get("what") or parameters.get("reason") or name), **more)
    error.__dict__["code"] = str(parameters.get("code") or error.code)  # the daemon may know it more closely than the class does
    return error


def _answers(path: str, method: str, parameters: dict[str, Any], timeout: float, more: bool) -> Iterator[dict[str, Any]]:
    request = {"method": method, "parameters": parameters, **({"more": True} if more else {})}
    deadline = time.monotonic() + timeout
    pending = b""
    with _connect(path, timeout) as link:
        try:
            link.sendall(json.dumps(request).encode() + b"\0")
            while True:
                while b"\0" not in pending:
                    link.settimeout(None if more else max(0.001, deadline - time.monotonic()))
                    data = link.recv(1 << 16)
                    if not data or len(pending) > _LIMIT:
                        raise _unreachable(f"the daemon ended the connection during {method}", path, f"{len(pending)} bytes", _LOG)
                    pending += data
                message, _, pending = pending.partition(b"\0")
                answer = _decode(message, path)
                if answer.get("error"):
                    raise _error(str(answer["error"]), answer.get("parameters") or {})
                yield answer.get("parameters") or {}
                if not answer.get("continues"):
                    return
        except TimeoutError as error:
            raise errors.WaitTimeout(
                f"no answer to {method}", expected=f"within {timeout:g} s", where=path,
                remedy="give it more with --timeout, or look at nvcore doctor",
            ) from error  # fmt: skip
        except OSError as error:
            raise _unreachable(f"the connection broke during {method}", path, error.strerror or error, _LOG) from error


def _decode(message: bytes, path: str) -> dict[str, Any]:
    try:
        answer = json.loads(message)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise _unreachable("what answers at the control socket does not speak varlink", path, ascii(message[:80]))
    return answer


def call(path: str, method: str, parameters: dict[str, Any], *, timeout: float) -> dict[str, Any]:
    """One call; its answer. timeout: seconds. Raises UnreachableError, DeniedError, WaitTimeout, or what the daemon reports."""
    return next(_answers(path, method, parameters, timeout, more=False))


def stream(path: str, method: str, parameters: dict[str, Any], *, timeout: float) -> Iterator[dict[str, Any]]:
    """A call with `more`: answers as they come, without limit once connected (`timeout` is for connecting)."""
    return _answers(path, method, parameters, timeout, more=True)
