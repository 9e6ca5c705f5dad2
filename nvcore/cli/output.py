"""Output: rows as table, wide table, JSON, JSON lines or names; text made safe for a terminal; glyphs by the stream's encoding.

Owns the five formats of `-o` and the escaping of strings that came from outside. Runs on the main thread. Never imports rich: that is for
the status views. JSON documents carry `schema` and `generated_at`; unknown is null there and UNKNOWN in tables.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TextIO

__all__ = ["FORMATS", "OUTPUT_OPTIONS", "UNKNOWN", "Column", "ascii_only", "chosen", "document", "safe", "show", "table", "width"]

FORMATS = ("table", "wide", "json", "jsonl", "name")
OUTPUT_OPTIONS = {"-o": "output", "--output": "output", "--json": "json?"}
"""What every command that shows rows accepts."""

UNKNOWN = "\u2013"
"""What a table shows for a value that nobody knows (never zero); "-" on an ASCII stream."""

_GLYPHS = {UNKNOWN: "-", "…": "...", "✓": "ok", "✗": "x", "●": "*", "→": "->", "\u00d7": "x"}


class Column:
    """One column: `key` in the row, `heading`, and whether only `-o wide` shows it."""

    __slots__ = ("heading", "key", "right", "wide")

    def __init__(self, key: str, heading: str, *, wide: bool = False, right: bool = False) -> None:
        self.key, self.heading, self.wide, self.right = key, heading, wide, right


def ascii_only(stream: TextIO) -> bool:
    """Whether the stream cannot carry our glyphs, by its encoding and not by the locale's name."""
    try:
        "●✓✗".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def width(stream: TextIO) -> int | None:
    """Columns of the terminal behind `stream`; None where there is none or it does not know (some report 0)."""
    import os

    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None


def safe(text: str, plain: bool) -> str:
    """`text` with control characters, escapes and bidirectional overrides shown as escapes, and in ASCII where the stream is."""
    if text.isascii() and text.isprintable():
        return text
    out = []
    for char in text:
        if plain and not char.isascii():
            char = _GLYPHS.get(char) or char.encode("ascii", "backslashreplace").decode()
        elif not char.isprintable():
            char = char.encode("unicode_escape").decode()
        out.append(char)
    return "".join(out)


def chosen(values: dict[str, Any]) -> str:
    """The format that parsed `OUTPUT_OPTIONS` ask for. Raises UsageError."""
    name = values.get("output") or ("json" if values.get("json") else "table")
    if name not in FORMATS:
        from nvcore.api.errors import UsageError

        raise UsageError(f"no output format {name!r}", expected=f"one of {', '.join(FORMATS)}")
    return str(name)


def _cell(value: object, plain: bool) -> str:
    if value is None or value == "":
        return "-" if plain else UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, (list, tuple)):
        return safe(", ".join(map(str, value)), plain) or ("-" if plain else UNKNOWN)
    return safe(str(value), plain)


def table(rows: Sequence[dict[str, Any]], columns: Sequence[Column], plain: bool) -> str:
    """A plain table, cells padded and never cut, ending in a newline."""
    cells = [[_cell(row.get(column.key), plain) for column in columns] for row in rows]
    lines = [[column.heading for column in columns], *cells]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    out = []
    for line in lines:
        parts = [cell.rjust(size) if column.right else cell.ljust(size) for cell, size, column in zip(line, widths, columns, strict=True)]
        out.append("  ".join(parts).rstrip())
    return "\n".join(out) + "\n"


def document(schema: str, content: dict[str, Any]) -> str:
    """A JSON document of one schema, as every view of the command line prints it."""
    import json
    import time

    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"schema": schema, "generated_at": now, **content}, indent=2) + "\n"


def show(
    output: str, *, schema: str, key: str, rows: Sequence[dict[str, Any]], columns: Sequence[Column], 
    extra: dict[str, Any] | None = None, stream: TextIO | None = None, name: str = "name",
) -> None:  # fmt: skip
    """Print rows in one of FORMATS. key: name of the array in the JSON document; extra: its other members; name: for `-o name`."""
    stream = stream or sys.stdout
    if output == "json":
        stream.write(document(schema, {**(extra or {}), key: list(rows)}))
    elif output == "jsonl":
        import json

        stream.write("".join(json.dumps(row) + "\n" for row in rows))
    elif output == "name":
        plain = ascii_only(stream)
        stream.write("".join(safe(str(row.get(name)), plain) + "\n" for row in rows))
    else:
        stream.write(table(rows, [column for column in columns if output == "wide" or not column.wide], ascii_only(stream)))
