"""The contract checks of a plugin module: its hooks, what they return, what it imports.

Owns nothing. The test's thread; calls each hook twice, as a host would once. Does not open what an offer can open: `check_client` and
`check_backend` do.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

import attrs

from nvcore.api import offers as records
from nvcore.api.offers import CheckOffer, ConfigSection, Finding, InterfaceOffer, PanelOffer
from nvcore.plugins.hooks import HOOKS, OFFERS
from nvcore.testing.contract import broken, calling, untouched
from nvcore.testing.modules import hooks_of, host_info, offers_of

__all__ = ["check_plugin_module"]

_ROOMS: Final = ("api", "hw", "vmm", "locks", "vfio_user")
_METHOD: Final = re.compile(r"^\s*method\s+(\w+)", re.MULTILINE)


def check_plugin_module(module: ModuleType, *others: ModuleType, config: object = None, call: bool = True) -> dict[str, list[Any]]:
    """Hold a plugin module against the contract of hooks; raises BrokenContract naming the first clause that it breaks.

    others: further modules of the same plugin, such as the one of its operator family. config: the plugin's record; None = the defaults of
    its own section. call: also run the panels' snapshots and the checks that need no host. Returns the offers by hook.
    Source: `nvcore.api.hooks`, DESIGN sections 2 and 3.
    """
    modules, who = (module, *others), module.__name__
    for one in modules:
        _check_imports(one, one.__name__)
        _check_hooks(one, one.__name__)
    offers = _check_answers(modules, who, config)
    for name, group in offers.items():
        _check_offers(name, group, who)
    if call:
        for panel in offers.get("nvcore_status_panels", ()):
            _check_panel(panel, who)
        for check in offers.get("nvcore_doctor_checks", ()):
            _check_check(check, who)
    return offers


def _check_hooks(module: ModuleType, who: str) -> None:
    hooks = hooks_of(module)
    for name, value in vars(module).items():
        if name in HOOKS and isinstance(value, FunctionType) and name not in hooks:
            broken("module-hooks", who, f"{name} is not marked with @nvcore.api.hookimpl, so nobody calls it")
    for name, hook in hooks.items():
        options = hook.nvcore_impl
        if name not in HOOKS:
            broken("module-hooks", who, f"{name} is no hook; hooks are {', '.join(HOOKS)}")
        if options.get("wrapper") or options.get("hookwrapper"):
            broken("module-hooks", who, f"{name} is a wrapper")
        arguments = list(inspect.signature(hook).parameters)
        if arguments != ["host"]:
            broken("module-hooks", who, f"{name}({', '.join(arguments)})")
    if not hooks:
        broken("module-hooks", who, "no hook at all")


def _check_answers(modules: tuple[ModuleType, ...], who: str, config: object) -> dict[str, list[Any]]:
    for module in modules:
        for section in hooks_of(module).get("nvcore_config_sections", lambda host: ())(host_info()) or ():
            _check_section(section, who)
    answers = [untouched("module-pure", who, "a hook", lambda: offers_of(*modules, config=config)) for _ in range(2)]
    names = [{hook: [getattr(offer, "name", None) for offer in group] for hook, group in answer.items()} for answer in answers]
    if names[0] != names[1]:
        broken("module-pure", who, f"first {names[0]}, then {names[1]}")
    found: dict[str, list[Any]] = answers[0]
    return found


def _check_offers(hook: str, group: list[Any], who: str) -> None:
    record = getattr(records, OFFERS[hook])
    for offer in group:
        if not isinstance(offer, record):
            broken("module-offers", who, f"{hook} returned a {type(offer).__name__} where {record.__name__} belongs")
        if not offer.name or not offer.summary:
            broken("module-offers", who, f"{hook}: name {offer.name!r}, summary {offer.summary!r}")
        if isinstance(offer, InterfaceOffer):
            _check_interface(offer, who)
    names = [offer.name for offer in group]
    if len(set(names)) != len(names):
        broken("module-offers", who, f"{hook} returned one name twice: {', '.join(names)}")


def _check_section(section: Any, who: str) -> None:
    if not isinstance(section, ConfigSection):
        return  # told with the other offers
    if not attrs.has(section.record):
        broken("module-config", who, f"the record of section {section.name} is {section.record!r}")
    missing = [field.name for field in attrs.fields(section.record) if field.init and field.default is attrs.NOTHING]
    if missing:
        broken("module-config", who, f"section {section.name} cannot be left out: no default for {', '.join(missing)}")


def _check_interface(offer: InterfaceOffer, who: str) -> None:
    methods = set(_METHOD.findall(offer.text))
    if offer.observe & offer.control or offer.observe | offer.control != methods:
        seen = f"methods {sorted(methods)}, observe {sorted(offer.observe)}, control {sorted(offer.control)}"
        broken("module-interface", who, f"{offer.name}: {seen}")
    for name in methods:
        if not callable(getattr(offer.handler, name, None)):
            broken("module-interface", who, f"{offer.name}: the handler has no {name}")


def _check_panel(panel: PanelOffer, who: str) -> None:
    with calling("module-panel", who, f"snapshot() of {panel.name}"):
        rows = panel.snapshot()
        json.dumps(rows)
    for row in rows:
        missing = [key for key, _, _ in panel.columns if key not in row]
        if missing:
            broken("module-panel", who, f"a row of {panel.name} has no {', '.join(missing)}")


def _check_check(check: CheckOffer, who: str) -> None:
    with calling("module-check", who, f"check {check.name}"):
        findings = list(check.run())
    for finding in findings:
        if not isinstance(finding, Finding):
            broken("module-check", who, f"check {check.name} gave a {type(finding).__name__}")


def _check_imports(module: ModuleType, who: str) -> None:
    for path in _sources(module):
        for line, name in _nvcore_imports(ast.parse(path.read_text("utf-8"))):
            room = name.split(".")[1] if "." in name else ""
            if room not in _ROOMS:
                broken("module-imports", who, f"{path.name}:{line} imports {name}; public are {', '.join(_ROOMS)}")


def _sources(module: ModuleType) -> list[Path]:
    """The files of a module, or of the whole package that it lies in."""
    if module.__file__ is None:
        return []
    path, top = Path(module.__file__), module.__name__.partition(".")[0]
    for _ in range(module.__name__.count(".") if path.name != "__init__.py" else module.__name__.count(".") + 1):
        path = path.parent
    inside = path.is_dir() and path.name == top
    return [found for found in sorted(path.rglob("*.py")) if "tests" not in found.parts] if inside else [Path(module.__file__)]


def _nvcore_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.partition(".")[0] == "nvcore")
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "nvcore":
                yield from ((node.lineno, f"nvcore.{alias.name}") for alias in node.names)
            elif node.module.startswith("nvcore."):
                yield node.lineno, node.module
