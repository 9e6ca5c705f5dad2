"""Every method of a contract says what it may do; what bears no mark is on a list, with the reason; the authors' page says the same."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import nvcore.api
from nvcore.api.client import Client, ClientContext, ClientDriver
from nvcore.api.control import HostView
from nvcore.api.firmware import FirmwareBackend, FirmwareSession
from nvcore.api.marks import mark_of
from nvcore.gpu.clients import Context
from nvcore.gpu.grants import GpuGrant

UNMARKED = {
    "hooks.": "wiring, on the main thread, before anything runs",
    "clock.Clock.": "a bounded wait is legal in a signalling section and not on a receiver thread, which no mark says",
    "command.Command": "a command has a process of its own, and no host in it",
}
"""Beginnings of the names of methods without a mark."""

UNMARKED_PROPERTIES = {
    "client.ClientContext.generation", "command.CommandIO.columns", "command.CommandIO.plain", "device.Device.gone",
    "device.DmaBuffer.contiguous", "families.Tenant.open", "firmware.FirmwareSession.dead", "firmware.FirmwareSession.families",
    "firmware.FirmwareSession.waiting", "grant.Channel.alive", "grant.Grant.channels", "grant.Grant.functions", "grant.Grant.shares",
    "grant.Grant.state", "grant.Grant.vram", "grant.InvalidateTicket.done", "grant.InvalidateTicket.error", "grant.Lease.valid",
}  # fmt: skip
"""Properties that are read at once, under leaf locks at most."""

PAGE = Path(__file__).resolve().parents[2] / "docs/plugin-authors.md"


def contracts() -> Iterator[tuple[str, type]]:
    """Every Protocol of nvcore.api, by its name in there; those of `command` are Protocols to type checkers only."""
    for module in pkgutil.walk_packages(nvcore.api.__path__, "nvcore.api."):
        for found in vars(importlib.import_module(module.name)).values():
            if isinstance(found, type) and found.__module__ == module.name and (Protocol in found.__mro__ or "command" in module.name):
                yield f"{module.name.removeprefix('nvcore.api.')}.{found.__name__}", found


def members(kind: type) -> Iterator[tuple[str, object]]:
    """Methods and properties that others call; of a contract that is nothing but a call, that."""
    for contract, cls in contracts():
        for name, member in vars(cls).items():
            called = isinstance(member, property) if kind is property else callable(member)
            if called and (name[0] != "_" or (name == "__call__" and contract == "command.Command")):
                yield f"{contract}.{name}", member


def test_every_method_is_marked_or_on_the_list() -> None:
    found = dict(members(object))
    unmarked = {name for name, method in found.items() if mark_of(method) is None}
    assert len(found) > 100
    assert not {name for name in unmarked if not name.startswith(tuple(UNMARKED))}
    assert not [start for start in UNMARKED if not any(name.startswith(start) for name in unmarked)], "nothing is unmarked there any more"


def test_every_property_is_read_at_once_or_marked() -> None:
    found = {name: mark_of(member.fget) for name, member in members(property) if isinstance(member, property)}
    assert {name for name, mark in found.items() if mark is None} == UNMARKED_PROPERTIES
    assert {name: mark for name, mark in found.items() if mark is not None} == {"grant.Grant.tenant": "may_sleep"}
    assert mark_of(GpuGrant.tenant.fget) == "may_sleep"  # type: ignore[attr-defined]


def test_what_a_client_is_given_bears_the_marks_of_its_contract() -> None:
    marks = {name: mark_of(method) for name, method in vars(ClientContext).items() if mark_of(method) is not None}
    assert len(marks) == 7
    assert {name: mark_of(getattr(Context, name)) for name in marks} == marks


def test_a_host_may_be_asked_where_one_may_sleep() -> None:
    assert {mark_of(getattr(HostView, name)) for name in ("describe", "gpus", "plugins", "events")} == {"may_sleep"}


def test_the_authors_page_says_the_marks() -> None:
    rows = re.findall(r"^\| `(driver|client|backend|session)\.(\w+)\(.*\| (?:`(\w+)`|[^`|]+) \|[^|]*\|$", PAGE.read_text(), re.MULTILINE)
    of = {"driver": ClientDriver, "client": Client, "backend": FirmwareBackend, "session": FirmwareSession}
    said = {(who, name): mark or None for who, name, mark in rows}
    assert said == {
        (who, name): mark_of(method) for who, cls in of.items() for name, method in vars(cls).items() if callable(method) and name[0] != "_"
    }
