"""Varlink as a server speaks it: messages in, answers out, errors by name. Knows framing and the service interface, nothing of nvcore's
duties.

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

__all__ = ["MAX_REQUEST", "SERVICE_INTERFACE", "BadMessage", "Link", "Request", "error_reply", "interface_of", "methods_of"]

MAX_REQUEST: Final = 1 << 20
SERVICE_INTERFACE: Final = """# The Varlink Service Interface is provided by every varlink service. It
# describes the service and the interfaces it implements.
interface org.varlink.service

# Get a list of all the interfaces a service provides and information
# about the implementation.
method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

# Get the description of an interface that is implemented by this service.
method GetInterfaceDescription(interface: string) -> (description: string)

# The requested interface was not found.
error InterfaceNotFound (interface: string)

# The requested method was not found
error MethodNotFound (method: string)

# The interface defines the requested method, but the service does not
# implement it.
error MethodNotImplemented (method: string)

# One of the passed parameters is invalid.
error InvalidParameter (parameter: string)

# Client is denied access
error PermissionDenied ()

# Method is expected to be called with 'more' set to true, but wasn't
error ExpectedMore ()
"""
_METHOD: Final = re.compile(r"^method\s+(\w+)", re.MULTILINE)
_NAMES: Final = ((NotRunningError, "NotRunning"), (NotFoundError, "NotFound"), (DeniedError, "Denied"), (ConflictError, "Conflict"))


class BadMessage(Exception):
    """What came is not a varlink call: the connection ends."""


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
        if parameters is None:
            parameters = {}
        if not isinstance(parameters, dict):
            raise BadMessage("parameters are no object")
        return cls(method, parameters, document.get("more") is True, document.get("oneway") is True)


class Link:
    """A connection: requests cut out of the stream, answers written whole. idle: seconds a client may take to complete a request it
    began."""

    def __init__(self, connection: socket.socket, *, idle: float = 10.0) -> None:
        self._socket, self._idle = connection, idle
        self._pending = b""

    def receive(self) -> Request | None:
        """The next request; None when the client left. Raises BadMessage."""
        while b"\0" not in self._pending:
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
            if len(self._pending) > MAX_REQUEST and b"\0" not in self._pending:
                raise BadMessage(f"a request of more than {MAX_REQUEST} bytes")
        message, _, self._pending = self._pending.partition(b"\0")
        if len(message) > MAX_REQUEST:
            raise BadMessage(f"a request of more than {MAX_REQUEST} bytes")
        return Request.parse(message)

    def answer(self, parameters: dict[str, Any], *, continues: bool = False) -> None:
        """Write an answer. Raises OSError when the client left or does not read for `idle` seconds."""
        document: dict[str, Any] = {"parameters": parameters}
        if continues:
            document["continues"] = True
        self._send(document)

    def fail(self, name: str, parameters: dict[str, Any]) -> None:
        """Write an error."""
        self._send({"error": name, "parameters": parameters})

    def _send(self, document: dict[str, Any]) -> None:
        self._socket.settimeout(self._idle)
        self._socket.sendall(json.dumps(document, ensure_ascii=True).encode() + b"\0")

    @property
    def left(self) -> bool:
        """Whether the client closed its side (asked between the answers of a stream)."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLHUP | select.POLLRDHUP)
        gone = select.POLLHUP | select.POLLRDHUP | select.POLLERR | select.POLLNVAL
        return any(events & gone for _, events in poll.poll(0))


def interface_of(method: str) -> tuple[str, str]:
    """("io.nvcore.Gpu", "List") of "io.nvcore.Gpu.List"."""
    interface, _, name = method.rpartition(".")
    return interface, name


def methods_of(text: str) -> list[str]:
    """Names of the methods that an interface description declares, in order."""
    return _METHOD.findall(text)


def error_reply(error: NvcoreError) -> tuple[str, dict[str, Any]]:
    """Name and parameters of the varlink error for one of ours."""
    details = error.as_dict()
    if isinstance(error, UsageError):
        return "io.nvcore.Invalid", {"field": "", "reason": error.what, **details}
    for kind, name in _NAMES:
        if isinstance(error, kind):
            return f"io.nvcore.{name}", details
    return "io.nvcore.Failed", details
