"""Register: a plugin's objects with pluggy, all or nothing, and nothing that is misspelt or undeclared.

Owns the checks that pluggy does not make: an unknown hook name, a hook of a family that the plugin does not declare, a forgotten marker, a
wrapper (the collect loop has none). Main thread. Calls no hook.
"""

from __future__ import annotations

from types import FunctionType, ModuleType
from typing import Any

from pluggy import HookImpl, HookimplOpts, PluginManager

from nvcore.api.hooks import SPECIFICATIONS
from nvcore.plugins.names import did_you_mean
from nvcore.plugins.states import Plugin

__all__ = ["HOOKS", "implementations", "manager_with_hooks", "register", "unregister"]

HOOKS: dict[str, str] = {name: family for family, spec in SPECIFICATIONS.items() for name in vars(spec) if name.startswith("nvcore_")}
"""Hook to its family."""


class _Manager(PluginManager):
    """Evaluates no property of a plugin while it looks for hooks; pluggy before 1.7 does."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> HookimplOpts | None:
        if isinstance(getattr(type(plugin), name, None), property):
            return None
        return super().parse_hookimpl_opts(plugin, name)


def manager_with_hooks() -> PluginManager:
    """A plugin manager that knows every specification of `nvcore.api.hooks`."""
    manager = _Manager("nvcore")
    for specification in SPECIFICATIONS.values():
        manager.add_hookspecs(specification)
    return manager


def _marks(target: object) -> dict[str, dict[str, Any]]:
    """Names in `target` that carry the hook marker, with its options; properties are not evaluated."""
    found: dict[str, dict[str, Any]] = {}
    spaces = [vars(target)] if isinstance(target, ModuleType) else [vars(cls) for cls in type(target).__mro__]
    for space in spaces:
        for name, value in space.items():
            options = getattr(value, "nvcore_impl", None) if isinstance(value, FunctionType) else None
            if isinstance(options, dict):
                found.setdefault(name, options)
    return found


def _refuse(plugin: Plugin, objects: dict[str, object]) -> tuple[str, str, str] | None:
    """The first thing wrong with the objects: code, reason, remedy."""
    author = f"report it to the authors of {plugin.distribution}"
    for family, target in objects.items():
        marks = _marks(target)
        for name, options in marks.items():
            if name not in HOOKS:
                if options.get("optionalhook"):
                    continue
                meant = did_you_mean(name, HOOKS, f"hooks are {', '.join(HOOKS)}")
                return "NVC-1107", f"implements {name}, which is no hook; {meant}", f"correct the name; {author}"
            if options.get("wrapper") or options.get("hookwrapper"):
                return "NVC-1113", f"{name} is a wrapper; hooks of this host have none", f"make it an ordinary hook; {author}"
            if HOOKS[name] not in objects:
                reason = f"implements {name} of family {HOOKS[name]}, but its entry points are of {', '.join(sorted(objects))} only"
                return "NVC-1113", reason, f"add an entry point {plugin.name!r} of group nvcore.{HOOKS[name]}.v1; {author}"
        for name, value in vars(target).items() if isinstance(target, ModuleType) else ():
            if name in HOOKS and name not in marks and isinstance(value, FunctionType):
                reason = f"{name} is defined and not marked, so nobody would call it"
                return "NVC-1107", reason, f"mark it with @nvcore.api.hookimpl; {author}"
        if not marks and family in SPECIFICATIONS:
            return "NVC-1113", f"its entry point of family {family} implements no hook", author
    return None


def register(manager: PluginManager, plugin: Plugin, objects: dict[str, object]) -> None:
    """Register every object of `plugin`; its state becomes registered or failed. All or nothing."""
    if wrong := _refuse(plugin, objects):
        plugin.fail(*wrong)
        return
    done: list[object] = []
    try:
        for family, target in objects.items():
            if not any(target is one for one in done):  # one object may serve two families
                manager.register(target, name=f"{plugin.key}/{family}")
                done.append(target)
    except Exception as error:  # isolation boundary: plugin import
        unregister(manager, plugin)  # the refused object too: before 1.7 pluggy leaves what it had taken of it
        plugin.fail("NVC-1113", f"registration refused: {str(error).splitlines()[-1] if str(error) else type(error).__name__}")
        return
    plugin.hooks = sorted({name for target in objects.values() for name in _marks(target)})
    plugin.state = "registered"


def implementations(manager: PluginManager, hook: str, plugin: Plugin) -> list[HookImpl]:
    """A plugin's implementations of a hook."""
    return [one for one in getattr(manager.hook, hook).get_hookimpls() if one.plugin_name.rpartition("/")[0] == plugin.key]


def unregister(manager: PluginManager, plugin: Plugin) -> None:
    """Take every object of `plugin` out again; one that is not in is no error."""
    for family in plugin.families:
        if manager.has_plugin(f"{plugin.key}/{family}"):
            manager.unregister(name=f"{plugin.key}/{family}")
