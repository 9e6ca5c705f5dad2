"""Control interfaces: varlink interfaces that plugins serve through the host's control socket.

A handler is an object with one method per varlink method (`List`, `Create`, …): `def Create(self, call: Call) -> dict`. A method called
with `more` may return an iterator of dicts. Errors are `nvcore.api.errors`; the host maps them to varlink errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs

__all__ = ["Call", "Caller", "HostView"]


@attrs.frozen
class Caller:
    """Who calls, by the socket's credentials. controller: allowed to change things."""

    uid: int
    gid: int
    pid: int
    controller: bool


@attrs.frozen
class Call:
    """One control call. parameters: checked by the handler; timeout: seconds the caller waits, None = the method's default."""

    method: str
    parameters: Mapping[str, Any]
    caller: Caller
    more: bool
    timeout: float | None = None


class HostView(Protocol):
    """What a plugin may ask the running host: the same answers that the control socket gives, as plain JSON-able objects."""

    def describe(self) -> dict[str, Any]:
        """`io.nvcore.Host.Describe`."""
        ...

    def gpus(self) -> list[dict[str, Any]]:
        """`io.nvcore.Gpu.List`."""
        ...

    def plugins(self) -> list[dict[str, Any]]:
        """`io.nvcore.Plugin.List`."""
        ...

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """The event ring behind sequence number `after`."""
        ...
