"""Output: rows as table, wide table, JSON, JSON lines or names; text made safe for a terminal; glyphs by the stream's encoding.

Owns the five formats of `-o` and the escaping of strings that came from outside. Runs on the main thread. Never imports rich: that is for
the status views. JSON documents carry `schema` and `generated_at`; unknown is null there and UNKNOWN in tables.
"""

from __future__ import annotations

import os

from nvcore.api.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TextIO

__all__ = ["FORMATS", "OUTPUT_OPTIONS", "UNKNOWN", "ascii_only", "beside", "chosen", "document", "safe", "table", "view", "width"]

FORMATS = ("table", "wide", "json", "jsonl", "name")
"""What `-o` may ask for."""

OUTPUT_OPTIONS = {"-o": "output", "--output": "output", "--json": "json?"}
"""What every command that shows rows accepts."""

UNKNOWN = "\u2013"
"""What a table shows for a value that nobody knows (never zero); "-" on an ASCII stream."""

_GLYPHS = {UNKNOWN: "-", "…": "...", "✓": "ok", "✗": "x", "●": "*", "→": "->", "\u00d7": "x"}


def ascii_only(stream: TextIO) -> bool:
    """Whether the stream cannot carry our glyphs, by its encoding and not by the locale's name."""
    try:
        "●✓✗".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def width(stream: TextIO) -> int | None:
    """Columns of the terminal behind `stream`; None where there is none or it does not know (some report 0)."""
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
        raise UsageError(f"no output format {name!r}", expected=f"one of {', '.join(FORMATS)}")
    return str(name)


def beside(name: str) -> str:
    """The text of a file that lies beside the command line's modules."""
    with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as file:
        return file.read()


def view(name: str) -> tuple[str, str, list[tuple[str, ...]]]:
    """One of the core's views by `tables.txt`: key of the array in its document, what `-o name` prints, columns as CommandIO.show has."""
    head, *lines = next(part for part in beside("tables.txt").split("\n[") if part.startswith(name + " ")).rstrip().split("\n")
    _, key, row = head.strip("]").split()
    return key, row, [tuple(word.strip() for word in line.split("  ") if word) for line in lines]


def _cell(value: object, plain: bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple, dict)) else "" if value is None else str(value)
    return safe(text or UNKNOWN, plain)


def table(rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, ...]], plain: bool) -> str:
    """A plain table, cells padded and never cut, ending in a newline. columns: (key, heading, kind) as CommandIO.show has them."""
    lines = [[heading for _, heading, _ in columns], *([_cell(row.get(key), plain) for key, _, _ in columns] for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    kinds = [kind for _, _, kind in columns]
    out = ""
    for line in lines:
        parts = [cell.rjust(size) if "right" in kind else cell.ljust(size) for cell, size, kind in zip(line, widths, kinds, strict=True)]
        out += "  ".join(parts).rstrip() + "\n"
    return out


def document(schema: str, content: dict[str, Any], *, indent: int | None = 2) -> str:
    """A JSON document of one schema, as every view of the command line prints it. indent: None for one line."""
    import json
    import time

    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"schema": schema, "generated_at": now, **content}, indent=indent, default=str) + "\n"
