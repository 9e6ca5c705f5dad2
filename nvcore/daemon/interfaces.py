"""The core's control interfaces: `io.nvcore.Host`, `Gpu`, `Plugin` and `Event`.

Parameters are read here; the work is the daemon's. Runs on the control socket's threads. Descriptions are the files of `varlinks/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from nvcore.api.control import BadParameter, Call
from nvcore.api.offers import InterfaceOffer
from nvcore.daemon.answers import write_bundle
from nvcore.daemon.server import text_of
from nvcore.hostlib.describe import describe_event, describe_gpu

if TYPE_CHECKING:
    from nvcore.daemon.daemon import Daemon

__all__ = ["core_interfaces"]

_POLL: Final = 1.0  # seconds between two looks at whether a watcher is still there
_CONTROL: Final = frozenset({"Dump", "Stop", "Retry", "Reset"})  # methods that change something; the others observe


def core_interfaces(daemon: Daemon) -> list[InterfaceOffer]:
    """The core's interfaces, served by this daemon, offered as a plugin would."""

    def gpu(call: Call) -> str:
        return call.text("gpu")

    methods: dict[str, dict[str, Callable[[Call], Any]]] = {
        "io.nvcore": {},
        "io.nvcore.Host": {
            "Describe": lambda call: daemon.describe(),
            "Doctor": lambda call: daemon.doctor(),
            "Dump": lambda call: {"folder": write_bundle(daemon, call.optional("folder"))},
            "Stop": lambda call: _stop(daemon),
        },
        "io.nvcore.Gpu": {
            "List": lambda call: {"gpus": daemon.gpus()},
            "Describe": lambda call: {"gpu": describe_gpu(daemon.host.gpu(gpu(call)))},
            "Retry": lambda call: {"gpu": describe_gpu(daemon.host.retry(gpu(call)))},
            "Reset": lambda call: {"gpu": describe_gpu(daemon.host.reset(gpu(call)))},
        },
        "io.nvcore.Plugin": {
            "List": lambda call: {"plugins": daemon.plugins()},
            "Stop": lambda call: {"plugin": daemon.stop_plugin(call.text("name"))},
        },
        "io.nvcore.Event": {"Watch": lambda call: _watch(daemon, call)},
    }
    return [
        InterfaceOffer(name, "", text_of(name), frozenset(of) - _CONTROL, frozenset(of) & _CONTROL, SimpleNamespace(**of), plugin="nvcore")
        for name, of in methods.items()
    ]


def _stop(daemon: Daemon) -> Iterator[dict[str, Any]]:
    try:
        yield {}
    finally:  # where the server is done with the answer: the end of the daemon would cut it off
        daemon.request_stop()


def _watch(daemon: Daemon, call: Call) -> Iterator[dict[str, Any]]:
    kinds = call.parameters.get("kinds") or []
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise BadParameter(call, "kinds", "a list of names")
    return _events(daemon, call.number("after") or 0, set(kinds), call.optional("gpu"))


def _events(daemon: Daemon, after: int, kinds: set[str], gpu: str | None) -> Iterator[dict[str, Any]]:
    """The ring, then what follows. An empty answer behind each and once a second asks whether the client is still there."""
    subscription = daemon.host.events.subscribe()
    try:
        events, first = daemon.host.events.since(after), True
        while first or events or not (daemon.state == "stopping" or subscription.closed):
            rows = [describe_event(event) for event in events if (not kinds or event.kind in kinds) and gpu in (None, event.gpu)]
            if rows or first:
                yield {"events": rows}
            yield {}
            after, first = max([after, *(event.sequence for event in events)]), False
            events = [event for event in subscription.wait(_POLL) if event.sequence > after or event.kind == "lost-events"]
        yield {"events": []}
    finally:
        subscription.close()
