"""Footprint: what is on the disk, what each plugin brought (distributions, modules, memory, descriptors), what the operator denies.

`footprint` imports the selected plugins, one by one, in the process of the caller, which should be one of its own; main thread. All else
reads folders on `sys.path` and RECORD files, imports nothing and changes nothing; any thread.
Source: PyPA recording installed projects; setuptools' editable finders (`MAPPING` in the module of the finder); proc(5), statm.
"""

from __future__ import annotations

import csv
import fnmatch
import os
import sys
from contextlib import suppress
from typing import Any

from nvcore.plugins.index import Index
from nvcore.plugins.loader import load_objects
from nvcore.plugins.names import normalise
from nvcore.plugins.states import Plugin
from nvcore.plugins.versions import VersionSyntax, applies, parse

_SUFFIXES = (".py", ".pyc", ".so", ".pyd")


def recorded(metadata: str) -> list[str]:
    """Files of a distribution by its RECORD or SOURCES-like list, relative to its folder; empty where there is no list."""
    for name in ("RECORD", "installed-files.txt", "top_level.txt"):
        try:
            with open(os.path.join(metadata, name), encoding="utf-8", newline="") as file:
                return [row[0].strip() for row in csv.reader(file) if row]
        except (OSError, UnicodeDecodeError, csv.Error):
            continue
    return []


def _module_name(folder: str, name: str) -> str | None:
    """The name under which an entry of a path folder can be imported; folders without code count too, they are namespaces."""
    stem = name.partition(".")[0]
    code = name.endswith(_SUFFIXES) or ("." not in name and os.path.isdir(os.path.join(folder, name)))
    return stem if code and stem.isidentifier() else None


def importable(index: Index) -> dict[str, str]:
    """Every top-level name that can be imported, to where it is: scanned folders, built-in modules, setuptools' editable finders."""
    found: dict[str, str] = dict.fromkeys(sys.builtin_module_names, "built in")
    for folder, names in index.folders.items():
        for name in names:
            if module := _module_name(folder, name):
                found.setdefault(module, os.path.join(folder, name))
    for finder in sys.meta_path:
        mapping = getattr(sys.modules.get(getattr(finder, "__module__", "")), "MAPPING", None)
        for module, place in mapping.items() if isinstance(mapping, dict) else ():
            found.setdefault(str(module).partition(".")[0], str(place))
    return found


def residue(index: Index) -> list[str]:
    """Paths that an uninstall or a broken install left: pip's `~names`, and `nvcore_*` entries that no distribution's record lists.

    A folder that is itself a source tree on the path (an editable install) is not residue: a distribution of another folder claims it.
    """
    owned: dict[str, set[str]] = {}  # folder on the path to the names in it that some distribution's record lists
    for dist in index.copies():
        names = {path.partition("/")[0] for path in recorded(dist.metadata) if not path.startswith("..")}
        owned.setdefault(dist.location, set()).update(names, [os.path.basename(dist.metadata)])
    found = list(index.leftovers)
    for folder, here in index.folders.items():
        if folder in owned and any(name.endswith(".dist-info") for name in here):  # only folders that hold installed distributions
            ours = [name for name in here if name.startswith("nvcore_") and name not in owned[folder]]
            found += [os.path.join(folder, name) for name in ours if _module_name(folder, name) is not None]
    return found


def matches(name: str, pattern: str) -> bool:
    """Whether a glob matches one component of `name` (split at `-`, `_`, `.`), or all of it where the pattern has such a mark."""
    name, pattern = name.lower(), pattern.lower()
    whole = any(mark in pattern for mark in "-_.") and fnmatch.fnmatchcase(name, pattern)
    return whole or any(fnmatch.fnmatchcase(word, pattern) for word in normalise(name).split("-") if word)


def denied(index: Index, patterns: list[str]) -> list[dict[str, str]]:
    """Everything installed, importable, loaded or left behind that matches a pattern: kind, name, of (the distribution or top-level module
    that it is a part of), where, pattern."""
    things = [("distribution", dist.name, dist.name, dist.metadata) for dist in index.distributions.values()]
    things += [("importable module", name, name, where) for name, where in importable(index).items()]
    things += [("loaded module", name, name.partition(".")[0], "") for name in list(sys.modules)]
    things += [("residue", os.path.basename(path), os.path.basename(path), path) for path in residue(index)]
    for dist in index.copies():
        things += [("file", path, dist.name, os.path.join(dist.location, path)) for path in recorded(dist.metadata)]
    found: dict[tuple[str, str], dict[str, str]] = {}
    for pattern in patterns:
        for kind, name, of, where in things:
            if any(matches(part, pattern) for part in name.split("/")):
                name, where = os.path.basename(name), where and os.path.normpath(where)
                found.setdefault((kind, where or name), {"kind": kind, "name": name, "of": of, "where": where, "pattern": pattern})
    return [found[key] for key in sorted(found)]


def _held() -> tuple[int, int]:
    """Resident bytes and open descriptors of this process."""
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
            with suppress(VersionSyntax):  # `plugins list` reports it
                wanted += [normalise(name) for name, _, marker in map(parse, dist.requires) if applies(marker)]
    return names


def footprint(index: Index, plugin: Plugin) -> dict[str, Any]:
    """Import a selected plugin, whose state becomes imported or failed, and say what that brought: a row of schema nvcore.footprint/1. What
    only an import can tell is None without one."""
    from nvcore.api import hooks, offers  # noqa: F401  # the host's own share, so that the first plugin is not charged with it

    names = _brought(index, normalise(plugin.distribution))
    metadata = [index.distributions[one].metadata for one in names]
    paths = [os.path.join(os.path.dirname(place), path) for place in metadata for path in recorded(place)]
    sizes = [os.path.getsize(path) for path in paths if os.path.exists(path)]
    (memory, descriptors), before = _held(), set(sys.modules)  # in this order: asking imports too
    if plugin.state == "selected":
        load_objects(plugin)
    new = sorted(set(sys.modules) - before)
    memory_now, descriptors_now = _held()
    brought = {"module_count": len(new), "memory_bytes": memory_now - memory, "descriptors": descriptors_now - descriptors}
    row = {"name": plugin.name, "state": plugin.state, "distributions": names, "files": len(sizes), "disk_bytes": sum(sizes)}
    return {**row, "modules": new, **(brought if plugin.import_ms is not None else dict.fromkeys(brought)), "import_ms": plugin.import_ms}
