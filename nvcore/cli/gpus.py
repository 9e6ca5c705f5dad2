"""`nvcore gpus [list|show NAME|retry NAME|reset NAME]`: GPUs of the running daemon. Main thread."""

from __future__ import annotations

from nvcore.cli.args import parse
from nvcore.cli.output import OUTPUT_OPTIONS, Column, chosen, document, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from nvcore.cli.context import Context

__all__ = ["command"]

_HELP = """usage: nvcore gpus [list | show GPU | retry GPU | reset GPU] [-o FORMAT]

GPU is a bus address, a UUID or a configured source. retry: bring up again one that failed or was lost. reset: start its firmware anew.
"""
_COLUMNS = (
    Column("address", "GPU"),
    Column("chip", "CHIP"),
    Column("firmware", "FIRMWARE"),
    Column("firmware_kind", "KIND"),
    Column("state", "STATE"),
    Column("code", "CODE"),
    Column("cause", "CAUSE"),
    Column("source", "SOURCE", wide=True),
    Column("uuid", "UUID", wide=True),
    Column("generation", "GENERATION", wide=True, right=True),
    Column("vram_total", "VRAM BYTES", wide=True, right=True),
    Column("vram_owned", "OWNED BYTES", wide=True, right=True),
    Column("remedy", "REMEDY", wide=True),
)
_LONG = 400.0  # seconds: a boot of real firmware in a model can take minutes


def command(argv: Sequence[str], context: Context) -> int:
    """GPUs of the running daemon."""
    given = parse(argv, {**OUTPUT_OPTIONS, "--help": "help?", "-h": "help?"}, words=(0, 2))
    if given.flag("help"):
        context.out(_HELP)
        return 0
    output = chosen(given.values)
    verb, *names = given.words or ["list"]
    if verb == "list" and not names:
        rows = context.call("io.nvcore.Gpu.List")["gpus"]
    elif verb in ("show", "retry", "reset") and names:
        call = {"show": "Describe", "retry": "Retry", "reset": "Reset"}[verb]
        answer = context.call(f"io.nvcore.Gpu.{call}", {"gpu": names[0]}, timeout=None if verb == "show" else _LONG)
        rows = [answer["gpu"]]
        if verb == "show" and output in ("table", "wide"):
            context.out(_details(rows[0]))
            return _code(rows)
    else:
        from nvcore.api.errors import UsageError

        raise UsageError(f"nvcore gpus: unexpected {' '.join(given.words)!r}", remedy="see `nvcore gpus --help`")
    if output == "json" and verb == "show":
        context.out(document("nvcore.gpu/1", {"gpu": rows[0]}))
    else:
        show(output, schema="nvcore.gpus/1", key="gpus", rows=rows, columns=_COLUMNS, stream=context.stdout, name="address")
    return _code(rows)


def _code(rows: Sequence[dict[str, Any]]) -> int:
    return 0 if all(row["state"] == "running" for row in rows) else 7


def _details(gpu: dict[str, Any]) -> str:
    """One GPU in words: state, boot report, books, functions."""
    lines = [f"{gpu['address'] or gpu['source']}  {gpu['chip'] or 'chip unknown'}  {gpu['state']}"]
    lines += [f"  {key}: {gpu[key]}" for key in ("cause", "code", "remedy", "uuid", "source", "firmware", "generation") if gpu.get(key)]
    boot = gpu.get("boot")
    if boot:
        lines.append(
            f"boot, {boot['seconds']:.3f} s, image {boot['image']['version']} ({boot['image']['kind']}) of {boot['image']['location']}"
        )
        for stage in boot["stages"]:
            lines.append(f"  {stage['seconds']:8.3f} s  {stage['outcome']:7}  {stage['name']}  {stage['detail']}".rstrip())
            if stage["outcome"] == "failed":
                lines += [f"              {name} = {value}" for name, value in stage["registers"].items()]
        lines += [f"  log {name}: {text}" for name, text in boot["logs"].items()]
    if gpu["ledger"]:
        lines.append("books")
    for row in gpu["ledger"]:
        parts = " + ".join(f"{row[part]} {part}" for part in ("free", "owned", "quarantined", "retired"))
        lines.append(f"  {row['kind']}: {row['total']} {row['unit']} = {parts}")
    if gpu["functions"]:
        lines.append("functions")
    for function in gpu["functions"]:
        state = f"owner {function['owner'] or 'none'}" if function["published"] else f"not published: {function['reason']}"
        lines.append(f"  {function['kind']}: {state}")
    return "\n".join(lines) + "\n"
