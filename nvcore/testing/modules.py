"""The hooks of a plugin module, called as a host calls them, without a host: what a test needs of it.

Owns the records of configuration behind the offers that it handed out. The test's thread. Judges nothing;
`nvcore.testing.contracts.check_plugin_module` does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from nvcore import __version__
from nvcore.api import GENERATIONS
from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.errors import PluginError
from nvcore.api.offers import HostInfo, Offer
from nvcore.plugins.hooks import HOOKS, OFFERS

__all__ = ["hooks_of", "host_info", "offers_by_module", "offers_of", "record_of"]

_records: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""Offers that `offers_by_module` handed out, with the configuration record of their plugin."""


def hooks_of(module: object) -> dict[str, Any]:
    """The implementations of hooks in a module or an object, by name: what carries the hook marker, whatever it is called."""
    found = {}
    for name in dir(module):
        if name.startswith("nvcore_") or name in HOOKS:
            value = getattr(module, name)
            if isinstance(getattr(value, "nvcore_impl", None), dict):
                found[name] = value
    return found


def host_info(*, config: object = None, clock: Clock = SYSTEM, state_dir: Path | None = None) -> HostInfo:
    """What a hook is given, in mode "embedded"."""
    return HostInfo(version=__version__, generations=GENERATIONS, mode="embedded", clock=clock, config=config, state_dir=state_dir)


def _just(module: object, hook: str, call: Callable[[], list[Any]]) -> list[Any]:
    return call()


def offers_by_module(
    *modules: object,
    config: object = None,
    clock: Clock = SYSTEM,
    state_dir: Path | None = None,
    ask: Callable[[Any, str, Callable[[], list[Any]]], list[Any]] = _just,
) -> dict[str, list[tuple[Any, Any]]]:
    """What `offers_of` gives, each offer behind the module that it came from. ask(module, hook, call): makes each call of a hook."""
    hooks = [(module, hooks_of(module)) for module in modules]
    info = host_info(config=config, clock=clock, state_dir=state_dir)
    found: dict[str, list[tuple[Any, Any]]] = {}
    for name in OFFERS:  # sections come first
        for module, mine in hooks:
            if name in mine:
                answer = ask(module, name, lambda hook=mine[name]: list(hook(info) or ()))  # type: ignore[misc]
                found.setdefault(name, []).extend((module, offer) for offer in answer)
        if name == "nvcore_config_sections" and config is None and name in found:
            info.config = _defaults([section for _, section in found[name]])
    for group in found.values():
        _records.update((offer, info.config) for _, offer in group if isinstance(offer, Offer))
    return found


def record_of(offer: Offer) -> Any:
    """The configuration record with which the hooks were called that made this offer: what a host gives its client. None for an offer that
    was made otherwise."""
    return _records.get(offer)


def offers_of(*modules: object, config: object = None, clock: Clock = SYSTEM, state_dir: Path | None = None) -> dict[str, list[Any]]:
    """The offers of one plugin, whose hooks are spread over `modules`: hook to offers, observers left out. All hooks get one HostInfo.

    config: the plugin's record; None = the defaults of its own section. Raises PluginError for a section whose record has a key without a
    default.
    """
    found = offers_by_module(*modules, config=config, clock=clock, state_dir=state_dir)
    return {hook: [offer for _, offer in group] for hook, group in found.items()}


def _defaults(sections: list[Any]) -> object:
    if not sections:
        return None
    try:
        return sections[0].record()
    except TypeError as error:
        raise PluginError("the configuration has a key without a default", seen=str(error), remedy="give the record: config=…") from error
