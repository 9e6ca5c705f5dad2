"""Select: from the index and the operator's words to the plugins that may be imported, before any import.

Owns the rules of precedence: `--no-plugins` over `-p no:NAME` and `[plugins] disable` over `--only` over `[plugins] only` over "all".
Pure, any thread. A name is a plugin's name or its distribution's. Never imports a plugin, attrs or pluggy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nvcore import __version__
from nvcore.api import GENERATIONS
from nvcore.plugins.index import Distribution, EntryPoint, Index
from nvcore.plugins.names import did_you_mean, normalise
from nvcore.plugins.states import Plugin
from nvcore.plugins.versions import VersionSyntax, check


class Selection:
    """What the operator asked for. only: names to keep, or None for all, and `only_by`, where that was said; disabled: names, or each name
    and where that was said; required: must work; none: no plugin at all."""

    def __init__(
        self, only: Iterable[str] | None = None, *, disabled: Mapping[str, str] | Iterable[str] = (), required: Iterable[str] = (),
        none: bool = False, only_by: str = "--only",
    ) -> None:  # fmt: skip
        said = disabled if isinstance(disabled, Mapping) else {name: f"-p no:{name}" for name in disabled}
        self.only, self.only_by, self.none = None if only is None else set(map(normalise, only)), only_by, none
        self.disabled, self.required = {normalise(name): why for name, why in said.items()}, set(map(normalise, required))

    def under(self, only: Iterable[str] | None, disable: Iterable[str], required: Iterable[str]) -> Selection:
        """This selection (the command line's) laid over the configuration's `[plugins]` lists."""
        disabled = {**dict.fromkeys(map(normalise, disable), "[plugins] disable"), **self.disabled}
        wanted, by = (self.only, self.only_by) if self.only is not None or only is None else (only, "[plugins] only")
        return Selection(wanted, disabled=disabled, required={*required, *self.required}, none=self.none, only_by=by)

    def against(self, names: set[str]) -> str | None:
        """Why a plugin of these names is left out; None where it is not."""
        if self.none:
            return "--no-plugins"
        left_out = None if self.only is None or names & self.only else f"not in {self.only_by}"
        return next((why for name, why in self.disabled.items() if name in names), left_out)


def inventory(index: Index) -> list[Plugin]:
    """Every plugin that the index knows, sorted by name, in state found, incompatible or failed (a name claimed twice)."""
    versions = {**{name: dist.version for name, dist in index.distributions.items()}, "nvcore": __version__}  # the host's is what runs
    plugins: list[Plugin] = []
    for dist in index.plugins():
        names = dict.fromkeys(point.name for point in dist.entry_points if point.family != "command")
        plugins += [_plugin(name, dist, versions) for name in names or [dist.name]]  # one of commands alone goes by its distribution
    plugins.sort(key=lambda plugin: (plugin.name, plugin.distribution))
    _duplicates(plugins)
    return plugins


def _spoken(point: EntryPoint) -> bool:
    return GENERATIONS.get(point.family) == point.generation


def _plugin(name: str, dist: Distribution, versions: dict[str, str]) -> Plugin:
    plugin = Plugin(name, dist.spelled, dist.version, dist.location)
    plugin.hidden = bool(dist.hidden)
    points = [point for point in dist.entry_points if point.name == name and point.family != "command"] or dist.entry_points
    plugin.families = {point.family: point for point in points if _spoken(point) and point.family != "command"}
    plugin.commands = {point.name: point.value for point in dist.entry_points if _spoken(point) and point.family == "command"}
    for point in points:
        if not _spoken(point) and point.family not in plugin.families:
            _other_generation(plugin, point)
    plugin.notes = [f"shadows {other.metadata}" for other in dist.shadowed]
    if dist.hidden:
        other = next((f"; it sees {other.metadata}" for other in dist.shadowed if not other.hidden), "")
        plugin.notes.append(f"not seen by the daemon: {dist.hidden}{other} (NVC-1117)")
    if plugin.state == "found":
        try:
            if missing := check(dist.spelled, dist.requires, versions):
                plugin.end("incompatible", "NVC-1105", *missing)
        except VersionSyntax as error:
            plugin.end("incompatible", "NVC-1110", f"a requirement cannot be understood: {error}", f"reinstall {dist.spelled}")
    return plugin


def _other_generation(plugin: Plugin, point: EntryPoint) -> None:
    ours = GENERATIONS.get(point.family)
    older, mended = ("plugin", plugin.distribution) if point.generation < (ours or 0) else ("host", "nvcore")
    reason = f"speaks generation {point.generation} of {point.family}; this host speaks {ours}: the {older} is the older side"
    if ours is None:
        reason = f"is of family {point.family!r}, which this host does not have"
    plugin.end("incompatible", "NVC-1104", reason, f"pip install --upgrade {mended}")


def _duplicates(plugins: list[Plugin]) -> None:
    """Two distributions claim one plugin name, or one noun: neither is chosen silently."""
    for plugin in plugins:
        if any(twin.name == plugin.name for twin in plugins if twin is not plugin):
            plugin.key = f"{plugin.name}@{normalise(plugin.distribution)}"
        for noun in plugin.commands:
            claimants = sorted({twin.distribution for twin in plugins if noun in twin.commands})
            if len(claimants) > 1:
                plugin.conflicts.append(f"command {noun!r} is offered by {' and '.join(claimants)}; neither is used (NVC-1106)")


def select(plugins: list[Plugin], selection: Selection) -> list[Plugin]:
    """Apply `selection` to the inventory in place; names that are not installed are added: as failed where they were asked for, as disabled
    where they were to be left out. Returns the list."""
    known: set[str] = set()
    for plugin in plugins:
        names = {normalise(plugin.name), normalise(plugin.distribution)}
        known |= names
        plugin.required = bool(names & selection.required)
        if why := selection.against(names):
            plugin.state, plugin.code, plugin.reason, plugin.remedy = "disabled", None, why, None
        elif plugin.state == "found":
            plugin.state = "selected"
            plugin.selected_by = "default" if selection.only is None else selection.only_by
    wanted = [plugin for plugin in plugins if plugin.state == "selected"]  # one of two namesakes that was disabled leaves the other alone
    for plugin in wanted:
        if others := [twin.distribution for twin in wanted if twin.name == plugin.name and twin is not plugin]:
            reason = f"the name {plugin.name!r} is claimed by {' and '.join(sorted([plugin.distribution, *others]))}; neither is loaded"
            plugin.fail("NVC-1106", reason, f"pip uninstall {others[0]}, or -p no:{others[0]}")
    asked = {**dict.fromkeys(selection.required, "[plugins] required"), **dict.fromkeys(selection.only or (), selection.only_by)}
    installed = ", ".join(sorted({plugin.name for plugin in plugins})) or "none"
    for name in sorted({*asked, *selection.disabled} - known) if not selection.none else ():
        absent = Plugin(name, "", "", "")
        absent.required = name in selection.required
        remedy = f"install the distribution that provides it, or correct the name; installed: {installed}"
        if name in selection.disabled:
            meant = did_you_mean(name, known, "nothing is left out by it")
            absent.end("disabled", None, f"{selection.disabled[name]}, and not installed; {meant}", None)
        else:
            absent.fail("NVC-1115", f"asked for by {asked[name]}, and not installed", remedy)
        plugins.append(absent)
    return plugins
