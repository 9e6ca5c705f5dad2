"""`nvcore explain CODE`: cause and remedy of a problem, offline. Main thread; reads text files, imports no plugin.

Pages lie in `nvcore/explain/NVC-….md` and in the folder `explain` of each plugin's package, found through the index.
"""

from __future__ import annotations

import os
from glob import escape, glob
from importlib.util import find_spec

from nvcore.api.errors import NotFoundError
from nvcore.cli.context import Context
from nvcore.plugins.index import Index, scan


def explain(context: Context) -> int:
    """Print the page of a code; without a code, every code with the first line of its page."""
    found = _pages(scan())
    if not context.given.words:
        for code in sorted(found):
            with open(found[code], encoding="utf-8") as file:
                context.out(f"{code}  {file.readline().lstrip('# ').partition(': ')[2].strip()}\n")
        return 0
    code = context.given.words[0].upper()
    code = code if code.startswith("NVC-") else f"NVC-{code}"
    if code not in found:
        raise NotFoundError(f"no page for {code}", remedy="nvcore explain lists every code; a page of a plugin comes with the plugin")
    with open(found[code], encoding="utf-8") as file:
        context.out(file.read().removesuffix("\n") + "\n")
    return 0


def _pages(index: Index) -> dict[str, str]:
    """Code to the path of its page: those in the folder `explain` of the core and of each plugin's package, without importing it."""
    objects = [point.value for dist in index.plugins() for point in dist.entry_points]
    packages = ["nvcore", *(place.replace(":", ".").partition(".")[0].strip() for place in objects)]
    found: dict[str, str] = {}
    for package in dict.fromkeys(packages):
        try:
            spec = find_spec(package)  # a top-level name: nothing is imported for it
        except (ImportError, ValueError):
            continue
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in glob(os.path.join(escape(folder), "explain", "NVC-*.md")):
                found.setdefault(os.path.basename(path)[:-3], path)
    return found
