"""What changed on the disk since a host started: its snapshot of plugins compared with a fresh index. Pure; any thread."""

from __future__ import annotations

from typing import Any

from nvcore.plugins.index import Index
from nvcore.plugins.names import normalise
from nvcore.plugins.select import inventory


def changes_on_disk(running: list[dict[str, Any]], index: Index) -> None:
    """Compare `PluginHost.states()` of a running host with `index`; each difference is one sentence, added to the notes of the row that it
    is about; a plugin that only the disk has becomes a row of state found."""
    fresh = {(plugin.name, normalise(plugin.distribution)): plugin for plugin in inventory(index)}

    def note(row: dict[str, Any], what: str) -> None:
        row["notes"] = [*row["notes"], f"{row['name']}: {what}"]

    for row in running:
        plugin = fresh.pop((row["name"], normalise(row["distribution"])), None)
        if not row["distribution"] or (plugin is not None and plugin.hidden):
            continue  # asked for and never installed, or a copy that a restart would not find
        if plugin is None:
            note(row, "removed from the disk, still running; restart needed")
        elif plugin.version != row["version"]:
            note(row, f"{plugin.version} on disk, {row['version']} running; restart needed")
        elif plugin.as_dict()["families"] != row["families"]:
            note(row, "other entry points on disk; restart needed")
    for plugin in fresh.values():
        running.append(plugin.as_dict())
        if not plugin.hidden:  # its notes say already that no restart would find it
            note(running[-1], "new on disk, restart needed")
