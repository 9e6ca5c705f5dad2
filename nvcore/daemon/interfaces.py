"""The core's control interfaces: `io.nvcore.Host`, `Gpu`, `Plugin` and `Event`, and those that plugins offer.

Parameters are checked here; the work is the daemon's. Runs on the control socket's threads. Descriptions are the files of `varlinks/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nvcore.api.control import Call
from nvcore.api.errors import UsageError
from nvcore.daemon.server import Interface

if TYPE_CHECKING:
    from nvcore.api.offers import InterfaceOffer
    from nvcore.daemon.daemon import Daemon
    from nvcore.plugins.host import PluginHost

__all__ = ["core_interfaces", "plugin_interfaces", "text_of"]

_POLL: Final = 1.0  # seconds between two looks at whether a watcher is still there


def text_of(name: str) -> str:
    """The description of one of the core's interfaces."""
    return (Path(__file__).parent / "varlinks" / f"{name}.varlink").read_text("utf-8")


def core_interfaces(daemon: Daemon) -> list[Interface]:
    """The core's interfaces, served by this daemon."""
    table: tuple[tuple[str, set[str], set[str], object], ...] = (
        ("io.nvcore", set(), set(), object()),
        ("io.nvcore.Host", {"Describe", "Doctor"}, {"Dump", "Stop"}, _Host(daemon)),
        ("io.nvcore.Gpu", {"List", "Describe"}, {"Retry", "Reset"}, _Gpu(daemon)),
        ("io.nvcore.Plugin", {"List"}, {"Stop"}, _Plugin(daemon)),
        ("io.nvcore.Event", {"Watch"}, set(), _Event(daemon)),
    )
    return [Interface(name, text_of(name), frozenset(observe), frozenset(control), handler) for name, observe, control, handler in table]


def plugin_interfaces(plugins: PluginHost) -> Iterator[tuple[InterfaceOffer, Interface | None]]:
    """Interfaces that plugins offer; None for one that does not fit its description (the offer's plugin is in error, not the daemon)."""
    for offer in plugins.collect("nvcore_control_interfaces"):
        try:
            yield offer, Interface(offer.name, offer.text, offer.observe, offer.control, offer.handler)
        except UsageError:
            yield offer, None


class _Host:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def Describe(self, call: Call) -> dict[str, Any]:
        """The whole host."""
        return self._daemon.describe()

    def Doctor(self, call: Call) -> dict[str, Any]:
        """Every check."""
        findings = self._daemon.find_problems()
        return {"healthy": not any(finding["severity"] == "error" for finding in findings), "findings": findings}

    def Dump(self, call: Call) -> dict[str, Any]:
        """A post-mortem bundle."""
        from nvcore.daemon.bundle import write

        return {"folder": write(self._daemon, _optional(call, "folder"))}

    def Stop(self, call: Call) -> dict[str, Any]:
        """Stop the daemon."""
        self._daemon.stop_requested.set()
        return {}


class _Gpu:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def List(self, call: Call) -> dict[str, Any]:
        """One row a GPU."""
        return {"gpus": self._daemon.gpus()}

    def Describe(self, call: Call) -> dict[str, Any]:
        """Everything about one."""
        from nvcore.hostlib.describe import describe_gpu

        return {"gpu": describe_gpu(self._daemon.host.gpu(_text(call, "gpu")))}

    def Retry(self, call: Call) -> dict[str, Any]:
        """Bring one up again."""
        from nvcore.hostlib.describe import summarise_gpu

        return {"gpu": summarise_gpu(self._daemon.host.retry(_text(call, "gpu")))}

    def Reset(self, call: Call) -> dict[str, Any]:
        """Start one's firmware anew."""
        from nvcore.hostlib.describe import summarise_gpu

        return {"gpu": summarise_gpu(self._daemon.host.reset(_text(call, "gpu")))}


class _Plugin:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def List(self, call: Call) -> dict[str, Any]:
        """Every plugin."""
        return {"plugins": self._daemon.plugins()}

    def Stop(self, call: Call) -> dict[str, Any]:
        """Stop one."""
        return {"plugin": self._daemon.stop_plugin(_text(call, "name"))}


class _Event:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def Watch(self, call: Call) -> Iterator[dict[str, Any]]:
        """The ring, then what follows. An empty answer between events asks whether the client is still there."""
        from nvcore.hostlib.describe import describe_event

        after, kinds, gpu = call.parameters.get("after"), call.parameters.get("kinds"), _optional(call, "gpu")
        if after is not None and (not isinstance(after, int) or isinstance(after, bool) or after < 0):
            raise UsageError("bad after", expected="a sequence number", seen=ascii(after))
        if kinds is not None and not (isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds)):
            raise UsageError("bad kinds", expected="a list of names", seen=ascii(kinds))
        return self._watch(describe_event, after or 0, set(kinds) if kinds else None, gpu)

    def _watch(self, describe: Any, after: int, kinds: set[str] | None, gpu: str | None) -> Iterator[dict[str, Any]]:
        log = self._daemon.host.events
        subscription = log.subscribe()
        try:
            events = log.since(after)
            while True:
                rows = [describe(event) for event in events if (not kinds or event.kind in kinds) and gpu in (None, event.gpu)]
                newest = events[-1].sequence if events else after
                yield {"events": rows}
                after = max(after, newest)
                events = [event for event in subscription.wait(_POLL) if event.sequence > after or event.kind == "lost-events"]
                if not events and (self._daemon.state == "stopping" or subscription.closed):
                    return
        finally:
            subscription.close()


def _text(call: Call, key: str) -> str:
    value = call.parameters.get(key)
    if not isinstance(value, str) or not value:
        raise UsageError(f"{call.method} needs {key}", expected="text", seen=ascii(value))
    return value


def _optional(call: Call, key: str) -> str | None:
    return None if call.parameters.get(key) is None else _text(call, key)
