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

    Offers = list[tuple[Plugin, Any]]
    """Offers of one hook, each with its plugin."""

__all__ = ["CLAIMS", "OFFERS", "call_hook", "claims_of", "holders", "report", "uncontested"]

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


def call_hook(manager: PluginManager, hook: str, plugins: Iterable[Plugin], info: Callable[[Plugin], HostInfo]) -> Offers:
    """Call `hook` on every registered plugin: its offers. One whose hook raises, or returns no offers, fails and is left out."""
    from nvcore.api import offers as records

    record: Any = getattr(records, OFFERS[hook])
    by_name = {f"{plugin.key}/{family}": plugin for plugin in plugins if plugin.state == "registered" for family in plugin.families}
    results: Offers = []
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
            results = [pair for pair in results if pair[0] is not plugin]
        else:
            results += [(plugin, offer) for offer in offers]
    return results


def holders(hook: str, offers: Offers, claim: str) -> Offers:
    """Those of the hook's offers that claim `claim`."""
    return [(plugin, offer) for plugin, offer in offers if claim in claims_of(hook, offer)]


def uncontested(hook: str, offers: Offers, offer: Any) -> Any:
    """One of them without what somebody else claims too (a copy where that changes it); None when nothing is left."""
    field, claims = CLAIMS.get(hook), claims_of(hook, offer)
    free = [claim for claim in claims if len(holders(hook, offers, claim)) < 2]
    if free == claims:
        return offer
    if field is None or len(free) < 2 or free[-1] != claims[-1]:
        return None
    import attrs

    return attrs.evolve(offer, **{field: free[:-1]})


def report(hook: str, offers: Offers) -> None:
    """Write every conflict among the hook's offers into the plugins' records."""
    for claim in dict.fromkeys(claim for _, offer in offers for claim in claims_of(hook, offer)):
        names = [plugin.name for plugin, _ in holders(hook, offers, claim)]
        text = f"{OFFERS[hook]} {claim!r} is claimed by {' and '.join(names)}; neither has it (NVC-1114); choose with -p no:NAME"
        for plugin in dict.fromkeys(plugin for plugin, _ in holders(hook, offers, claim)) if len(names) > 1 else ():
            plugin.conflicts.append(text)
