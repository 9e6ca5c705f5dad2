"""PluginHost: the plugins of one host from selection to teardown.

Owns the plugin manager, the records and the offers. Belongs to one thread; `states()` may be called from any (it copies);
observers and services are called in threads of their own, which are abandoned when they hang. Never imports what is not selected; never
lets one plugin's failure reach another; calls no hook after `load` but the two observers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from nvcore import __version__
from nvcore.api import GENERATIONS
from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.errors import NotFoundError, NotRunningError, PluginError
from nvcore.api.offers import HostInfo
from nvcore.plugins.collect import OFFERS, Offers
from nvcore.plugins.index import Index, scan
from nvcore.plugins.loader import load_objects, raised
from nvcore.plugins.register import implementations, manager_with_hooks, register, unregister
from nvcore.plugins.select import Selection, inventory, select
from nvcore.plugins.states import Plugin

if TYPE_CHECKING:
    from pathlib import Path

    from nvcore.api.control import HostView
    from nvcore.config.model import Configuration

_Call = Callable[[], object]

__all__ = ["ObserverError", "PluginHost", "RequiredPluginError"]


class RequiredPluginError(PluginError):
    """A plugin that the operator marked as required is not usable; the host does not start."""

    code = "NVC-1116"


class ObserverError(PluginError):
    """An observer or a service of a plugin raised or hung."""

    code = "NVC-1112"


class PluginHost:
    """The plugins of one host.

    mode: as in HostInfo. configuration: None for the plugins' defaults. state_dir: the host's; each plugin gets the folder
    `plugins/NAME` in it, which it makes itself. limit: seconds of `clock` after which an observer or a service is abandoned.
    """

    def __init__(
        self, mode: Literal["daemon", "embedded", "command", "doctor"] = "embedded", *, configuration: Configuration | None = None,
        state_dir: Path | None = None, clock: Clock = SYSTEM, limit: float = 5.0,
    ) -> None:  # fmt: skip
        self.mode, self.configuration, self.state_dir, self.clock = mode, configuration, state_dir, clock
        self.limit = limit
        self.index = Index()
        self.plugins: list[Plugin] = []
        self._offers = {hook: Offers(hook) for hook in OFFERS}
        self._infos: dict[str, HostInfo] = {}
        self._leaving: dict[Plugin, list[tuple[str, _Call]]] = {}  # what makes a plugin leave, in the order in which it started
        self._manager = manager_with_hooks()

    def load(self, selection: Selection | None = None, *, index: Index | None = None) -> None:
        """Index, select, import, register, and call every hook once; call once per host.

        Raises RequiredPluginError when a required plugin does not get that far, ConfigError when a plugin's section is wrong or is of one
        that is not installed. Every other failure is a state.
        """
        self.index = scan() if index is None else index
        self.plugins = select(inventory(self.index), selection or Selection())
        self._infos = {plugin.key: self._make_info(plugin) for plugin in self.plugins}
        wanted = [plugin for plugin in self.plugins if plugin.state == "selected"]
        for plugin in wanted:
            if not plugin.families:
                plugin.state = "registered"  # it has commands only; they are imported when they are used
            elif objects := load_objects(plugin):
                register(self._manager, plugin, objects)
        for hook, offers in self._offers.items():
            offers.call(self._manager, wanted, self._infos)
            if hook == "nvcore_config_sections":
                self._configure(offers)
        self._settle(wanted)
        for plugin in self.plugins:
            if plugin.required and plugin.state != "registered":
                what = f"required plugin {plugin.name} is {plugin.state}: {plugin.reason}"
                raise RequiredPluginError(what, remedy=plugin.remedy or "select it, or take it out of [plugins] required")

    def _make_info(self, plugin: Plugin) -> HostInfo:
        folder = None if self.state_dir is None else self.state_dir / "plugins" / plugin.name
        return HostInfo(version=__version__, generations=GENERATIONS, mode=self.mode, clock=self.clock, state_dir=folder)

    def _configure(self, sections: Offers) -> None:
        """Give every plugin its record, from its section or from the record's defaults."""
        records = {plugin.key: (plugin, offer) for plugin, offer in reversed(sections.pairs)}  # the first one counts
        if self.configuration is not None:
            self.configuration.check_names({plugin.name: plugin.state for plugin in self.plugins}, set(records))
        if not records:
            return
        from nvcore.config.sections import build

        for plugin, offer in records.values():
            section = None if self.configuration is None else self.configuration.section(plugin.name)
            self._infos[plugin.key].config = build(offer, section)

    def _settle(self, wanted: list[Plugin]) -> None:
        """Drop what failed on the way, report conflicts, count offers."""
        for plugin in wanted:
            if plugin.state == "failed":
                self._drop(plugin)
        for offers in self._offers.values():
            offers.report()
            for plugin, _ in offers.pairs:
                plugin.offers += 1

    def _drop(self, plugin: Plugin) -> list[Any]:
        """Withdraw a plugin's offers and registrations. Returns the offers."""
        unregister(self._manager, plugin)
        return [offer for offers in self._offers.values() for offer in offers.withdraw(plugin)]

    def states(self) -> list[dict[str, Any]]:
        """Every plugin with state, reason and remedy (schema nvcore.plugins/1), problems of the index not included."""
        return [plugin.as_dict() for plugin in self.plugins]

    def partial(self) -> bool:
        """Whether exit code 7 is due: a plugin failed, is incompatible or in conflict, or the index met damage."""
        return any(plugin.broken for plugin in self.plugins) or bool(self.index.problems)

    def plugin(self, name: str) -> Plugin:
        """The record of a plugin by name, or by key where a name is claimed twice. Raises NotFoundError."""
        for plugin in self.plugins:
            if name in (plugin.name, plugin.key):
                return plugin
        raise NotFoundError(f"no plugin {name!r}", remedy="nvcore plugins list")

    def info(self, name: str) -> HostInfo:
        """What the hooks of a plugin were given; its configuration record is `.config`. Raises NotFoundError."""
        return self._infos[self.plugin(name).key]

    def collect(self, hook: str, *, contested: bool = False) -> list[Any]:
        """The offers of `hook`, by plugin name, without what two of them claim: nobody can pick one silently. No hook is called here.
        contested: with it, for a user who reports the conflict where it matters."""
        offers = self._offers[hook]
        return [offer for _, offer in offers.pairs] if contested else list(offers.uncontested())

    def start(self, view: HostView) -> None:
        """Start services, then tell observers that the host is up. One that raises or hangs is named in its state; the others run."""
        for plugin in self.plugins:
            if plugin.state != "registered":
                continue
            leaving = self._leaving[plugin] = []
            for offer in self._offers["nvcore_services"].of(plugin):
                if self._began(plugin, f"service {offer.name}", partial(offer.start, view)):
                    leaving.append((f"stop of service {offer.name}", offer.stop))
            for call in self._observers("nvcore_host_started", plugin, view):
                self._began(plugin, "nvcore_host_started", call)
            if plugin.state == "registered":
                plugin.state = "started"
                leaving += [("nvcore_host_stopping", call) for call in self._observers("nvcore_host_stopping", plugin, view)]

    def _watched(self, plugin: Plugin, what: str, call: _Call) -> tuple[str, str] | None:
        """Run a call that may hang in a daemon thread of its own; None when it returned, else code and reason.

        One that hangs is abandoned with its name (NVC-1109); one that holds the interpreter lock for ever is beyond this.
        """
        what = f"{what} of {plugin.name}"
        done = threading.Event()
        outcome: list[str] = []

        def body() -> None:
            try:
                call()
            except (Exception, SystemExit) as error:  # isolation boundary: hook
                outcome.append(f"{what} {raised(error)}")
            finally:
                done.set()

        thread = threading.Thread(target=body, name=f"nvcore-watched {what}", daemon=True)
        thread.start()
        if not self.clock.wait(done, self.limit):
            return "NVC-1109", f"{what} did not return within {self.limit:g} s and was abandoned in thread {thread.name!r}"
        return ("NVC-1112", outcome[0]) if outcome else None

    def _began(self, plugin: Plugin, what: str, call: _Call) -> bool:
        """Whether a starting call of a plugin returned; one that does not is the plugin's last."""
        failure = self._watched(plugin, what, call) if plugin.state == "registered" else None
        if failure is not None:
            plugin.fail(*failure)
        return plugin.state == "registered"

    def _observers(self, hook: str, plugin: Plugin, view: HostView) -> list[_Call]:
        """A plugin's implementations of an observer, each ready to be called."""
        found = implementations(self._manager, hook, plugin)
        return [partial(one.function, *(view for _ in one.argnames)) for one in found]

    def _leave(self, plugin: Plugin) -> list[PluginError]:
        """Run one plugin's stopping observer and stop its services, the last started first; the errors, none raised."""
        calls = reversed(self._leaving.pop(plugin, []))
        failures = [failure for what, call in calls if (failure := self._watched(plugin, what, call)) is not None]
        if failures:
            plugin.fail("NVC-1112", "; ".join(reason for _, reason in failures))
        return [ObserverError(reason, remedy=plugin.complaint) for _, reason in failures]

    def stop(self, name: str) -> list[Any]:
        """Stop one plugin: observers, services, registrations. Returns the offers it withdrew, for their users to let go of.

        The daemon first makes the plugin's clients leave. A stopped plugin is disabled until the host is started again: its modules stay
        loaded. Raises NotFoundError, NotRunningError.
        """
        plugin = self.plugin(name)
        if plugin.state not in ("registered", "started"):
            what = f"plugin {name} is {plugin.state}"
            raise NotRunningError(what, expected="started or registered", remedy=f"nvcore plugins show {name}")
        self._leave(plugin)
        withdrawn = self._drop(plugin)
        if plugin.state != "failed":
            plugin.end("disabled", None, "stopped by the operator", "restart the daemon to start it again")
        return withdrawn

    def teardown(self) -> ExceptionGroup[PluginError] | None:
        """Stop everything, the last started first; all run, whatever the others do. Returns the grouped errors, None without any."""
        errors: list[PluginError] = []
        for plugin in reversed(list(self._leaving)):
            errors += self._leave(plugin)
            if plugin.state == "started":
                plugin.state = "registered"
        for plugin in self.plugins:
            self._drop(plugin)
        return ExceptionGroup("plugins that did not stop cleanly", errors) if errors else None
