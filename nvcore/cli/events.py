"""`nvcore events [--follow] [--after N] [--kind KIND] [--gpu GPU]`: the event ring, and what follows. Main thread."""

from __future__ import annotations

from nvcore.cli.args import parse
from nvcore.cli.output import OUTPUT_OPTIONS, Column, chosen, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from nvcore.cli.context import Context

__all__ = ["command", "line"]

_HELP = """usage: nvcore events [--follow] [--after SEQUENCE] [--kind KIND[,KIND]] [--gpu GPU] [-o FORMAT]

Events of the running daemon, oldest first. --follow goes on until interrupted; with -o jsonl it prints one object a line.
"""
_OPTIONS = {"--follow": "follow?", "-f": "follow?", "--after": "after", "--kind": "kind*", "--gpu": "gpu", "--help": "help?", "-h": "help?"}
_COLUMNS = (
    Column("sequence", "SEQ", right=True),
    Column("time", "TIME"),
    Column("gpu", "GPU"),
    Column("kind", "KIND"),
    Column("code", "CODE"),
    Column("text", "TEXT"),
    Column("action", "ACTION"),
    Column("owner", "OWNER", wide=True),
    Column("grant", "GRANT", wide=True),
    Column("channel", "CHANNEL", wide=True, right=True),
    Column("vm", "VM", wide=True),
)


def command(argv: Sequence[str], context: Context) -> int:
    """Events of the running daemon."""
    given = parse(argv, {**OUTPUT_OPTIONS, **_OPTIONS}, words=(0, 0))
    if given.flag("help"):
        context.out(_HELP)
        return 0
    output = chosen(given.values)
    after = given.text("after") or "0"
    if not after.isdecimal():
        from nvcore.api.errors import UsageError

        raise UsageError(f"--after {after} is no sequence number", expected="a whole number")
    parameters: dict[str, Any] = {"after": int(after), "gpu": given.text("gpu"), "kinds": given.many("kind") or None}
    if not given.flag("follow"):
        rows = context.call("io.nvcore.Event.Watch", parameters)["events"]
        show(output, schema="nvcore.events/1", key="events", rows=_timed(rows), columns=_COLUMNS, stream=context.stdout, name="sequence")
        return 0
    for answer in context.stream("io.nvcore.Event.Watch", parameters):
        for event in answer["events"]:
            if output in ("json", "jsonl"):
                import json

                context.stdout.write(json.dumps(event) + "\n")
            else:
                context.out(line(event) + "\n")
        context.stdout.flush()
    return 0


def _clock(wall: float) -> str:
    import time

    return time.strftime("%H:%M:%S", time.localtime(wall))


def _timed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "time": _clock(row["wall"]), "monotonic": row["time"]} for row in rows]


def line(event: dict[str, Any], *, clock: str | None = None) -> str:
    """One event in one line: who, what, whose, and what was done about it."""
    words = [clock or _clock(event["wall"]), event.get("gpu") or "host", event["text"]]
    words += [f"{key}={event[key]}" for key in ("owner", "grant", "vm", "channel", "action") if event.get(key) is not None]
    if event.get("code"):
        words.append(f"({event['code']})")
    return "  ".join(map(str, words))
