"""What is on the disk: files of distributions, importable names, and what an uninstall left behind.

Reads folders on `sys.path` and RECORD files; imports nothing, changes nothing. Any thread. Used by `footprint` only.
Source: PyPA recording installed projects; setuptools' editable finders (`MAPPING` in the module of the finder).
"""

from __future__ import annotations

import csv
import os
import sys

from nvcore.plugins.index import Index

__all__ = ["importable", "recorded", "residue"]

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
    for dist in index.distributions.values():
        for metadata in (dist.metadata, *dist.shadowed):
            names = {path.partition("/")[0] for path in recorded(metadata) if not path.startswith("..")}
            owned.setdefault(os.path.dirname(metadata), set()).update(names, [os.path.basename(metadata)])
    found = list(index.leftovers)
    for folder, here in index.folders.items():
        if folder in owned and any(name.endswith(".dist-info") for name in here):  # only folders that hold installed distributions
            ours = [name for name in here if name.startswith("nvcore_") and name not in owned[folder]]
            found += [os.path.join(folder, name) for name in ours if _module_name(folder, name) is not None]
    return found
