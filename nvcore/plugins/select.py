"""Select: from the index and the operator's words to the plugins that may be imported, before any import.

Owns the rules of precedence: `--no-plugins` over `-p no:NAME` and `[plugins] disable` over `--only` over `[plugins] only` over "all".
Pure, any thread. A name is a plugin's name or its distribution's. Never imports a plugin, attrs or pluggy.
"""

from __future__ import annotations

from nvcore.api import GENERATIONS
from nvcore.plugins.names import normalise
from nvcore.plugins.requires import RequirementSyntax, check
from nvcore.plugins.states import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nvcore.plugins.index import Distribution, EntryPoint, Index

__all__ = ["Selection", "inventory", "select"]


class Selection:
    """What the operator asked for. only: names to keep, or None for all; disabled: name to where that was said; required: must work."""

    __slots__ = ("disabled", "none", "only", "only_by", "required")

    def __init__(
        self,
        only: Iterable[str] | None = None,
        *,
        disabled: Mapping[str, str] | Iterable[str] = (),
        required: Iterable[str] = (),
        none: bool = False,
        only_by: str = "--only",
    ) -> None:
        self.only = None if only is None else {normalise(name) for name in only}
        self.only_by = only_by
        pairs = dict.fromkeys(disabled, "-p no:") if not isinstance(disabled, dict) else disabled
        self.disabled = {normalise(name): why for name, why in pairs.items()}
        self.required = {normalise(name) for name in required}
        self.none = none

    def under(self, only: Iterable[str] | None, disable: Iterable[str], required: Iterable[str]) -> Selection:
        """This selection (the command line's) laid over the configuration's `[plugins]` lists."""
        disabled = {**dict.fromkeys(map(normalise, disable), "[plugins] disable"), **self.disabled}
        if self.only is not None or only is None:
            return Selection(self.only, disabled=disabled, required={*required, *self.required}, none=self.none, only_by=self.only_by)
        return Selection(only, disabled=disabled, required={*required, *self.required}, none=self.none, only_by="[plugins] only")


def inventory(index: Index) -> list[Plugin]:
    """Every plugin that the index knows, sorted by name, in state found, incompatible or failed (a name claimed twice)."""
    versions = index.versions()
    plugins: list[Plugin] = []
    for dist in index.plugins():
        of_name: dict[str, list[EntryPoint]] = {}
        commands = {point.name: point.value for point in dist.entry_points if _spoken(point) and point.family == "command"}
        for point in dist.entry_points:
            if point.family != "command":
                of_name.setdefault(point.name, []).append(point)
        if not of_name:
            of_name[dist.name] = [point for point in dist.entry_points if not _spoken(point)]
        for name, points in of_name.items():
            plugins.append(_plugin(name, dist, points, commands, versions))
    plugins.sort(key=lambda plugin: (plugin.name, plugin.distribution))
    _duplicates(plugins)
    return plugins


def _spoken(point: EntryPoint) -> bool:
    return GENERATIONS.get(point.family) == point.generation


def _plugin(name: str, dist: Distribution, points: list[EntryPoint], commands: dict[str, str], versions: dict[str, str]) -> Plugin:
    plugin = Plugin(name, dist.spelled, dist.version, dist.location)
    plugin.commands = commands
    for point in points:
        if _spoken(point):
            plugin.families[point.family] = point
    for point in points:
        if point.family not in plugin.families and plugin.state == "found":
            _other_generation(plugin, point)
    for place in dist.shadowed:
        plugin.notes.append(f"shadows {place}")
    if dist.hidden:
        plugin.hidden = True
        other = f"; it sees {dist.instead}" if dist.instead else ""
        plugin.notes.append(f"not seen by the daemon: {dist.hidden}{other} (NVC-1117)")
    if plugin.state == "found":
        try:
            missing = check(dist.spelled, dist.requires, versions)
        except RequirementSyntax as error:
            plugin.end("incompatible", "NVC-1110", f"a requirement cannot be understood: {error}", f"reinstall {dist.spelled}")
        else:
            if missing is not None:
                plugin.end("incompatible", "NVC-1105", f"requires {missing.expected}; seen {missing.seen}", missing.remedy)
    return plugin


def _other_generation(plugin: Plugin, point: EntryPoint) -> None:
    ours = GENERATIONS.get(point.family)
    if ours is None:
        reason = f"is of family {point.family!r}, which this host does not have"
        remedy = "pip install --upgrade nvcore"
    elif point.generation > ours:
        reason = f"speaks generation {point.generation} of {point.family}; this host speaks {ours}: the host is the older side"
        remedy = "pip install --upgrade nvcore"
    else:
        reason = f"speaks generation {point.generation} of {point.family}; this host speaks {ours}: the plugin is the older side"
        remedy = f"pip install --upgrade {plugin.distribution}"
    plugin.end("incompatible", "NVC-1104", reason, remedy)


def _duplicates(plugins: list[Plugin]) -> None:
    """Two distributions claim one plugin name, or one noun: neither is chosen silently."""
    names: dict[str, list[Plugin]] = {}
    nouns: dict[str, list[Plugin]] = {}
    for plugin in plugins:
        names.setdefault(plugin.name, []).append(plugin)
        for noun in plugin.commands:
            nouns.setdefault(noun, []).append(plugin)
    for same in names.values():
        for plugin in same if len(same) > 1 else ():
            plugin.key = f"{plugin.name}@{normalise(plugin.distribution)}"
    for noun, same in nouns.items():
        claimants = sorted({plugin.distribution for plugin in same})
        for plugin in same if len(claimants) > 1 else ():
            plugin.conflicts.append(f"command {noun!r} is offered by {' and '.join(claimants)}; neither is used (NVC-1106)")


def _clash(plugins: list[Plugin]) -> None:
    """Fail those that are still wanted under one name; one of two that was disabled leaves the other alone."""
    names: dict[str, list[Plugin]] = {}
    for plugin in plugins:
        if plugin.state == "selected":
            names.setdefault(plugin.name, []).append(plugin)
    for name, same in names.items():
        claimants = " and ".join(plugin.distribution for plugin in same)
        for plugin in same if len(same) > 1 else ():
            other = next(twin.distribution for twin in same if twin is not plugin)
            plugin.end(
                "failed",
                "NVC-1106",
                f"the name {name!r} is claimed by {claimants}; neither is loaded",
                f"pip uninstall {other}, or -p no:{other}",
            )


def select(plugins: list[Plugin], selection: Selection) -> list[Plugin]:
    """Apply `selection` to the inventory in place; names asked for and not installed are added as failed. Returns the list."""
    known: set[str] = set()
    for plugin in plugins:
        names = {normalise(plugin.name), normalise(plugin.distribution)}
        known |= names
        plugin.required = bool(names & selection.required)
        why = next((f"{said}{name}" if said.endswith(":") else said for name, said in selection.disabled.items() if name in names), None)
        if selection.none:
            why = "--no-plugins"
        elif why is None and selection.only is not None and not names & selection.only:
            why = f"not in {selection.only_by}"
        if why is not None:
            plugin.state, plugin.code, plugin.reason, plugin.remedy = "disabled", None, why, None
        elif plugin.state == "found":
            plugin.state = "selected"
            plugin.selected_by = "default" if selection.only is None else selection.only_by
    _clash(plugins)
    if not selection.none:
        installed = ", ".join(sorted({plugin.name for plugin in plugins})) or "none"
        for name in sorted(((selection.only or set()) | selection.required) - known):
            absent = Plugin(name, "", "", "")
            by = selection.only_by if name in (selection.only or ()) else "[plugins] required"
            absent.required = name in selection.required
            absent.end(
                "failed",
                "NVC-1115",
                f"asked for by {by}, and not installed",
                f"install the distribution that provides it, or correct the name; installed: {installed}",
            )
            plugins.append(absent)
    return plugins
