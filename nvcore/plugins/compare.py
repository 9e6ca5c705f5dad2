"""What changed on the disk since a host started: its snapshot of plugins compared with a fresh index. Pure; any thread."""

from __future__ import annotations

from typing import Any

from nvcore.plugins.index import Index
from nvcore.plugins.names import normalise
from nvcore.plugins.select import inventory


def changes_on_disk(running: list[dict[str, Any]], index: Index) -> list[str]:
    """Compare `PluginHost.states()` of a running host with `index`; each difference is one sentence.

    The sentence is also added to the notes of the row that it is about; a plugin that only the disk has becomes a row of state found.
    """
    fresh = {(plugin.name, normalise(plugin.distribution)): plugin for plugin in inventory(index)}
    changes: list[tuple[dict[str, Any], str]] = []
    for row in running:
        plugin = fresh.pop((row["name"], normalise(row["distribution"])), None)
        if not row["distribution"] or (plugin is not None and plugin.hidden):
            continue  # asked for and never installed, or a copy that a restart would not find
        if plugin is None:
            changes.append((row, "removed from the disk, still running; restart needed"))
        elif plugin.version != row["version"]:
            changes.append((row, f"{plugin.version} on disk, {row['version']} running; restart needed"))
        elif plugin.as_dict()["families"] != row["families"]:
            changes.append((row, "other entry points on disk; restart needed"))
    for plugin in fresh.values():
        running.append(plugin.as_dict())
        if not plugin.hidden:  # its notes say already that no restart would find it
            changes.append((running[-1], "new on disk, restart needed"))
    for row, what in changes:
        row["notes"] = [*row["notes"], f"{row['name']}: {what}"]
    return [f"{row['name']}: {what}" for row, what in changes]
