"""The control socket: who may connect, who may change things, and which handler serves a call.

Owns the listening socket, one thread a connection, and the table of interfaces. A call is an isolation boundary: a handler that fails
costs its call, never the daemon. Observing is for whoever may connect; controlling for root, the daemon's own user and the configured
group.
Source: varlink.org; unix(7), SO_PEERCRED.
"""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import pwd
import socket
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

from nvcore.api.control import Call, Caller
from nvcore.api.errors import ConflictError, DeniedError, NotRunningError, NvcoreError, UsageError
from nvcore.api.offers import InterfaceOffer
from nvcore.daemon.varlink import BadMessage, Gone, Link, Refusal, error_reply, methods_of
from nvcore.locks import start_thread
from nvcore.vfio_user.listening import listen

MAX_CONNECTIONS: Final = 64  # at a time
MAX_OTHERS: Final = 48  # for callers who may only observe: they cannot shut out who may control
_PAUSE: Final = 0.5  # seconds until a connection is tried again that could not be taken
_log = logging.getLogger("nvcore.control")


def text_of(name: str) -> str:
    """The description of one of the interfaces that the core serves."""
    return (Path(__file__).parent / "varlinks" / f"{name}.varlink").read_text("utf-8")


class ControlServer:
    """Serves interfaces at a socket. `start` returns when clients can connect; `stop` ends every connection. stopped: interfaces that
    answer no more, because their plugin was stopped."""

    def __init__(self, path: str, *, group: str = "nvcore", version: str = "") -> None:
        self.path, self._group, self._version = path, group, version
        self._interfaces: dict[str, InterfaceOffer] = {}
        self._connections: set[socket.socket] = set()  # added to, taken from and copied in one step each: needs no lock
        self._listener: socket.socket | None = None
        self._stopping = False
        self.stopped: set[str] = set()
        service, methods = "org.varlink.service", frozenset({"GetInfo", "GetInterfaceDescription"})
        self.add(InterfaceOffer(service, "", text_of(service), methods, frozenset(), self))

    def add(self, offer: InterfaceOffer) -> None:
        """Serve one more interface. Raises ConflictError for a name that is taken, UsageError where description, methods and handler do
        not agree."""
        if offer.name in self._interfaces:
            raise ConflictError(f"interface {offer.name} is served already", remedy="give the other one a name of its own")
        declared, listed = sorted(methods_of(offer.text)), sorted([*offer.observe, *offer.control])
        if declared != listed:
            raise UsageError(f"interface {offer.name}: methods and description differ", expected=declared, seen=listed)
        if missing := [method for method in declared if not callable(getattr(offer.handler, method, None))]:
            raise UsageError(f"interface {offer.name}: the handler lacks methods", expected=declared, seen=f"without {missing}")
        self._interfaces[offer.name] = offer

    def start(self) -> None:
        """Listen. Raises UsageError where no socket can be made, ConflictError where another process serves one or something lies."""
        old = os.umask(0o022)  # whoever may look may come as far as the socket; nobody else may put another one there
        with contextlib.suppress(OSError):  # what then is not there, listening tells
            os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        os.umask(old)
        self._listener = listen(self.path, mode=0o660, backlog=128)
        with contextlib.suppress(KeyError, PermissionError):  # no such group here, or no right to give it: then it is the user's alone
            os.chown(self.path, -1, grp.getgrnam(self._group).gr_gid)
        start_thread("control", partial(self._accept, self._listener))

    def stop(self) -> None:
        """Take the socket away and end all connections. Idempotent."""
        self._stopping = True
        if self._listener is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.path)  # first: a name that nobody serves may be the next daemon's at any moment
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping:
            try:
                connection, _ = listener.accept()
            except OSError as error:  # `stop`; or no descriptor is free: who comes waits
                if not self._stopping:
                    _log.warning("nobody can connect now: %s", error.strerror)
                    time.sleep(_PAUSE)
                continue
            caller = self._caller(connection)
            if len(self._connections) >= (MAX_CONNECTIONS if caller.controller else MAX_OTHERS):
                _log.warning("a connection of uid %d was refused: too many are open", caller.uid)
                connection.close()
            else:
                self._connections.add(connection)
                start_thread("control-client", partial(self._serve, connection, caller))

    def _serve(self, connection: socket.socket, caller: Caller) -> None:
        link = Link(connection)
        try:
            while not self._stopping:
                self._answer(link, link.receive(), caller)
        except (BadMessage, Gone) as end:
            _log.log(logging.WARNING if isinstance(end, BadMessage) else logging.DEBUG, "connection of pid %d ended: %s", caller.pid, end)
        finally:
            self._connections.discard(connection)
            connection.close()

    def _caller(self, connection: socket.socket) -> Caller:
        pid, uid, gid = memoryview(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)).cast("i")  # struct ucred
        controls = uid in (0, os.geteuid())
        with contextlib.suppress(KeyError):  # no such group here, or no such user
            group = grp.getgrnam(self._group)
            controls = controls or gid == group.gr_gid or pwd.getpwuid(uid).pw_name in group.gr_mem
        return Caller(uid, gid, pid, controls)

    def _answer(self, link: Link, request: dict[str, Any], caller: Caller) -> None:
        name, parameters, more = request.get("method"), request.get("parameters"), request.get("more") is True
        if not isinstance(name, str) or "." not in name or not isinstance(parameters, dict | None):
            raise BadMessage(f"no method, or parameters that are no object: {str(request)[:80]!r}")
        link.mute = request.get("oneway") is True
        try:
            return self._reply(link, self._call(name, parameters or {}, caller, more), more and not link.mute)
        except Gone:
            raise
        except (Refusal, NvcoreError) as error:
            answer = error_reply(error)
        except (Exception, SystemExit) as error:  # isolation boundary: control call
            _log.exception("%s failed", name)
            answer = "io.nvcore.Failed", {"code": "NVC-1012", "what": f"{name} failed: {type(error).__name__}: {error}"}
        return link.send({"error": answer[0], "parameters": answer[1]})

    def _call(self, name: str, parameters: dict[str, Any], caller: Caller, more: bool) -> Any:
        """What the handler returns: one answer, or an iterator of them."""
        interface, _, method = name.rpartition(".")
        served = self._interfaces.get(interface)
        if served is None:
            raise Refusal("InterfaceNotFound", {"interface": interface})
        if method not in served.observe | served.control:
            raise Refusal("MethodNotFound", {"method": name})
        if interface in self.stopped:
            raise NotRunningError(f"plugin {served.plugin} was stopped", remedy="restart the daemon to start it again")
        if method in served.control:
            _log.info("%s by uid %d pid %d%s", name, caller.uid, caller.pid, "" if caller.controller else ": denied")
            if not caller.controller:
                expected, remedy = f"root, the daemon's user, or the group {self._group}", f"add the user to the group {self._group}"
                raise DeniedError(f"{name} changes things", expected=expected, seen=f"uid {caller.uid}", remedy=remedy)
        return getattr(served.handler, method)(Call(method, parameters, caller, more))

    @staticmethod
    def _reply(link: Link, answer: dict[str, Any] | Iterable[dict[str, Any]], more: bool) -> None:
        answers: Any = iter([answer] if isinstance(answer, dict) else answer)
        try:
            pending: dict[str, Any] = next(answers, {})
            for following in answers if more else ():
                if pending:  # an empty answer only asks whether the client is still there
                    link.send({"parameters": pending, "continues": True})
                if link.left:
                    return
                pending = following
            link.send({"parameters": pending})
        finally:
            getattr(answers, "close", lambda: None)()

    # org.varlink.service, served by the server itself

    def GetInfo(self, call: Call) -> dict[str, Any]:
        """Who this is, and which interfaces it serves."""
        names = sorted(self._interfaces, key=lambda name: (name[:3] != "org", name))
        return {"vendor": "nvcore", "product": "nvcore", "version": self._version, "url": "", "interfaces": names}

    def GetInterfaceDescription(self, call: Call) -> dict[str, Any]:
        """The text of one of them."""
        name = call.parameters.get("interface")
        if not isinstance(name, str) or name not in self._interfaces:
            raise Refusal("InvalidParameter", {"parameter": "interface"})
        return {"description": self._interfaces[name].text}
