"""`nvcore plugins list|show|footprint|doctor|stop`. Main thread.

`list` and `show` read the index and import no plugin; where a daemon runs they show its states, with what changed on disk since. Kept free
of everything that costs: with the index alone this is under 2.5 bare starts (tests/bench/startup.py). `footprint` and `doctor` import
plugins in this process, which is theirs alone.
"""

from __future__ import annotations

import os

from nvcore.api.errors import NotFoundError, UnreachableError
from nvcore.cli.context import Context
from nvcore.cli.output import cell
from nvcore.plugins.index import Index, scan
from nvcore.plugins.names import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _of_daemon(context: Context, index: Index) -> list[dict[str, Any]] | None:
    """The daemon's states, with notes on what changed on the disk since; None where no daemon answers. Costs one `stat` without one."""
    if not os.path.exists(context.socket):
        return None
    from nvcore.plugins.compare import changes_on_disk

    try:
        found = list(context.call("io.nvcore.Plugin.List")["plugins"])
    except UnreachableError:
        return None  # a socket left behind; what the disk says is the best answer there is
    changes_on_disk(found, index)
    return found


def _registered(context: Context, index: Index) -> list[dict[str, Any]]:
    """Import and register everything selected, and call the hooks."""
    from nvcore.plugins.host import PluginHost, RequiredPluginError

    host = PluginHost("doctor", configuration=context.configuration() if context.has_files else None)
    try:
        with context.aside():
            host.load(context.selection(), index=index)
    except RequiredPluginError as error:
        context.say(f"note: the daemon would not start: {error.what}")
    host.teardown()
    return host.states()


def list_plugins(context: Context) -> int:
    """`nvcore plugins list`, `show` where one is named, and `doctor`, which imports and registers them too where no daemon has."""
    index, names, load = scan(), context.given.words, context.verb == "doctor"
    selects = context.given.values.keys() & {"installed", "only", "p", "none"}  # another set than the daemon's
    found = None if selects else _of_daemon(context, index)
    source = "daemon" if found is not None else "doctor" if load else "index"
    if found is None:
        found = _registered(context, index) if load else [plugin.as_dict() for plugin in context.plugins(index)]
    problems = [] if names else [problem.as_dict() for problem in index.problems]
    if names:
        known, found = [row["name"] for row in found], [row for row in found if names[0] in (row["name"], row["distribution"])]
        if not found:
            raise NotFoundError(f"no plugin {names[0]!r}", remedy=did_you_mean(names[0], known, "nvcore plugins list"))
    if not context.tabular:
        context.view("plugins", found, source=source, problems=problems)
    elif names:
        context.out("".join(f"{key}: {cell(_pairs(value), context.plain)}\n" for row in found for key, value in row.items()))
    else:
        shown = [{**row, "generations": [f"{of}.v{n}" for of, n in row["generations"].items()]} for row in found]
        context.view("plugins", shown)
        context.out(_explained(found, problems))
    wrong = any(row["state"] in ("failed", "incompatible") or row["conflicts"] for row in found)
    refused = source == "doctor" and any(row["required"] and row["state"] != "registered" for row in found)
    return 7 if problems or wrong or refused else 0


def _pairs(value: object) -> object:
    return [f"{key} = {what}" for key, what in value.items()] if isinstance(value, dict) else value


def _explained(found: list[dict[str, Any]], problems: list[dict[str, Any]]) -> str:
    """One paragraph for every plugin or place that the reader should know more about."""
    lines: list[str] = []
    for row in (*found, *({"name": problem["where"], "reason": problem["what"], **problem} for problem in problems)):
        name, more = row["name"], [*row.get("conflicts", ()), *row.get("notes", ())]
        if row.get("distribution"):
            name += f" ({row['distribution']} {row['version']})"
        if row["reason"] or more:
            lines.append(f"{name}: {row['reason'] or ''}".rstrip() + (f" → nvcore explain {row['code']}" if row["code"] else ""))
        lines += [f"  {text}" for text in ([f"do: {row['remedy']}"] if row["remedy"] else []) + more]
    return "".join(line + "\n" for line in lines)


def show_footprint(context: Context) -> int:
    """What each plugin brought; `--deny PATTERN` (or `[plugins] deny`) exits 6 when something matches."""
    from nvcore.plugins.footprint import denied, footprint, residue

    index = scan()
    with context.aside():
        found = [footprint(index, plugin) for plugin in context.plugins(index)]
    patterns = context.given.many("deny") or list(context.configuration().plugins.deny)
    hits, left = denied(index, patterns), residue(index)
    context.view("footprint", found, deny=patterns, denied=hits, residue=left)
    if context.tabular:
        context.out("".join(f"residue: {path} (left by an uninstall; remove it) → nvcore explain NVC-1118\n" for path in left))
        rows: dict[tuple[str, str], dict[str, Any]] = {}  # one for all files of a distribution, all parts of a module
        for hit in hits:
            rows.setdefault((hit["kind"], hit["of"]), {**hit, "name": hit["of"], "count": 0})["count"] += 1
        if hits:
            context.view("denied", list(rows.values()))
        elif patterns:
            context.out(f"deny {' '.join(patterns)}: nothing matches\n")
    return 6 if hits else 0


def stop(context: Context) -> int:
    """Ask the daemon to stop one plugin: its clients leave, its offers are withdrawn."""
    (name,) = context.given.words
    context.call("io.nvcore.Plugin.Stop", {"name": name})
    context.say(f"plugin {name} stopped; restart the daemon to start it again")
    return 0
