"""`nvcore plugins footprint|doctor|stop`. Main thread. The first two import plugins in this process, which is theirs alone."""

from __future__ import annotations

from nvcore.cli.args import parse
from nvcore.cli.context import Diverted
from nvcore.cli.output import OUTPUT_OPTIONS, Column, chosen, show
from nvcore.cli.plugins import print_rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from nvcore.cli.context import Context

__all__ = ["doctor", "footprint", "stop"]

_DENIED = (Column("kind", "DENIED"), Column("name", "NAME"), Column("pattern", "PATTERN"), Column("where", "WHERE"))
_FOOTPRINT = (
    Column("name", "PLUGIN"),
    Column("state", "STATE"),
    Column("distributions", "DISTRIBUTIONS"),
    Column("files", "FILES", right=True),
    Column("disk_bytes", "DISK BYTES", right=True),
    Column("module_count", "MODULES", right=True),
    Column("memory_bytes", "MEMORY BYTES", right=True),
    Column("descriptors", "DESCRIPTORS", right=True),
    Column("import_ms", "IMPORT MS", right=True),
    Column("modules", "MODULE NAMES", wide=True),
)


def footprint(argv: Sequence[str], context: Context) -> int:
    """What each plugin brought; `--deny PATTERN` (or `[plugins] deny`) exits 6 when something matches."""
    from nvcore.plugins.files import residue
    from nvcore.plugins.footprint import denied
    from nvcore.plugins.footprint import footprint as measure
    from nvcore.plugins.index import scan
    from nvcore.plugins.select import inventory, select

    given = parse(argv, {**OUTPUT_OPTIONS, "--deny": "deny*"}, words=(0, 0))
    output = chosen(given.values)
    index = scan()
    with Diverted():
        rows = measure(index, select(inventory(index), context.selection()))
    patterns = given.many("deny") or list(context.configuration().plugins.deny)
    hits, left = denied(index, patterns), residue(index)
    if output in ("table", "wide"):
        if rows:
            show(output, schema="", key="", rows=rows, columns=_FOOTPRINT, stream=context.stdout)
        else:
            context.out("no plugins\n")
        for path in left:
            context.out(f"residue: {path} (left by an uninstall; remove it) → nvcore explain NVC-1118\n")
        if hits:
            show(output, schema="", key="", rows=hits, columns=_DENIED, stream=context.stdout)
        elif patterns:
            context.out(f"deny {' '.join(patterns)}: nothing matches\n")
    else:
        show(
            output,
            schema="nvcore.footprint/1",
            key="plugins",
            rows=rows,
            columns=(),
            stream=context.stdout,
            extra={"deny": patterns, "denied": hits, "residue": left},
        )
    return 6 if hits else 0


def doctor(argv: Sequence[str], context: Context) -> int:
    """Import and register everything selected and call the hooks; against a running daemon, the daemon's states."""
    from nvcore.plugins.host import PluginHost, RequiredPluginError
    from nvcore.plugins.index import scan

    given = parse(argv, {**OUTPUT_OPTIONS, "--installed": "installed?"}, words=(0, 0))
    output = chosen(given.values)
    index = scan()
    rows: list[dict[str, Any]] | None = None
    if not given.flag("installed") and not context.selects:
        from nvcore.cli.running import plugins_of_daemon

        rows = plugins_of_daemon(context, index)
    source, refused = "daemon", False
    if rows is None:
        host = PluginHost("doctor", configuration=context.configuration() if context.has_files else None)
        try:
            with Diverted():
                host.load(context.selection(), index=index)
        except RequiredPluginError as error:
            refused = True
            context.say(f"note: the daemon would not start: {error.what}")
        rows = [dict(row) for row in host.states()]
        source = "doctor"
        host.teardown()
    problems: list[dict[str, Any]] = [dict(problem.as_dict()) for problem in index.problems]
    print_rows(context, output, rows, problems, source)
    return 7 if refused or problems or any(row["state"] in ("failed", "incompatible") or row["conflicts"] for row in rows) else 0


def stop(argv: Sequence[str], context: Context) -> int:
    """Ask the daemon to stop one plugin: its clients leave, its offers are withdrawn."""
    name = parse(argv, {}, words=(1, 1)).words[0]
    context.call("io.nvcore.Plugin.Stop", {"name": name})
    context.say(f"plugin {name} stopped; restart the daemon to start it again")
    return 0
