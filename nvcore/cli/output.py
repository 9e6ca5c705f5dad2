"""Output: rows as table, wide table, JSON, JSON lines or names; text made safe for a terminal; glyphs by the stream's encoding.

Owns the five formats of `-o` and the escaping of strings that came from outside. Runs on the main thread. Never imports rich: that is for
the status views. JSON documents carry `schema` and `generated_at`; unknown is null there and UNKNOWN in tables.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from nvcore.api.errors import UsageError

# What `-o` may ask for.
FORMATS = ("table", "wide", "json", "jsonl", "name")

# What every command that shows rows accepts.
OUTPUT_OPTIONS = {"-o": "output", "--output": "output", "--json": "json?"}

# What a table shows for a value that nobody knows (never zero); "-" on an ASCII stream.
UNKNOWN = "\u2013"

_GLYPHS = {UNKNOWN: "-", "…": "...", "✓": "ok", "✗": "x", "●": "*", "→": "->", "\u00d7": "x"}


def ascii_only(stream: object) -> bool:
    """Whether the stream cannot carry our glyphs, by its encoding and not by the locale's name."""
    glyphs, encoding = "●✓✗", getattr(stream, "encoding", None) or "ascii"
    return glyphs.encode(encoding, "ignore").decode(encoding) != glyphs


def safe(text: str, plain: bool) -> str:
    """`text` with control characters, escapes and bidirectional overrides shown as escapes, and in ASCII where the stream is."""
    if text.isascii() and text.isprintable():
        return text
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    if plain:
        text = "".join(_GLYPHS.get(char, char) for char in text).encode("ascii", "backslashreplace").decode()
    return text


def chosen(name: str | None) -> str:
    """The name of a format. Raises UsageError for any other."""
    if name not in FORMATS:
        raise UsageError(f"no output format {name!r}", expected=f"one of {', '.join(FORMATS)}")
    return name


def beside(name: str) -> str:
    """The text of a file that lies beside the command line's modules."""
    with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as file:
        return file.read()


def view(name: str) -> tuple[str, str, str, list[tuple[str, ...]]]:
    """One of the core's views by `tables.txt`: key of the array in its document, what `-o name` prints, what is said where there are no
    rows (or nothing), columns as CommandIO.show has."""
    head, *lines = next(part for part in beside("tables.txt").split("\n[") if part.startswith(name + " ")).rstrip().split("\n")
    keys, _, none = head.partition("]")
    _, key, row = keys.split()
    return key, row, none.strip(), [tuple(word.strip() for word in line.split("  ") if word) for line in lines]


def cell(value: object, plain: bool) -> str:
    """A value as a table shows it: one line, inert; lists with commas; UNKNOWN where there is nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple, dict)) else "" if value is None else str(value)
    return safe(text or UNKNOWN, plain)


def table(rows: Sequence[dict[str, object]], columns: Sequence[tuple[str, ...]], plain: bool) -> str:
    """A plain table, cells padded and never cut, ending in a newline. columns: (key, heading, kind) as CommandIO.show has them."""
    lines = [[heading for _, heading, _ in columns], *([cell(row.get(key), plain) for key, _, _ in columns] for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    sides = [">" if "right" in kind else "<" for _, _, kind in columns]
    form = "  ".join(f"{{:{side}{size}}}" for side, size in zip(sides, widths, strict=True))
    return "".join(form.format(*line).rstrip() + "\n" for line in lines)


def document(schema: str, content: dict[str, object], *, indent: int | None = 2) -> str:
    """A JSON document of one schema, as every view of the command line prints it. indent: None for one line."""
    import json
    import time

    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"schema": schema, "generated_at": now, **content}, indent=indent, default=str) + "\n"
