"""Varlink on the wire, for the daemon and for the command line: messages both ways, errors by name, a call. Knows no duty of nvcore's.

Messages are JSON objects that end in a zero byte. Every length is bounded before anything is parsed; what cannot be parsed ends the
connection, as the specification leaves no way to answer it. One `Link` belongs to one thread. Source: varlink.org, "Method call" and
"Service" specifications; unix(7).
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import time
from collections.abc import Iterator
from typing import Any, Final

from nvcore.api import errors

Message = dict[str, Any]  # a request or an answer, as JSON reads it
# Bytes of the longest request that is read.
MAX_REQUEST: Final = 1 << 20

_MAX_ANSWER: Final = 64 << 20  # a dump is passed by path, so one this long is damage

_METHOD: Final = re.compile(r"^method\s+(\w+)", re.MULTILINE)
_NAMED: Final = (errors.NotRunningError, errors.NotFoundError, errors.DeniedError, errors.ConflictError)
_ERRORS: Final[dict[str, type[errors.NvcoreError]]] = {kind.__name__.removesuffix("Error"): kind for kind in _NAMED}
# Our errors by their names on the wire; every other one is Failed.
_ERRORS["Invalid"] = errors.UsageError


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

    def receive(self, timeout: float | None = None) -> Message:
        """The next message. timeout: seconds until all of it is there; None: it may begin at any time, and has `idle` seconds from then on.
        Raises Gone, BadMessage, TimeoutError."""
        end = None if timeout is None else time.monotonic() + timeout
        while b"\0" not in self.pending and len(self.pending) <= self._limit:
            if end is None and self.pending:
                end = time.monotonic() + self._idle
            left = None if end is None else end - time.monotonic()
            try:
                if left is not None and left <= 0:  # also where more comes all the time
                    raise TimeoutError
                self._socket.settimeout(left)
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                if timeout is None:
                    raise BadMessage(f"a message was not completed within {self._idle:g} s") from None
                raise
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

    def send(self, document: Message) -> None:
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
        poll.register(self._socket, select.POLLRDHUP)  # what is worse is told without being asked for
        return bool(poll.poll(0))


def methods_of(text: str) -> list[str]:
    """Names of the methods that an interface description declares, in order."""
    return _METHOD.findall(text)


def error_reply(error: Refusal | errors.NvcoreError) -> tuple[str, Message]:
    """Name and parameters of the varlink error for one of ours."""
    if isinstance(error, Refusal):
        return f"org.varlink.service.{error.args[0]}", error.args[1]
    name = next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), "Failed")
    more = {"field": getattr(error, "field", ""), "reason": error.what} if name == "Invalid" else {}
    return f"io.nvcore.{name}", {**more, **error.as_dict()}


def error_from(name: str, parameters: Message) -> errors.NvcoreError:
    """The way back: the nearest class for a varlink error, with the text and the code of who sent it."""
    more = {key: parameters.get(key) for key in ("expected", "seen", "where", "remedy")}
    kind = _ERRORS.get(name.rpartition(".")[2], errors.NvcoreError)
    error = kind(str(parameters.get("what") or parameters.get("reason") or name), **more)
    error.__dict__["code"] = str(parameters.get("code") or error.code)  # the sender may know it more closely than the class does
    return error


# the side that calls, on its main thread; what it is told when nobody answers, or nothing sensible


def _connect(link: socket.socket, path: str, timeout: float) -> None:
    if len(os.fsencode(path)) > 107:
        what, seen = "the path of the control socket is too long", f"{len(os.fsencode(path))} bytes, more than 107"
        raise errors.UnreachableError(what, where=path, seen=seen, remedy="set NVCORE_SOCKET to a shorter path")
    link.settimeout(timeout)
    try:
        link.connect(path)
    except OSError as error:
        if isinstance(error, PermissionError):
            remedy = "run as root, or join the group nvcore"
            raise errors.DeniedError("the control socket refuses this user", where=path, remedy=remedy) from error
        raise errors.UnreachableError("no daemon answers at the control socket", where=path, seen=error.strerror or error) from error


def stream(path: str, method: str, parameters: Message, *, timeout: float, more: bool = True, to: int | None = None) -> Iterator[Message]:
    """A call with `more`: answers as they come, without limit once connected (`timeout` is for connecting). to: descriptor that they are
    printed to; where that is a pipe, the end of its reader ends the call with BrokenPipeError."""
    poll = select.poll()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        _connect(connection, path, timeout)
        link = Link(connection, idle=timeout, limit=_MAX_ANSWER)
        poll.register(connection, select.POLLIN)
        if to is not None:
            poll.register(to, 0)  # errors are told without being asked for
        try:
            link.send({"method": method, "parameters": parameters, **({"more": True} if more else {})})
            while True:
                if more and not link.pending and any(descriptor == to for descriptor, _ in poll.poll()):
                    raise BrokenPipeError
                answer = link.receive(None if more else timeout)
                if answer.get("error"):
                    raise error_from(str(answer["error"]), answer.get("parameters") or {})
                yield answer.get("parameters") or {}
                if not answer.get("continues"):
                    return
        except TimeoutError as error:
            remedy = "give it more with --timeout, or look at nvcore doctor"
            raise errors.WaitTimeout(f"no answer to {method}", expected=f"within {timeout:g} s", where=path, remedy=remedy) from error
        except (Gone, BadMessage) as error:
            what, remedy = f"the daemon ended the connection during {method}", "look at its log: journalctl -u nvcore"
            if isinstance(error, BadMessage):
                what = "what answers at the control socket does not speak varlink"
                remedy = "look at who listens there, or set NVCORE_SOCKET"
            raise errors.UnreachableError(what, where=path, seen=error, remedy=remedy) from error


def call(path: str, method: str, parameters: Message, *, timeout: float) -> Message:
    """One call; its answer. timeout: seconds. Raises UnreachableError, DeniedError, WaitTimeout, or what the daemon reports."""
    return next(stream(path, method, parameters, timeout=timeout, more=False))
