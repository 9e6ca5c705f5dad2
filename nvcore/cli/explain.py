"""`nvcore explain CODE`: cause and remedy of a problem, offline. Main thread; reads text files, imports no plugin.

Pages lie in `nvcore/explain/NVC-….md` and in the folder `explain` of each plugin's package, found through the index.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nvcore.cli.args import Arguments
    from nvcore.cli.context import Context
    from nvcore.cli.verbs import Noun
    from nvcore.plugins.index import Index

__all__ = ["NOUNS", "page_folders", "pages"]


_HELP = "usage: nvcore explain [CODE]\n\nCause and remedy of a problem, as in NVC-1104 or 1104; without a code, all of them.\n"


def _explain(given: Arguments, output: str, context: Context) -> int:
    """Print the page of a code; without a code, every code with the first line of its page."""
    from nvcore.plugins.index import scan

    found = pages(scan())
    if not given.words:
        context.out("".join(f"{code}  {_title(found[code])}\n" for code in sorted(found)))
        return 0
    code = given.words[0].upper()
    code = code if code.startswith("NVC-") else f"NVC-{code}"
    if code not in found:
        from nvcore.api.errors import NotFoundError

        raise NotFoundError(f"no page for {code}", remedy="nvcore explain lists every code; a page of a plugin comes with the plugin")
    with open(found[code], encoding="utf-8") as file:
        context.out(file.read().removesuffix("\n") + "\n")
    return 0


def _title(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.readline().lstrip("# ").partition(": ")[2].strip()


def page_folders(index: Index) -> list[str]:
    """Folders that may hold pages: the core's, then `explain` beside each plugin's modules, without importing them."""
    import nvcore

    folders = [os.path.join(os.path.dirname(nvcore.__file__), "explain")]
    for dist in index.plugins():
        for point in dist.entry_points:
            folder = _package_folder(point.module.partition(".")[0], dist.location)
            if folder is not None and os.path.join(folder, "explain") not in folders:
                folders.append(os.path.join(folder, "explain"))
    return folders


def _package_folder(package: str, location: str) -> str | None:
    """Where a top-level package lies. `find_spec` of a top-level name imports nothing."""
    beside = os.path.join(location, package)
    if os.path.isdir(beside):
        return beside
    from importlib.util import find_spec

    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return places[0] if places else None


def pages(index: Index) -> dict[str, str]:
    """Code to the path of its page; the core's own win."""
    found: dict[str, str] = {}
    for folder in page_folders(index):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            if name.startswith("NVC-") and name.endswith(".md"):
                found.setdefault(name[:-3], os.path.join(folder, name))
    return found


NOUNS: dict[str, Noun] = {"explain": (_HELP, "", {"": (_explain, {}, (0, 1))})}
