"""`nvcore explain CODE`: cause and remedy of a problem, offline. Main thread; reads text files, imports no plugin.

Pages lie in `nvcore/explain/NVC-….md` and in the folder `explain` of each plugin's package, found through the index.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from nvcore.api.errors import NotFoundError
from nvcore.cli.context import Context
from nvcore.plugins.index import Index, scan


def explain(context: Context) -> int:
    """Print the page of a code; without a code, every code with the first line of its page."""
    texts = {code: path.read_text("utf-8") for code, path in sorted(_pages(scan()).items())}
    if not context.given.words:
        context.out("".join(f"{code}  {(text + ' ').splitlines()[0].partition(': ')[2].strip()}\n" for code, text in texts.items()))
        return 0
    code = "NVC-" + context.given.words[0].upper().removeprefix("NVC-")
    if code not in texts:
        raise NotFoundError(f"no page for {code}", remedy="nvcore explain lists every code; a page of a plugin comes with the plugin")
    context.out(texts[code].removesuffix("\n") + "\n")
    return 0


def _pages(index: Index) -> dict[str, Path]:
    """Code to its page: those in the folder `explain` of the core and of each plugin's package, without importing it."""
    objects = [point.value for dist in index.plugins() for point in dist.entry_points]
    found: dict[str, Path] = {}
    for package in dict.fromkeys(["nvcore", *(place.replace(":", ".").partition(".")[0].strip() for place in objects)]):
        with suppress(ImportError, ValueError):
            spec = find_spec(package)  # a top-level name: nothing is imported for it
            for folder in (spec and spec.submodule_search_locations) or ():
                found = {**{path.stem: path for path in Path(folder, "explain").glob("NVC-*.md")}, **found}
    return found
