"""What changed on the disk since a host started: its snapshot of plugins compared with a fresh index. Pure; any thread."""

from __future__ import annotations

from nvcore.plugins.names import normalise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nvcore.plugins.index import Index

__all__ = ["changes_on_disk"]

_RESTART = "restart needed"


def changes_on_disk(running: list[dict[str, Any]], index: Index) -> list[str]:
    """Compare `PluginHost.states()` of a running host with `index`; each difference is one sentence.

    The sentence is also added to the notes of the row that it is about; a plugin that only the disk has becomes a row of state found.
    """
    from nvcore.plugins.select import inventory

    changes: list[str] = []
    known = {(row["name"], normalise(row["distribution"])): row for row in running}
    fresh = {(plugin.name, normalise(plugin.distribution)): plugin for plugin in inventory(index)}
    for key, row in known.items():
        plugin = fresh.get(key)
        if not row["distribution"] or (plugin is not None and plugin.hidden):
            continue  # asked for and never installed, or a copy that a restart would not find
        if plugin is None:
            change = f"{row['name']}: removed from the disk, still running; {_RESTART}"
        elif plugin.version != row["version"]:
            change = f"{row['name']}: {plugin.version} on disk, {row['version']} running; {_RESTART}"
        elif {family: point.value for family, point in plugin.families.items()} != row["families"]:
            change = f"{row['name']}: other entry points on disk; {_RESTART}"
        else:
            continue
        row["notes"] = [*row["notes"], change]
        changes.append(change)
    for key, plugin in fresh.items():
        if key not in known:
            row = plugin.as_dict()
            running.append(row)
            if not plugin.hidden:  # its notes say already that no restart would find it
                change = f"{plugin.name}: new on disk, {_RESTART}"
                row["notes"] = [*plugin.notes, change]
                changes.append(change)
    return changes
