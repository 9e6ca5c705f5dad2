"""The core's control interfaces (`io.nvcore.Host`, `Gpu`, `Plugin`, `Event`), and what their answers hold beside the daemon's own.

Parameters are read here; the work is the daemon's. Every call of a plugin's function here is an isolation boundary (hook): what fails is
shown as failed. Runs on the control socket's threads. Descriptions are the files of `varlinks/`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, get_args

from attrs import asdict

from nvcore.api.control import BadParameter, Call
from nvcore.api.errors import UsageError
from nvcore.api.events import EventKind
from nvcore.api.offers import CheckOffer, Finding, InterfaceOffer
from nvcore.daemon.server import text_of
from nvcore.daemon.varlink import methods_of
from nvcore.hostlib.describe import describe_event, describe_gpu
from nvcore.plugins.host import PluginHost
from nvcore.plugins.index import scan

if TYPE_CHECKING:
    from nvcore.daemon.daemon import Daemon


# Named plugin sets (the extras of the distribution nvcore) by the plugins that make them up.
SETS: Final = {"vgpu-host": {"fw_gsp", "vfio"}, "demo": {"fw_gsp", "vfio", "softgpu"}}

_POLL: Final = 1.0  # seconds between two looks at whether a watcher is still there
_CONTROL: Final = frozenset({"Dump", "Stop", "Retry", "Reset"})  # methods that change something; the others observe


def core_interfaces(daemon: Daemon) -> list[InterfaceOffer]:
    """The core's interfaces, served by this daemon, offered as a plugin would."""
    methods: dict[str, Callable[[Call], Any]] = {
        "io.nvcore.Host.Describe": lambda call: daemon.describe(),
        "io.nvcore.Host.Doctor": lambda call: _doctor(daemon),
        "io.nvcore.Host.Dump": lambda call: {"folder": _write_bundle(daemon, call.optional("folder"))},
        "io.nvcore.Host.Stop": lambda call: _stop(daemon),
        "io.nvcore.Gpu.List": lambda call: {"gpus": daemon.gpus()},
        "io.nvcore.Gpu.Describe": lambda call: {"gpu": describe_gpu(daemon.host.gpu(call.text("gpu")))},
        "io.nvcore.Gpu.Retry": lambda call: {"gpu": describe_gpu(daemon.host.retry(call.text("gpu")))},
        "io.nvcore.Gpu.Reset": lambda call: {"gpu": describe_gpu(daemon.host.reset(call.text("gpu")))},
        "io.nvcore.Plugin.List": lambda call: {"plugins": daemon.plugins()},
        "io.nvcore.Plugin.Stop": lambda call: {"plugin": daemon.stop_plugin(call.text("name"))},
        "io.nvcore.Event.Watch": lambda call: _watch(daemon, call),
    }
    offers = []
    for name in ("io.nvcore", "io.nvcore.Host", "io.nvcore.Gpu", "io.nvcore.Plugin", "io.nvcore.Event"):
        text = text_of(name)
        of = {method: methods[f"{name}.{method}"] for method in methods_of(text)}
        observe, control = frozenset(of) - _CONTROL, _CONTROL.intersection(of)
        offers.append(InterfaceOffer(name, "", text, observe, control, SimpleNamespace(**of), plugin="nvcore"))
    return offers


def _stop(daemon: Daemon) -> Iterator[dict[str, Any]]:
    try:
        yield {}
    finally:  # where the server is done with the answer: the end of the daemon would cut it off
        daemon.request_stop()


def _watch(daemon: Daemon, call: Call) -> Iterator[dict[str, Any]]:
    """The ring, then what follows. An empty answer behind each and once a second asks whether the client is still there."""
    kinds, after, name = call.parameters.get("kinds") or [], call.number("after") or 0, call.optional("gpu")
    known = get_args(EventKind)
    if not isinstance(kinds, list) or not all(kind in known for kind in kinds):
        raise BadParameter(call, "kinds", f"a list of these: {', '.join(known)}")
    gpu = name and daemon.host.gpu(name)
    with closing(daemon.host.events.subscribe()) as subscription:
        events, first = daemon.host.events.since(after), True
        while first or events or daemon.state != "stopping":
            names = (gpu.name, gpu.source) if gpu else ()  # asked each time: before it has an address it is told of by its source
            rows = [describe_event(event) for event in events if (not kinds or event.kind in kinds) and (not names or event.gpu in names)]
            if rows or first:
                yield {"events": rows}
            yield {}
            after, first = max([after, *(event.sequence for event in events)]), False
            events = [event for event in subscription.wait(_POLL) if event.sequence > after or event.kind == "lost-events"]
        yield {"events": []}


def _sendable(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a plugin as JSON has them; raises here, where the plugin is known, for what cannot be sent."""
    sent: list[dict[str, Any]] = json.loads(json.dumps(list(rows), allow_nan=False))
    return sent


def panels(plugins: PluginHost) -> list[dict[str, Any]]:
    """Every panel with its rows, in order; `problem` says why one has none."""
    answer = []
    for offer in sorted(plugins.collect("nvcore_status_panels"), key=lambda offer: (offer.order, offer.name)):
        panel: dict[str, Any] = {"name": offer.name, "schema": offer.schema, "title": offer.summary, "order": offer.order, "problem": None}
        panel.update(columns=[], rows=[])
        try:
            columns = [{"key": key, "heading": heading, "side": side} for key, heading, side in offer.columns]
            panel.update(columns=columns, rows=_sendable(map(dict, offer.snapshot())))
        except (Exception, SystemExit) as error:  # isolation boundary: hook
            panel["problem"] = f"{type(error).__name__}: {error}"
        answer.append(panel)
    return answer


@lru_cache(1)
def deny_state(patterns: tuple[str, ...], minute: int) -> list[dict[str, Any]]:
    """For each denied pattern of the configuration, what on the disk matches it: nothing, when all is well. minute: of the answer; one is
    kept for as long, because it reads every installed list of files."""
    from nvcore.plugins.footprint import denied

    index = scan()
    return [{"pattern": pattern, "matches": sorted({hit["of"] for hit in denied(index, [pattern])})} for pattern in patterns]


def _doctor(daemon: Daemon) -> dict[str, Any]:
    """What every check finds, the core's first."""
    core = CheckOffer("gpus", "", daemon.host.doctor, plugin="nvcore"), CheckOffer("plugins", "", partial(_broken, daemon), plugin="nvcore")
    found: list[dict[str, Any]] = []
    for offer in (*core, *daemon.plugin_host.collect("nvcore_doctor_checks")):
        try:
            rows = _sendable(map(asdict, offer.run()))
        except (Exception, SystemExit) as error:  # isolation boundary: hook
            text = f"check {offer.name} failed: {type(error).__name__}: {error}"
            rows = [asdict(Finding("error", text, "NVC-1112", f"report it to the authors of {offer.plugin}"))]
        found += [{"check": offer.name, "plugin": offer.plugin, **row} for row in rows]
    return {"healthy": not any(row["severity"] == "error" for row in found), "findings": found}


def _broken(daemon: Daemon) -> list[Finding]:
    """The core's check of its plugins."""
    found = []
    for plugin in [plugin for plugin in daemon.plugin_host.plugins if plugin.broken]:
        text = f"plugin {plugin.name} is {plugin.state}: {plugin.reason or '; '.join(plugin.conflicts)}"
        found.append(Finding("warning", text, plugin.code or "NVC-1010", plugin.remedy))
    return found or [Finding("ok", "every selected plugin works")]


def _write_bundle(daemon: Daemon, folder: str | None) -> str:
    """Write a post-mortem bundle; its folder. folder: a new or empty one, absolute; None: below the state directory, named by the time."""
    place = Path(folder or daemon.state_dir / "dumps" / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
    if not place.is_absolute():
        raise UsageError("the folder of a dump must be absolute", seen=ascii(folder), remedy="begin it with /")
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder is not None and any(place.iterdir()):
            raise UsageError("the folder of a dump must be new or empty", seen=ascii(folder), remedy="choose another")
        daemon.host.dump(place)
        (place / "plugins.json").write_text(json.dumps(daemon.plugins(), indent=1))
    except OSError as error:
        remedy = "name a folder that the daemon may write to, on a disk with room"
        raise UsageError("the bundle cannot be written", seen=error.strerror, where=str(place), remedy=remedy) from error
    return str(place)
