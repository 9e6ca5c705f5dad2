"""Varlink as a server speaks it: messages in, answers out, errors by name. Knows framing, nothing of nvcore's duties.

Messages are JSON objects that end in a zero byte. Every length is bounded before anything is parsed; what cannot be parsed ends the
connection, as the specification leaves no way to answer it. One `Link` belongs to one thread. Source: varlink.org, "Method call" and
"Service" specifications.
"""

from __future__ import annotations

import json
import re
import select
import socket
from typing import Any, Final

from nvcore.api.errors import ConflictError, DeniedError, NotFoundError, NotRunningError, NvcoreError, UsageError

__all__ = ["MAX_REQUEST", "BadMessage", "Gone", "Link", "Refusal", "Request", "error_reply", "methods_of"]

MAX_REQUEST: Final = 1 << 20
_GONE: Final = select.POLLHUP | select.POLLRDHUP | select.POLLERR | select.POLLNVAL
_METHOD: Final = re.compile(r"^method\s+(\w+)", re.MULTILINE)
_NAMES: Final = ((NotRunningError, "NotRunning"), (NotFoundError, "NotFound"), (DeniedError, "Denied"), (ConflictError, "Conflict"))


class BadMessage(Exception):
    """What came is not a varlink call: the connection ends."""


class Gone(Exception):
    """The client left, or does not read: the connection ends."""


class Refusal(Exception):
    """An error of `org.varlink.service`: its name there, and its parameters."""


class Request:
    """One call. oneway: no answer is wanted; more: several answers may come."""

    __slots__ = ("method", "more", "oneway", "parameters")

    def __init__(self, method: str, parameters: dict[str, Any], more: bool, oneway: bool) -> None:
        self.method, self.parameters, self.more, self.oneway = method, parameters, more, oneway

    @classmethod
    def parse(cls, data: bytes) -> Request:
        """A call from its JSON. Raises BadMessage."""
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            raise BadMessage("no JSON") from None
        if not isinstance(document, dict):
            raise BadMessage("no object")
        method, parameters = document.get("method"), document.get("parameters")
        if not isinstance(method, str) or "." not in method:
            raise BadMessage("no method")
        if not isinstance(parameters, dict | None):
            raise BadMessage("parameters are no object")
        return cls(method, parameters or {}, document.get("more") is True, document.get("oneway") is True)


class Link:
    """A connection: requests cut out of the stream, answers written whole. idle: seconds a client may take to complete a request it
    began, or to read an answer."""

    def __init__(self, connection: socket.socket, *, idle: float = 10.0) -> None:
        self._socket, self._idle = connection, idle
        self._pending = b""

    def receive(self) -> Request | None:
        """The next request; None when the client left. Raises BadMessage."""
        while b"\0" not in self._pending and len(self._pending) <= MAX_REQUEST:
            self._socket.settimeout(self._idle if self._pending else None)
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                raise BadMessage(f"a request was not completed within {self._idle:g} s") from None
            except OSError:
                return None
            if not data:
                return None
            self._pending += data
        message, _, self._pending = self._pending.partition(b"\0")
        if len(message) > MAX_REQUEST:
            raise BadMessage(f"a request of more than {MAX_REQUEST} bytes")
        return Request.parse(message)

    def answer(self, parameters: dict[str, Any], *, continues: bool = False, error: str | None = None) -> None:
        """Write an answer, or the error of that name. Raises Gone."""
        document: dict[str, Any] = {"error": error, "parameters": parameters} if error else {"parameters": parameters}
        data = json.dumps({**document, "continues": True} if continues else document).encode() + b"\0"
        try:
            self._socket.settimeout(self._idle)
            self._socket.sendall(data)
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


def error_reply(error: NvcoreError) -> tuple[str, dict[str, Any]]:
    """Name and parameters of the varlink error for one of ours."""
    details = error.as_dict()
    if isinstance(error, UsageError):
        return "io.nvcore.Invalid", {"field": getattr(error, "field", ""), "reason": error.what, **details}
    return "io.nvcore." + next((name for kind, name in _NAMES if isinstance(error, kind)), "Failed"), details
