"""PluginHost: the plugins of one host from selection to teardown.

Owns the records, the hooks and what was offered at them. Belongs to one thread; `states()` may be called from any (it copies);
imports, observers and services run in threads of their own, which are abandoned when they hang. Never imports what is not selected; never
lets one plugin's failure reach another; calls no hook after `load` but the two observers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from nvcore import __version__
from nvcore.api import GENERATIONS
from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.errors import ConfigError, NotFoundError, NotRunningError, PluginError
from nvcore.api.offers import HostInfo
from nvcore.locks import start_thread
from nvcore.plugins.hooks import OFFERS, Hooks
from nvcore.plugins.index import Index, scan
from nvcore.plugins.loader import load_objects, raised
from nvcore.plugins.select import Selection, inventory, select
from nvcore.plugins.states import Plugin

if TYPE_CHECKING:
    from pathlib import Path

    from nvcore.api.control import HostView
    from nvcore.config.model import Configuration

_Call = Callable[[], object]


class RequiredPluginError(PluginError):
    """A plugin that the operator marked as required is not usable; the host does not start."""

    code, exit_code = "NVC-1116", 78


class RequiredPluginLate(RequiredPluginError):
    """Its import took too long, from a cold disk perhaps: the service manager may try again."""

    exit_code = 1


class ObserverError(PluginError):
    """An observer or a service of a plugin raised or hung while it stopped."""

    code = "NVC-1112"


class PluginHost:
    """The plugins of one host.

    mode: as in HostInfo. configuration: None for the plugins' defaults. state_dir: the host's; each plugin gets the folder
    `plugins/NAME` in it, which it makes itself. limit: seconds of `clock` after which an observer or a service is abandoned;
    an import, which may come from a cold disk, has six times as long.
    """

    def __init__(
        self, mode: Literal["daemon", "embedded", "command", "doctor"] = "embedded", *, configuration: Configuration | None = None,
        state_dir: Path | None = None, clock: Clock = SYSTEM, limit: float = 5.0,
    ) -> None:  # fmt: skip
        self.mode, self.configuration, self.state_dir, self.clock, self.limit = mode, configuration, state_dir, clock, limit
        self.index = Index()
        self.plugins: list[Plugin] = []
        self._hooks = Hooks()
        self._infos: dict[str, HostInfo] = {}
        self._leaving: dict[Plugin, list[tuple[str, _Call]]] = {}  # what makes a plugin leave, in the order in which it started

    def load(self, selection: Selection | None = None, *, index: Index | None = None) -> None:
        """Index, select, import, register, and call every hook once; call once per host.

        Raises RequiredPluginError when a required plugin does not get that far, ConfigError when a plugin's section is wrong or is of one
        that is not installed. Every other failure is a state.
        """
        self.index = scan() if index is None else index
        self.plugins = select(inventory(self.index), selection or Selection())
        for plugin in self.plugins:
            folder = None if self.state_dir is None else self.state_dir / "plugins" / plugin.name
            self._infos[plugin.key] = HostInfo(__version__, GENERATIONS, mode=self.mode, clock=self.clock, state_dir=folder)
            if plugin.state == "selected" and not plugin.families:
                plugin.state = "registered"  # it has commands only; they are imported when they are used
            elif plugin.state == "selected":
                self._import(plugin)
        for hook in OFFERS:
            for plugin in self.plugins:
                if plugin.state == "registered":
                    self._hooks.call(hook, plugin, self._infos[plugin.key])
            if hook == "nvcore_config_sections":
                self._configure()
        self._hooks.report()
        for plugin in self.plugins:
            if plugin.required and plugin.state != "registered":
                what = f"required plugin {plugin.name} is {plugin.state}: {plugin.reason}"
                kind = RequiredPluginLate if plugin.code == "NVC-1109" else RequiredPluginError
                raise kind(what, remedy=plugin.remedy or "select it, or take it out of [plugins] required")

    def _import(self, plugin: Plugin) -> None:
        objects: dict[str, object] = {}
        if self._watched(plugin, "import", lambda: objects.update(load_objects(plugin)), 6 * self.limit) is None and objects:
            plugin.state = "imported"
            self._hooks.register(plugin, objects)

    def _configure(self) -> None:
        """Give every plugin its record, from its section or from the record's defaults."""
        sections = dict(reversed(self._hooks.offers("nvcore_config_sections")))  # the first one of a plugin counts
        if self.configuration is not None:
            self.configuration.check_names({plugin.name: plugin.state for plugin in self.plugins}, {plugin.name for plugin in sections})
        if not sections:
            return
        from nvcore.config.sections import build

        for plugin, offer in sections.items():
            try:
                self._infos[plugin.key].config = build(offer, self.configuration)
            except (Exception, SystemExit) as error:  # isolation boundary: hook
                remedy = None
                if isinstance(error, ConfigError):
                    if self.configuration is not None and plugin.name in self.configuration.sections:
                        raise  # not the plugin's fault: the operator is told file and line
                    remedy = f"write a section [plugins.{plugin.name}], or leave the plugin out: -p no:{plugin.name}"
                plugin.fail("NVC-1108", f"its configuration section {raised(error)}", remedy)
                self._hooks.drop(plugin)

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
        return [offer for _, offer in self._hooks.offers(hook)] if contested else list(self._hooks.uncontested(hook))

    def start(self, view: HostView) -> None:
        """Start services, then tell observers that the host is up. One that raises or hangs is named in its state; the others run."""
        for plugin in (plugin for plugin in self.plugins if plugin.state == "registered"):
            leaving = self._leaving[plugin] = []
            for owner, offer in self._hooks.offers("nvcore_services"):
                if owner is plugin and self._began(plugin, f"service {offer.name}", partial(offer.start, view)):
                    leaving.append((f"stop of service {offer.name}", offer.stop))
            for call in self._hooks.ready("nvcore_host_started", plugin, view):
                self._began(plugin, "nvcore_host_started", call)
            if plugin.state == "registered":
                plugin.state = "started"
                leaving += [("nvcore_host_stopping", call) for call in self._hooks.ready("nvcore_host_stopping", plugin, view)]

    def _began(self, plugin: Plugin, what: str, call: _Call) -> bool:
        """Whether a starting call of a plugin returned; one that does not is the plugin's last."""
        return plugin.state == "registered" and self._watched(plugin, what, call) is None

    def _watched(self, plugin: Plugin, what: str, call: _Call, limit: float | None = None) -> str | None:
        """Run a call that may hang in a daemon thread of its own; None when it returned, else why the plugin has failed now.

        One that hangs is abandoned with its name (NVC-1109); one that holds the interpreter lock for ever is beyond this.
        """
        from nvcore.gpu.threads import Job

        job = Job(call, f"{what} of {plugin.name}", awaited=True)
        thread = start_thread(f"nvcore-watched {job.what}", partial(job.run, None))
        if not self.clock.wait(job.done, limit := limit or self.limit):
            code, reason = "NVC-1109", f"{job.what} did not return within {limit:g} s and was abandoned in thread {thread.name!r}"
        elif job.error is not None:
            code, reason = "NVC-1101" if what == "import" else "NVC-1112", f"{job.what} {raised(job.error)}"
        else:
            return None
        plugin.fail(code, reason)
        return reason

    def _leave(self, plugin: Plugin) -> list[PluginError]:
        """Run one plugin's stopping observer and stop its services, the last started first; the errors, none raised."""
        calls = reversed(self._leaving.pop(plugin, []))
        return [ObserverError(reason, remedy=plugin.complaint) for what, call in calls if (reason := self._watched(plugin, what, call))]

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
        plugin.end("disabled", None, "stopped by the operator", "restart the daemon to start it again")  # unless it failed in it
        return self._hooks.drop(plugin)

    def teardown(self) -> ExceptionGroup[PluginError] | None:
        """Stop everything, the last started first; all run, whatever the others do. Returns the grouped errors, None without any."""
        errors: list[PluginError] = []
        for plugin in reversed(self.plugins):
            errors += self._leave(plugin)
            if plugin.state == "started":
                plugin.state = "registered"
            self._hooks.drop(plugin)
        return ExceptionGroup("plugins that did not stop cleanly", errors) if errors else None
