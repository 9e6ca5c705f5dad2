"""Footprint: what each plugin brought (distributions, modules, memory, descriptors), and whether anything matches what the operator denies.

Imports the selected plugins, one by one, in the process of the caller, which should be a process of its own. Main thread.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import sys
from contextlib import suppress
from typing import Any

from nvcore.plugins.files import importable, recorded, residue
from nvcore.plugins.index import Index
from nvcore.plugins.loader import load_objects
from nvcore.plugins.names import components, normalise
from nvcore.plugins.requires import RequirementSyntax, parse
from nvcore.plugins.states import Plugin
from nvcore.plugins.versions import VersionSyntax

__all__ = ["denied", "footprint", "matches"]


@functools.lru_cache(maxsize=64)
def _literal(pattern: str) -> str:
    """The text in front of the first sign of a glob; every match contains it."""
    return next((pattern[:at] for at, char in enumerate(pattern) if char in "*?["), pattern)


def matches(name: str, pattern: str) -> bool:
    """Whether a glob matches one component of `name` (split at `-`, `_`, `.`), or all of it where the pattern has such a mark."""
    name, pattern = name.lower(), pattern.lower()
    if _literal(pattern) not in name:
        return False  # thousands of files, and hardly one that needs the glob
    return any(fnmatch.fnmatchcase(part, pattern) for part in components(name)) or (
        any(mark in pattern for mark in "-_.") and fnmatch.fnmatchcase(name, pattern)
    )


def denied(index: Index, patterns: list[str]) -> list[dict[str, str]]:
    """Everything installed, importable, loaded or left behind that matches a pattern: kind, name, of (the distribution or top-level module
    that it is a part of), where, pattern."""
    things = [("distribution", dist.name, dist.name, dist.metadata) for dist in index.distributions.values()]
    things += [("importable module", name, name, where) for name, where in importable(index).items()]
    things += [("loaded module", name, name.partition(".")[0], "") for name in list(sys.modules)]
    things += [("residue", os.path.basename(path), os.path.basename(path), path) for path in residue(index)]
    for of, metadata in [(dist.name, metadata) for dist in index.distributions.values() for metadata in (dist.metadata, *dist.shadowed)]:
        things += [("file", path, of, f"{os.path.dirname(metadata)}/{path}") for path in recorded(metadata)]
    found: dict[tuple[str, str], dict[str, str]] = {}
    for pattern in patterns:
        for kind, name, of, where in things:
            if any(matches(part, pattern) for part in name.split("/")):
                name, where = os.path.basename(name), where and os.path.normpath(where)
                found.setdefault((kind, where or name), {"kind": kind, "name": name, "of": of, "where": where, "pattern": pattern})
    return [found[key] for key in sorted(found)]


def _held() -> tuple[int, int]:
    """Resident bytes and open descriptors of this process. Source: proc(5), statm."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE"), len(os.listdir("/proc/self/fd"))


def _brought(index: Index, name: str) -> list[str]:
    """The distribution and those that it requires, the host's own left out: normalised names."""
    names: list[str] = []
    wanted = [name]
    for one in wanted:
        dist = index.distributions.get(one)
        if one not in names and dist is not None and one != "nvcore":
            names.append(one)
            with suppress(RequirementSyntax, VersionSyntax):  # `plugins list` reports it
                wanted += [requirement.name for requirement in map(parse, dist.requires) if requirement.applies()]
    return names


def _bytes(index: Index, names: list[str]) -> tuple[int, int]:
    """Files and bytes on the disk, by the records of the distributions."""
    places = [index.distributions[name].metadata for name in names]
    paths = [os.path.join(os.path.dirname(metadata), path) for metadata in places for path in recorded(metadata)]
    sizes = [os.path.getsize(path) for path in paths if os.path.exists(path)]
    return len(sizes), sum(sizes)


def footprint(index: Index, plugins: list[Plugin]) -> list[dict[str, Any]]:
    """Import every selected plugin and say what that brought. The plugins' states become imported or failed."""
    from nvcore.api import hooks, offers  # noqa: F401  # the host's own share, so that the first plugin is not charged with it

    return [_measured(index, plugin) for plugin in plugins]


def _measured(index: Index, plugin: Plugin) -> dict[str, Any]:
    """One row of schema nvcore.footprint/1; what only an import can tell is None without one."""
    names = _brought(index, normalise(plugin.distribution))
    files, size = _bytes(index, names)
    before, (memory, descriptors) = set(sys.modules), _held()
    if plugin.state == "selected":
        load_objects(plugin)
    new = sorted(set(sys.modules) - before)
    memory_now, descriptors_now = _held()
    brought = {"module_count": len(new), "memory_bytes": memory_now - memory, "descriptors": descriptors_now - descriptors}
    return {
        "name": plugin.name,
        "state": plugin.state,
        "distributions": names,
        "files": files,
        "disk_bytes": size,
        "modules": new,
        **(brought if plugin.import_ms is not None else dict.fromkeys(brought)),
        "import_ms": plugin.import_ms,
    }
