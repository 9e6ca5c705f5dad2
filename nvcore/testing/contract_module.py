"""The contract checks of a plugin module: its files, its hooks, what they return, and what its panels, checks and metrics give.

Owns the host on fakes on which they are looked at. The test's thread; calls each hook as a host would once, three times. Does not judge
what an offer opens: `check_client` and `check_backend` do.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, Final

import attrs

from nvcore.api import offers as records
from nvcore.api.offers import BusOffer, ClientOffer, ConfigSection, FirmwareOffer, InterfaceOffer
from nvcore.daemon.varlink import methods_of
from nvcore.plugins.hooks import HOOKS, OFFERS
from nvcore.plugins.names import did_you_mean
from nvcore.testing.contract import broken, calling, untouched
from nvcore.testing.contract_imports import check_imports
from nvcore.testing.contract_looks import look, look_on_fakes
from nvcore.testing.modules import hooks_of, host_info, offers_by_module

__all__ = ["check_plugin_module"]

_INTERFACE: Final = re.compile(r"^\s*interface\s+(\S+)", re.MULTILINE)

_CALLED: Final[dict[str, dict[str, int]]] = {
    "BusOffer": {"open": 1},
    "FirmwareOffer": {"open": 0},
    "ClientOffer": {"needs": 1, "open": 0},
    "PanelOffer": {"snapshot": 0},
    "MetricOffer": {"collect": 0},
    "CheckOffer": {"run": 0},
    "ServiceOffer": {"start": 1, "stop": 0},
}
"""What a host calls of an offer, and with how many arguments."""

Offers = dict[str, list[tuple[Any, Any]]]
"""Hook to offers, each behind the module that it came from."""


def check_plugin_module(
    module: ModuleType,
    *others: ModuleType,
    config: object = None,
    call: bool = True,
    chip: str = "TU102",
    beside: Sequence[BusOffer | FirmwareOffer | ClientOffer | ModuleType] = (),
    sources: Sequence[str] = (),
) -> dict[str, list[Any]]:
    """Hold a plugin module against the contract of hooks; raises BrokenContract naming the first clause that it breaks, with the module,
    the hook and, for what was raised, the line.

    others: further modules of the same plugin, such as the one of its operator family. config: the plugin's record; None = the defaults of
    its own section. call: also run panels, checks and metrics, once without a host and, where the plugin has clients, on a host with two
    fake GPUs: while they run, and after one was lost. chip: of these. beside: what the clients need there beside them, offers and plugins;
    with a bus among them, sources: the devices to use. Returns the offers by hook.
    Source: `nvcore.api.hooks`, DESIGN sections 2 and 3.
    """
    modules = (module, *others)
    check_imports(modules)
    for one in modules:
        _check_hooks(one, one.__name__)
    offers = _check_answers(modules, config)
    for name, group in offers.items():
        _check_offers(name, group)
    plain = {hook: [offer for _, offer in group] for hook, group in offers.items()}
    if call:
        look(offers)
        if plain.get("nvcore_client_drivers"):
            offers = offers_by_module(*modules, config=config)  # offers of their own: a driver keeps what it has seen
            look_on_fakes(offers, beside, chip=chip, sources=sources)
    return plain


def _check_hooks(module: ModuleType, who: str) -> None:
    hooks = hooks_of(module)
    for name, value in vars(module).items():
        if name in HOOKS and isinstance(value, FunctionType) and name not in hooks:
            broken("module-hooks", who, f"{name} is not marked with @nvcore.api.hookimpl, so nobody calls it")
    for name, hook in hooks.items():
        options = hook.nvcore_impl
        if name not in HOOKS:
            meant = did_you_mean(name, HOOKS, f"hooks are {', '.join(HOOKS)}")
            broken("module-hooks", who, f"{name} is no hook; {meant}")
        if options.get("wrapper") or options.get("hookwrapper"):
            broken("module-hooks", who, f"{name} is a wrapper")
        arguments = list(inspect.signature(hook).parameters)
        if arguments != ["host"]:
            broken("module-hooks", who, f"{name}({', '.join(arguments)})")
    if not hooks:
        broken("module-hooks", who, "no hook at all")


def _ask(module: Any, hook: str, call: Callable[[], list[Any]]) -> list[Any]:
    """A call of a hook, which must touch nothing."""
    answer: list[Any] = untouched("module-pure", module.__name__, f"{hook}()", call)
    return answer


def _check_answers(modules: tuple[ModuleType, ...], config: object) -> Offers:
    sections = []
    for module in modules:
        if "nvcore_config_sections" in hooks_of(module):  # before the others are called: they see its record
            for section in _ask(module, "nvcore_config_sections", partial(_sections, module)):
                sections.append(section)
                _check_section(section, module.__name__)
    if len(sections) > 1:
        said = ", ".join(str(getattr(section, "name", section)) for section in sections)
        broken("module-config", modules[0].__name__, f"{len(sections)} sections, {said}; a host takes the first one alone")
    first, second = (offers_by_module(*modules, config=config, ask=_ask) for _ in range(2))
    for hook, group in first.items():
        names = [[getattr(offer, "name", None) for _, offer in answer] for answer in (group, second[hook])]
        if names[0] != names[1]:
            where = ", ".join(dict.fromkeys(module.__name__ for module, _ in group + second[hook]))
            broken("module-pure", where, f"{hook}() offered first {names[0]}, then {names[1]}")
    return first


def _check_offers(hook: str, group: list[tuple[Any, Any]]) -> None:
    record = getattr(records, OFFERS[hook])
    seen: set[str] = set()
    for module, offer in group:
        who = module.__name__
        if not isinstance(offer, record):
            broken("module-offers", who, f"{hook} returned a {type(offer).__name__} where {record.__name__} belongs")
        if not all(isinstance(text, str) and text for text in (offer.name, offer.summary)):
            broken("module-offers", who, f"{hook}: name {offer.name!r}, summary {offer.summary!r}")
        for name, count in _CALLED.get(record.__name__, {}).items():
            wrong = _refuses(getattr(offer, name), count)
            if wrong:
                broken("module-offers", who, f"{hook}: {name} of {offer.name} {wrong}")
        if offer.name in seen:
            broken("module-offers", who, f"{hook} returned one name twice: {offer.name}")
        seen.add(offer.name)
        if isinstance(offer, InterfaceOffer):
            _check_interface(offer, who)


def _sections(module: ModuleType) -> list[Any]:
    return list(hooks_of(module)["nvcore_config_sections"](host_info()) or ())


def _check_section(section: Any, who: str) -> None:
    if not isinstance(section, ConfigSection):
        return  # told with the other offers
    if not attrs.has(section.record):
        broken("module-config", who, f"the record of section {section.name} is {section.record!r}")
    missing = [field.name for field in attrs.fields(section.record) if field.init and field.default is attrs.NOTHING]
    if missing:
        broken("module-config", who, f"section {section.name} cannot be left out: no default for {', '.join(missing)}")
    with calling("module-config", who, f"making the record of section {section.name} from its defaults"):
        section.record()


def _check_interface(offer: InterfaceOffer, who: str) -> None:
    if (offer.name + ".").startswith("io.nvcore.") and not who.startswith("nvcore_"):
        broken("module-interface", who, f"{offer.name} is a name of nvcore's own; take a reverse domain of yours, as in org.example.Name")
    said = _INTERFACE.findall(offer.text) if isinstance(offer.text, str) else []
    if said != [offer.name]:
        broken("module-interface", who, f"the offer's name is {offer.name}, its text says interface {', '.join(said) or 'nothing'}")
    sets = offer.observe, offer.control
    if not all(isinstance(one, frozenset | set) for one in sets):
        broken("module-interface", who, f"{offer.name}: observe and control are {sets}; they are sets of method names")
    methods = sorted(methods_of(offer.text))  # as the daemon reads them
    if methods != sorted([*offer.observe, *offer.control]):
        seen = f"methods {methods}, observe {sorted(offer.observe)}, control {sorted(offer.control)}"
        broken("module-interface", who, f"{offer.name}: {seen}; each method begins a line, once, and is in one of the two sets")
    for name in methods:
        if not hasattr(offer.handler, name):
            broken("module-interface", who, f"{offer.name}: the handler has no {name}")
        wrong = _refuses(getattr(offer.handler, name), 1)
        if wrong:
            broken("module-interface", who, f"{offer.name}: the handler's {name} {wrong}")


def _refuses(call: Any, count: int) -> str:
    """Why something cannot be called with so many arguments; empty where it can."""
    if not callable(call):
        return f"is {call!r}, which cannot be called"
    try:
        signature = inspect.signature(call)
    except ValueError:  # what is not Python's says nothing about its arguments
        return ""
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return f"is called with {count} argument{'s'[: count != 1]}, and takes {signature}"
    return ""
