"""Control interfaces: varlink interfaces that plugins serve through the host's control socket.

A handler is an object with one method per varlink method (`List`, `Create`, …): `def Create(self, call: Call) -> dict`. A method called
with `more` may return an iterator of dicts. Errors are `nvcore.api.errors`; the host maps them to varlink errors. A handler reads its
parameters with `Call.text` and its like, which refuse what is missing or of another type, or checks them itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from nvcore.api.errors import UsageError
from nvcore.api.marks import may_sleep

__all__ = ["BadParameter", "Call", "Caller", "HostView"]


class BadParameter(UsageError):
    """A parameter of a control call that is missing or of another type. field: its name."""

    def __init__(self, call: Call, field: str, expected: str) -> None:
        super().__init__(f"{call.method}: bad {field}", expected=expected, seen=ascii(call.parameters.get(field)))
        self.field = field


@attrs.frozen
class Caller:
    """Who calls, by the socket's credentials. controller: allowed to change things."""

    uid: int
    gid: int
    pid: int
    controller: bool


@attrs.frozen
class Call:
    """One control call. parameters: checked by the handler."""

    method: str
    parameters: Mapping[str, Any]
    caller: Caller
    more: bool

    def text(self, key: str) -> str:
        """A parameter that must be there: text that is not empty. Raises BadParameter, as all of these do."""
        value = self.parameters.get(key)
        if not isinstance(value, str) or not value:
            raise BadParameter(self, key, "text that is not empty")
        return value

    def optional(self, key: str) -> str | None:
        """Text, or None where it is left out."""
        return None if self.parameters.get(key) is None else self.text(key)

    def flag(self, key: str, default: bool) -> bool:
        """True or false, `default` where it is left out."""
        value = self.parameters.get(key)
        if value is not None and not isinstance(value, bool):
            raise BadParameter(self, key, "true or false")
        return default if value is None else value

    def number(self, key: str) -> int | None:
        """A whole number from 0 up, None where it is left out."""
        value = self.parameters.get(key)
        if value is not None and (type(value) is not int or value < 0):
            raise BadParameter(self, key, "a whole number")
        return value


@may_sleep
class HostView(Protocol):
    """What a plugin may ask the running host: the same answers that the control socket gives, as plain JSON-able objects."""

    def describe(self) -> dict[str, Any]:
        """`io.nvcore.Host.Describe`."""

    def gpus(self) -> list[dict[str, Any]]:
        """`io.nvcore.Gpu.List`."""

    def plugins(self) -> list[dict[str, Any]]:
        """`io.nvcore.Plugin.List`."""

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """The event ring behind sequence number `after`."""
