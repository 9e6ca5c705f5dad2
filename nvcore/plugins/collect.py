"""Collect: every implementation of one hook, errors against their plugin, offers stamped, conflicts reported.

This is the isolation boundary "hook". Main thread. There is no `firstresult`: two claimants of one thing are a conflict; neither has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from nvcore.plugins.loader import raised

if TYPE_CHECKING:
    from pluggy import PluginManager

    from nvcore.api.offers import HostInfo
    from nvcore.plugins.states import Plugin

__all__ = ["CLAIMS", "OFFERS", "Claims", "call_hook", "claims_of"]

OFFERS: dict[str, str] = {
    "nvcore_config_sections": "ConfigSection",  # first: the others see their configuration
    "nvcore_buses": "BusOffer",
    "nvcore_firmware_backends": "FirmwareOffer",
    "nvcore_client_drivers": "ClientOffer",
    "nvcore_control_interfaces": "InterfaceOffer",
    "nvcore_status_panels": "PanelOffer",
    "nvcore_metrics": "MetricOffer",
    "nvcore_doctor_checks": "CheckOffer",
    "nvcore_services": "ServiceOffer",
}
"""Hooks that return offers, in the order in which they are called, and the record that each returns."""

CLAIMS: dict[str, str] = {"nvcore_buses": "schemes", "nvcore_firmware_backends": "chips", "nvcore_client_drivers": "functions"}
"""Hooks whose offers claim things, and the field that lists them. An offer's name is a claim for every hook."""


def claims_of(hook: str, offer: Any) -> list[str]:
    """What an offer claims, its name last. A configuration section is its plugin's, whatever it is called."""
    if hook == "nvcore_config_sections":
        return [str(offer.plugin)]
    field = CLAIMS.get(hook)
    return [str(claim) for claim in getattr(offer, field)] + [f"name {offer.name}"] if field else [str(offer.name)]


def call_hook(manager: PluginManager, hook: str, plugins: Iterable[Plugin], info: Callable[[Plugin], HostInfo]) -> dict[str, list[Any]]:
    """Call `hook` on every registered plugin: key to its offers. One whose hook raises, or returns no offers, fails and is left out."""
    from nvcore.api import offers as records

    record: Any = getattr(records, OFFERS[hook])
    by_name = {f"{plugin.key}/{family}": plugin for plugin in plugins if plugin.state == "registered" for family in plugin.families}
    results: dict[str, list[Any]] = {}
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        plugin = by_name.get(implementation.plugin_name)
        if plugin is None or plugin.state != "registered":
            continue
        try:
            answer = implementation.function(*(info(plugin) for _ in implementation.argnames))
            offers: list[Any] = [] if answer is None else list(answer)
            for offer in offers:
                if not isinstance(offer, record):
                    raise TypeError(f"returned {type(offer).__name__} where {record.__name__} belongs")
                offer.plugin = plugin.name
                claims_of(hook, offer)
        except (Exception, SystemExit) as error:  # isolation boundary: hook
            plugin.fail("NVC-1108", f"hook {hook} {raised(error)}")
            results.pop(plugin.key, None)
            continue
        results.setdefault(plugin.key, []).extend(offers)
    return results


class Claims:
    """Who claims what, over all hooks. `contested` is what two or more claim: hook, claim, the plugins' names."""

    def __init__(self) -> None:
        self._holders: dict[tuple[str, str], list[tuple[Plugin, Any]]] = {}

    def add(self, hook: str, plugin: Plugin, offer: Any) -> None:
        """Enter an offer's claims."""
        for claim in claims_of(hook, offer):
            self._holders.setdefault((hook, claim), []).append((plugin, offer))

    def remove(self, plugin: Plugin) -> None:
        """Strike everything that a plugin claims."""
        left = {key: [holder for holder in holders if holder[0] is not plugin] for key, holders in self._holders.items()}
        self._holders = {key: holders for key, holders in left.items() if holders}

    def holders(self, hook: str, claim: str) -> list[tuple[Plugin, Any]]:
        """Everyone who claims `claim`."""
        return list(self._holders.get((hook, claim), ()))

    def uncontested(self, hook: str, offer: Any) -> Any:
        """The offer without claims that somebody else has too (a copy where that changes it); None when nothing is left."""
        field, claims = CLAIMS.get(hook), claims_of(hook, offer)
        free = [claim for claim in claims if len(self._holders.get((hook, claim), ())) < 2]
        if free == claims:
            return offer
        if field is None or len(free) < 2 or free[-1] != claims[-1]:
            return None
        import attrs

        return attrs.evolve(offer, **{field: free[:-1]})

    def report(self) -> None:
        """Write every conflict into the plugins' records."""
        for (hook, claim), holders in self._holders.items():
            names = [plugin.name for plugin, _ in holders]
            if len(names) < 2:
                continue
            for plugin, _ in holders:
                text = f"{OFFERS[hook]} {claim!r} is claimed by {' and '.join(names)}; neither has it (NVC-1114); choose with -p no:NAME"
                if text not in plugin.conflicts:
                    plugin.conflicts.append(text)
