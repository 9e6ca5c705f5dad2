"""`nvcore plugins list|show`, and the way to footprint, doctor and stop. Main thread.

`list` and `show` read the index and import no plugin; where a daemon runs they show its states, with what changed on disk since.
Kept free of everything that costs: with the index alone this is under 2.5 bare starts (tests/bench/startup.py).
"""

from __future__ import annotations

from nvcore.cli.args import parse
from nvcore.cli.output import OUTPUT_OPTIONS, UNKNOWN, Column, chosen, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from nvcore.cli.context import Context
    from nvcore.plugins.index import Index

__all__ = ["COLUMNS", "command", "explain_rows", "print_rows"]

COLUMNS = (
    Column("name", "PLUGIN"),
    Column("state", "STATE"),
    Column("version", "VERSION"),
    Column("family_names", "FAMILIES"),
    Column("command_names", "COMMANDS"),
    Column("distribution", "DISTRIBUTION", wide=True),
    Column("generation_names", "API", wide=True),
    Column("import_ms", "IMPORT MS", wide=True, right=True),
    Column("hooks", "HOOKS", wide=True),
    Column("selected_by", "BY", wide=True),
    Column("location", "LOCATION", wide=True),
    Column("code", "CODE"),
)


_HELP = """usage: nvcore plugins [list | show NAME | doctor | footprint [--deny PATTERN] | stop NAME] [-o FORMAT] [--installed]

list, show: states from the index, without importing any plugin; where a daemon runs, its states (--installed: the index all the same).
doctor: import and register everything selected in this process, call the hooks, and show what that finds.
footprint: distributions, modules, memory and descriptors that each plugin brought; exits 6 when something matches a denied pattern.
stop: have the daemon stop one plugin. list, show and doctor exit 7 when a plugin is failed, incompatible or in conflict.
"""


def command(argv: Sequence[str], context: Context) -> int:
    """`nvcore plugins VERB …`; the verb is `list` when left out."""
    if "--help" in argv or "-h" in argv:
        context.out(_HELP)
        return 0
    verb, rest = (argv[0], argv[1:]) if argv and argv[0][:1] != "-" else ("list", argv)
    if verb == "list":
        return _list(rest, context)
    if verb == "show":
        return _show(rest, context)
    from nvcore.cli import plugins_more

    verbs = {"footprint": plugins_more.footprint, "doctor": plugins_more.doctor, "stop": plugins_more.stop}
    if verb not in verbs:
        from nvcore.api.errors import UsageError

        raise UsageError(f"no verb {verb!r} of plugins", expected="list, show, footprint, doctor or stop")
    return verbs[verb](rest, context)


def _rows(context: Context, installed: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
    """Plugins, problems of the index, and who says so: "daemon" or "index"."""
    from nvcore.plugins.index import scan
    from nvcore.plugins.select import inventory, select

    index = scan()
    problems = _problems(index)
    if not installed and not context.selects:
        from nvcore.cli.running import plugins_of_daemon

        rows = plugins_of_daemon(context, index)
        if rows is not None:
            return rows, problems, "daemon"
    return [plugin.as_dict() for plugin in select(inventory(index), context.selection())], problems, "index"


def _problems(index: Index) -> list[dict[str, Any]]:
    return [dict(problem.as_dict()) for problem in index.problems]


def _list(argv: Sequence[str], context: Context) -> int:
    given = parse(argv, {**OUTPUT_OPTIONS, "--installed": "installed?"}, words=(0, 0))
    output = chosen(given.values)
    rows, problems, source = _rows(context, given.flag("installed"))
    print_rows(context, output, rows, problems, source)
    return _code(rows, problems)


def _show(argv: Sequence[str], context: Context) -> int:
    given = parse(argv, {**OUTPUT_OPTIONS, "--installed": "installed?"}, words=(1, 1))
    output = chosen(given.values)
    rows, _, source = _rows(context, given.flag("installed"))
    name = given.words[0]
    rows = [row for row in rows if name in (row["name"], row["distribution"])]
    if not rows:
        from nvcore.api.errors import NotFoundError

        raise NotFoundError(f"no plugin {name!r}", remedy="nvcore plugins list")
    if output in ("table", "wide"):
        for row in rows:
            for key, value in row.items():
                context.out(f"{key}: {_words(value)}\n")
    else:
        print_rows(context, output, rows, [], source)
    return _code(rows, [])


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {what}" for key, what in value.items()) or UNKNOWN
    if isinstance(value, list):
        return "; ".join(map(str, value)) or UNKNOWN
    return UNKNOWN if value is None or value == "" else str(value)


def _code(rows: Sequence[dict[str, Any]], problems: Sequence[object]) -> int:
    return 7 if problems or any(row["state"] in ("failed", "incompatible") or row["conflicts"] for row in rows) else 0


def print_rows(context: Context, output: str, rows: list[dict[str, Any]], problems: list[dict[str, Any]], source: str) -> None:
    """Print plugins in `output`; tables get the reasons, remedies and problems below them."""
    if output in ("table", "wide"):
        shown = [
            {
                **row,
                "family_names": list(row["families"]),
                "command_names": list(row["commands"]),
                "generation_names": [f"{family}.v{number}" for family, number in row["generations"].items()],
            }
            for row in rows
        ]
        if shown:
            show(output, schema="", key="", rows=shown, columns=COLUMNS, stream=context.stdout)
        else:
            context.out("no plugins\n")
        context.out(explain_rows(rows, problems))
        return
    show(
        output,
        schema="nvcore.plugins/1",
        key="plugins",
        rows=rows,
        columns=(),
        stream=context.stdout,
        extra={"source": source, "problems": problems},
    )


def explain_rows(rows: Sequence[dict[str, Any]], problems: Sequence[dict[str, Any]]) -> str:
    """One paragraph for every plugin or place that the reader should know more about."""
    lines: list[str] = []
    for row in rows:
        name = row["name"] if not row["distribution"] else f"{row['name']} ({row['distribution']} {row['version']})"
        if row["reason"]:
            lines.append(f"{name}: {row['reason']}" + (f" → nvcore explain {row['code']}" if row["code"] else ""))
        elif row["notes"] or row["conflicts"]:
            lines.append(f"{name}:")
        if row["remedy"]:
            lines.append(f"  do: {row['remedy']}")
        lines += [f"  {text}" for text in (*row["conflicts"], *row["notes"])]
    for problem in problems:
        lines += [f"{problem['where']}: {problem['what']} → nvcore explain {problem['code']}", f"  do: {problem['remedy']}"]
    return "".join(line + "\n" for line in lines)
