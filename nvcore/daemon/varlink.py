"""Varlink on the wire, for the daemon and for the command line: messages both ways, errors by name. Knows nothing of nvcore's duties.

Messages are JSON objects that end in a zero byte. Every length is bounded before anything is parsed; what cannot be parsed ends the
connection, as the specification leaves no way to answer it. One `Link` belongs to one thread. Source: varlink.org, "Method call" and
"Service" specifications.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from typing import Any, Final

from nvcore.api.errors import ConflictError, DeniedError, NotFoundError, NotRunningError, NvcoreError, UsageError

MAX_REQUEST: Final = 1 << 20
"""Bytes of the longest request that is read."""

_GONE: Final = select.POLLHUP | select.POLLRDHUP | select.POLLERR | select.POLLNVAL
_METHOD: Final = re.compile(r"^method\s+(\w+)", re.MULTILINE)
_NAMED: Final = (NotRunningError, NotFoundError, DeniedError, ConflictError)
_ERRORS: Final[dict[str, type[NvcoreError]]] = {"Invalid": UsageError, **{kind.__name__[: -len("Error")]: kind for kind in _NAMED}}
"""Our errors by their names on the wire; every other one is Failed."""


class BadMessage(Exception):
    """What came is not varlink: the connection ends."""


class Gone(Exception):
    """The other side left, or does not read: the connection ends."""


class Refusal(Exception):
    """An error of `org.varlink.service`: its name there, and its parameters."""


class Link:
    """A connection: messages cut out of the stream, and written whole. idle: seconds the other side may take to complete a message that it
    began, or to read one; limit: bytes of the longest message; pending: what came and was not received yet; mute: send nothing."""

    def __init__(self, connection: socket.socket, *, idle: float = 10.0, limit: int = MAX_REQUEST) -> None:
        self._socket, self._idle, self._limit = connection, idle, limit
        self.pending, self.mute = b"", False

    def receive(self, deadline: float | None = None) -> dict[str, Any]:
        """The next message. deadline: on the monotonic clock, None for ever. Raises Gone, BadMessage, TimeoutError at the deadline."""
        while b"\0" not in self.pending and len(self.pending) <= self._limit:
            rest = None if deadline is None else max(0.001, deadline - time.monotonic())
            self._socket.settimeout(rest or (self._idle if self.pending else None))
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                if rest is not None:
                    raise
                raise BadMessage(f"a message was not completed within {self._idle:g} s") from None
            except OSError as problem:
                raise Gone(problem.strerror or str(problem)) from problem
            if not data:
                raise Gone(f"after {len(self.pending)} bytes")
            self.pending += data
        message, _, self.pending = self.pending.partition(b"\0")
        if len(message) > self._limit:
            raise BadMessage(f"a message of more than {self._limit} bytes")
        try:
            document = json.loads(message)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise BadMessage(f"no JSON object: {message[:80]!r}")
        return document

    def send(self, document: dict[str, Any]) -> None:
        """Write a message. Raises Gone."""
        if self.mute:
            return
        try:
            self._socket.settimeout(self._idle)
            self._socket.sendall(json.dumps(document).encode() + b"\0")
        except OSError as problem:
            raise Gone(problem.strerror or str(problem)) from problem

    @property
    def left(self) -> bool:
        """Whether the client closed its side (asked between the answers of a stream)."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLRDHUP)
        return any(events & _GONE for _, events in poll.poll(0))


def methods_of(text: str) -> list[str]:
    """Names of the methods that an interface description declares, in order."""
    return _METHOD.findall(text)


def error_reply(error: Refusal | NvcoreError) -> tuple[str, dict[str, Any]]:
    """Name and parameters of the varlink error for one of ours."""
    if isinstance(error, Refusal):
        return f"org.varlink.service.{error.args[0]}", error.args[1]
    name = next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), "Failed")
    more = {"field": getattr(error, "field", ""), "reason": error.what} if name == "Invalid" else {}
    return f"io.nvcore.{name}", {**more, **error.as_dict()}


def error_from(name: str, parameters: dict[str, Any]) -> NvcoreError:
    """The way back: the nearest class for a varlink error, with the text and the code of who sent it."""
    more = {key: parameters.get(key) for key in ("expected", "seen", "where", "remedy")}
    error = _ERRORS.get(name.rpartition(".")[2], NvcoreError)(str(parameters.get("what") or parameters.get("reason") or name), **more)
    error.__dict__["code"] = str(parameters.get("code") or error.code)  # the sender may know it more closely than the class does
    return error
