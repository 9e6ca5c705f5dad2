"""Hooks: register a plugin's objects with pluggy, all or nothing, and keep what its hooks offer.

Owns the checks that pluggy does not make (an unknown hook name, a hook of a family that the plugin does not declare, a forgotten marker, a
wrapper: the calls here have none), the offers stamped with their plugin, and their conflicts. There is no `firstresult`: two claimants of
one thing are a conflict; neither has it. Main thread. This is the isolation boundary "hook".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

import attrs
from pluggy import HookImpl, HookimplOpts, PluginManager

from nvcore.api import offers as records
from nvcore.api.hooks import SPECIFICATIONS
from nvcore.plugins.loader import raised
from nvcore.plugins.names import did_you_mean
from nvcore.plugins.states import Plugin

# Hook to its family.
HOOKS: dict[str, str] = {name: family for family, spec in SPECIFICATIONS.items() for name in vars(spec) if name.startswith("nvcore_")}

_RETURNS = {hook: getattr(SPECIFICATIONS[family], hook).__annotations__["return"] for hook, family in HOOKS.items()}
_ORDER = sorted(HOOKS, key=lambda hook: hook != "nvcore_config_sections")  # that one first: the others see their configuration
# Hooks that return offers, in the order in which they are called, and the record that each returns.
OFFERS: dict[str, str] = {hook: _RETURNS[hook][len("Iterable[offers.") : -1] for hook in _ORDER if _RETURNS[hook] != "None"}

# Hooks whose offers claim things, and the field that lists them. An offer's name is a claim for every hook.
_CLAIMS = {"nvcore_buses": "schemes", "nvcore_firmware_backends": "chips", "nvcore_client_drivers": "functions"}


class _Manager(PluginManager):
    """Evaluates no property of a plugin while it looks for hooks; pluggy before 1.7 does."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> HookimplOpts | None:
        if isinstance(getattr(type(plugin), name, None), property):
            return None
        return super().parse_hookimpl_opts(plugin, name)


def _claims(hook: str, offer: Any) -> list[str]:
    """What an offer claims, its name last. A configuration section is its plugin's, whatever it is called."""
    if hook == "nvcore_config_sections":
        return [str(offer.plugin)]
    return [*(map(str, getattr(offer, _CLAIMS[hook])) if hook in _CLAIMS else ()), f"name {offer.name}"]


def _stamped(plugin: Plugin, hook: str, offer: Any) -> Any:
    record = getattr(records, OFFERS[hook])
    if not isinstance(offer, record):
        raise TypeError(f"returned {type(offer).__name__} where {record.__name__} belongs")
    offer.plugin = plugin.name
    _claims(hook, offer)  # whose field may be no list
    return offer


class Hooks:
    """The hooks of one host: who implements them, and what was offered at them (plugin, hook and offer, in the order of the calls)."""

    def __init__(self) -> None:
        self._manager = _Manager("nvcore")
        for specification in SPECIFICATIONS.values():
            self._manager.add_hookspecs(specification)
        self._offered: list[tuple[Plugin, str, Any]] = []

    def register(self, plugin: Plugin, objects: dict[str, object]) -> None:
        """Register every object of `plugin`; its state becomes registered or failed. All or nothing."""
        try:
            for family, target in {id(target): (family, target) for family, target in objects.items()}.values():  # one may serve two
                self._manager.register(target, name=f"{plugin.key}/{family}")
            wrong = self._wrong(plugin, objects)
        except Exception as error:  # isolation boundary: plugin import
            wrong = "NVC-1113", f"registration refused: {str(error).splitlines()[-1] if str(error) else type(error).__name__}", None
        if wrong is not None:
            self.drop(plugin)  # the refused object too: before 1.7 pluggy leaves what it had taken of it
            plugin.fail(*wrong)
            return
        plugin.hooks = sorted({name for target in objects.values() for name in self._taken(target)})
        plugin.state = "registered"

    def _taken(self, target: object) -> dict[str, HookImpl]:
        """What pluggy took for implementations in a registered object: by the hook's name, which may be none of ours."""
        return {name: one for name, hook in vars(self._manager.hook).items() for one in hook.get_hookimpls() if one.plugin is target}

    def _wrong(self, plugin: Plugin, objects: dict[str, object]) -> tuple[str, str, str | None] | None:
        """The first thing wrong with the registered objects: code, reason, remedy."""
        author = f"report it to the authors of {plugin.distribution}"
        for family, target in objects.items():
            taken = self._taken(target)
            for name, one in taken.items():
                if name not in HOOKS:
                    if one.optionalhook:
                        continue
                    meant = did_you_mean(name, HOOKS, f"hooks are {', '.join(HOOKS)}")
                    return "NVC-1107", f"implements {name}, which is no hook; {meant}", f"correct the name; {author}"
                if one.wrapper or one.hookwrapper:
                    return "NVC-1113", f"{name} is a wrapper; hooks of this host have none", f"make it an ordinary hook; {author}"
                if HOOKS[name] not in objects:
                    reason = f"implements {name} of family {HOOKS[name]}, but its entry points are of {', '.join(sorted(objects))} only"
                    return "NVC-1113", reason, f"add an entry point {plugin.name!r} of group nvcore.{HOOKS[name]}.v1; {author}"
            for name, value in vars(target).items() if isinstance(target, ModuleType) else ():
                if name in HOOKS and name not in taken and isinstance(value, FunctionType):
                    reason = f"{name} is defined and not marked, so nobody would call it"
                    return "NVC-1107", reason, f"mark it with @nvcore.api.hookimpl; {author}"
            if not taken and family in SPECIFICATIONS:
                return "NVC-1113", f"its entry point of family {family} implements no hook", author
        return None

    def ready(self, hook: str, plugin: Plugin, argument: object) -> list[Callable[[], Any]]:
        """A plugin's implementations of a hook, each ready to be called."""
        found = [one for one in getattr(self._manager.hook, hook).get_hookimpls() if one.plugin_name.rpartition("/")[0] == plugin.key]
        return [partial(one.function, *(argument for _ in one.argnames)) for one in found]

    def call(self, hook: str, plugin: Plugin, info: records.HostInfo) -> None:
        """Call a hook of one plugin for its offers. Where it raises, or returns no offers, the plugin fails and is dropped."""
        try:
            for implementation in self.ready(hook, plugin, info):
                answer = implementation()
                self._offered += [(plugin, hook, _stamped(plugin, hook, offer)) for offer in (() if answer is None else answer)]
        except (Exception, SystemExit) as error:  # isolation boundary: hook
            plugin.fail("NVC-1108", f"hook {hook} {raised(error)}")
            self.drop(plugin)

    def drop(self, plugin: Plugin) -> list[Any]:
        """Take every object of a plugin out again, where any is in, and its offers; those are returned."""
        for family in plugin.families:
            if self._manager.has_plugin(f"{plugin.key}/{family}"):
                self._manager.unregister(name=f"{plugin.key}/{family}")
        withdrawn = [offer for owner, _, offer in self._offered if owner is plugin]
        self._offered = [one for one in self._offered if one[0] is not plugin]
        return withdrawn

    def offers(self, hook: str) -> list[tuple[Plugin, Any]]:
        """The offers at a hook, each behind its plugin."""
        return [(plugin, offer) for plugin, at, offer in self._offered if at == hook]

    def _holders(self) -> dict[tuple[str, str], list[Plugin]]:
        """Hook and claim to who claims it."""
        holders: dict[tuple[str, str], list[Plugin]] = {}
        for plugin, hook, offer in self._offered:
            for claim in _claims(hook, offer):
                holders.setdefault((hook, claim), []).append(plugin)
        return holders

    def uncontested(self, hook: str) -> Iterator[Any]:
        """The offers at a hook without what somebody else claims too: a copy where that changes one, none where nothing is left."""
        holders = self._holders()
        for _, offer in self.offers(hook):
            claims = _claims(hook, offer)
            free = [claim for claim in claims if len(holders[hook, claim]) < 2]
            if free == claims:
                yield offer
            elif len(free) > 1 and free[-1] == claims[-1]:
                yield attrs.evolve(offer, **{_CLAIMS[hook]: free[:-1]})

    def report(self) -> None:
        """Count the offers and write every conflict into the plugins' records."""
        for plugin, _, _ in self._offered:
            plugin.offers += 1
        for (hook, claim), holders in self._holders().items():
            text = f"{OFFERS[hook]} {claim!r} is claimed by {' and '.join(plugin.name for plugin in holders)}; neither has it"
            for plugin in dict.fromkeys(holders) if len(holders) > 1 else ():
                plugin.conflicts.append(f"{text} (NVC-1114); choose with -p no:NAME")
