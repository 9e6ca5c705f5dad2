"""Collect: every implementation of one hook, errors against their plugin, offers stamped, conflicts reported.

This is the isolation boundary "hook". Main thread. There is no `firstresult`: two claimants of one thing are a conflict; neither has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
from pluggy import PluginManager

from nvcore.api import offers as records
from nvcore.api.hooks import SPECIFICATIONS
from nvcore.plugins.loader import raised
from nvcore.plugins.register import HOOKS, implementations
from nvcore.plugins.states import Plugin

__all__ = ["CLAIMS", "OFFERS", "Offers"]

_RETURNS = {hook: getattr(SPECIFICATIONS[family], hook).__annotations__["return"] for hook, family in HOOKS.items()}
_ORDER = sorted(HOOKS, key=lambda hook: hook != "nvcore_config_sections")  # that one first: the others see their configuration
OFFERS: dict[str, str] = {hook: _RETURNS[hook][len("Iterable[offers.") : -1] for hook in _ORDER if _RETURNS[hook] != "None"}
"""Hooks that return offers, in the order in which they are called, and the record that each returns."""

CLAIMS: dict[str, str] = {"nvcore_buses": "schemes", "nvcore_firmware_backends": "chips", "nvcore_client_drivers": "functions"}
"""Hooks whose offers claim things, and the field that lists them. An offer's name is a claim for every hook."""


class Offers:
    """What the plugins offered at one hook: `pairs` of plugin and offer, by plugin."""

    def __init__(self, hook: str) -> None:
        self.hook = hook
        self.pairs: list[tuple[Plugin, Any]] = []

    def call(self, manager: PluginManager, plugins: list[Plugin], infos: dict[str, records.HostInfo]) -> None:
        """Call the hook on every registered plugin. One whose hook raises, or returns no offers, fails and is left out."""
        for plugin in plugins:
            for implementation in implementations(manager, self.hook, plugin) if plugin.state == "registered" else ():
                try:
                    answer: Any = implementation.function(*(infos[plugin.key] for _ in implementation.argnames))
                    self.pairs += [(plugin, self._stamped(plugin, offer)) for offer in (() if answer is None else answer)]
                except (Exception, SystemExit) as error:  # isolation boundary: hook
                    plugin.fail("NVC-1108", f"hook {self.hook} {raised(error)}")
                    self.withdraw(plugin)
                    break

    def _stamped(self, plugin: Plugin, offer: Any) -> Any:
        record = getattr(records, OFFERS[self.hook])
        if not isinstance(offer, record):
            raise TypeError(f"returned {type(offer).__name__} where {record.__name__} belongs")
        offer.plugin = plugin.name
        self._claims(offer)  # whose field may be no list
        return offer

    def _claims(self, offer: Any) -> list[str]:
        """What an offer claims, its name last. A configuration section is its plugin's, whatever it is called."""
        if self.hook == "nvcore_config_sections":
            return [str(offer.plugin)]
        if self.hook not in CLAIMS:
            return [str(offer.name)]
        return [*map(str, getattr(offer, CLAIMS[self.hook])), f"name {offer.name}"]

    def of(self, plugin: Plugin) -> list[Any]:
        """The offers of one plugin."""
        return [offer for owner, offer in self.pairs if owner is plugin]

    def withdraw(self, plugin: Plugin) -> list[Any]:
        """Forget the offers of one plugin; they are returned."""
        withdrawn = self.of(plugin)
        self.pairs = [pair for pair in self.pairs if pair[0] is not plugin]
        return withdrawn

    def holders(self, claim: str) -> list[Plugin]:
        """Who claims `claim`."""
        return [plugin for plugin, offer in self.pairs if claim in self._claims(offer)]

    def uncontested(self) -> Iterator[Any]:
        """The offers, by plugin, without what somebody else claims too: a copy where that changes one, none where nothing is left."""
        for _, offer in self.pairs:
            claims = self._claims(offer)
            free = [claim for claim in claims if len(self.holders(claim)) < 2]
            if free == claims:
                yield offer
            elif len(free) > 1 and free[-1] == claims[-1]:
                yield attrs.evolve(offer, **{CLAIMS[self.hook]: free[:-1]})

    def report(self) -> None:
        """Write every conflict into the plugins' records."""
        for claim in dict.fromkeys(claim for _, offer in self.pairs for claim in self._claims(offer)):
            holders = self.holders(claim)
            text = f"{OFFERS[self.hook]} {claim!r} is claimed by {' and '.join(plugin.name for plugin in holders)}; neither has it"
            for plugin in dict.fromkeys(holders) if len(holders) > 1 else ():
                plugin.conflicts.append(f"{text} (NVC-1114); choose with -p no:NAME")
