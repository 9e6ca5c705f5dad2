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
_CLASSES: dict[str, type[errors.NvcoreError]] = {
    "NotFound": errors.NotFoundError,
    "NotRunning": errors.NotRunningError,
    "Denied": errors.DeniedError,
    "Conflict": errors.ConflictError,
    "Invalid": errors.UsageError,
}


def _connect(path: str, timeout: float) -> socket.socket:
    if len(path.encode()) > 107:
        raise errors.UnreachableError(
            "the path of the control socket is too long",
            expected="at most 107 bytes",
            seen=len(path.encode()),
            where=path,
            remedy="set NVCORE_SOCKET to a shorter path",
        )
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    link.settimeout(timeout)
    try:
        link.connect(path)
    except PermissionError as error:
        link.close()
        raise errors.DeniedError(
            "the control socket refuses this user", where=path, remedy="run as root, or join the group nvcore"
        ) from error
    except OSError as error:
        link.close()
        raise errors.UnreachableError(
            "no daemon answers at the control socket",
            where=path,
            seen=error.strerror or str(error),
            remedy="start it: nvcore run (or systemctl start nvcore)",
        ) from error
    return link


def _error(name: str, parameters: dict[str, Any]) -> errors.NvcoreError:
    """The nearest class for a varlink error; its text is the daemon's."""
    kind = name.rpartition(".")[2]
    more = {key: parameters.get(key) for key in ("expected", "seen", "where", "remedy")}
    what = str(parameters.get("what") or parameters.get("reason") or name)
    if kind == "Invalid" and parameters.get("field"):
        what = f"{parameters['field']}: {what}"
    error = _CLASSES.get(kind, errors.NvcoreError)(what, **more)
    error.__dict__["code"] = str(parameters.get("code") or error.code)  # the daemon may know it more closely than the class does
    return error


def _answers(path: str, method: str, parameters: dict[str, Any], timeout: float, more: bool) -> Iterator[dict[str, Any]]:
    request: dict[str, Any] = {"method": method, "parameters": parameters}
    if more:
        request["more"] = True
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
                        raise errors.UnreachableError(
                            f"the daemon ended the connection during {method}", where=path, remedy="look at its log: journalctl -u nvcore"
                        )
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
                f"no answer to {method}",
                expected=f"within {timeout:g} s",
                where=path,
                remedy="give it more with --timeout, or look at nvcore doctor",
            ) from error
        except OSError as error:
            raise errors.UnreachableError(
                f"the connection broke during {method}", where=path, seen=error.strerror or str(error), remedy="look at the daemon's log"
            ) from error


def _decode(message: bytes, path: str) -> dict[str, Any]:
    try:
        answer = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise errors.UnreachableError("what answers at the control socket does not speak varlink", where=path, seen=message[:80]) from error
    if not isinstance(answer, dict):
        raise errors.UnreachableError("what answers at the control socket does not speak varlink", where=path, seen=message[:80])
    return answer


def call(path: str, method: str, parameters: dict[str, Any], *, timeout: float) -> dict[str, Any]:
    """One call; its answer. timeout: seconds. Raises UnreachableError, DeniedError, WaitTimeout, or what the daemon reports."""
    for answer in _answers(path, method, parameters, timeout, more=False):
        return answer
    raise errors.UnreachableError(f"no answer to {method}", where=path)


def stream(path: str, method: str, parameters: dict[str, Any], *, timeout: float) -> Iterator[dict[str, Any]]:
    """A call with `more`: answers as they come, without limit once connected (`timeout` is for connecting)."""
    return _answers(path, method, parameters, timeout, more=True)
