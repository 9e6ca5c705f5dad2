"""A page of documentation as what can be run: its fenced blocks, in order.

A block whose first line is `# file: PATH` is that file, with "(added)" behind the path a piece at its end. `console` blocks hold commands.
Other blocks of Python run by themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGE", "Block", "blocks", "write"]

PAGE = Path(__file__).resolve().parents[2] / "docs/plugin-authors.md"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# file: (\S+)( \(added\))?\n")


@dataclass(frozen=True)
class Block:
    """One fenced block. file: where it belongs; added: at the end of what is there; line: of the page."""

    language: str
    text: str
    line: int
    file: str | None = None
    added: bool = False


def blocks(page: Path = PAGE) -> list[Block]:
    """Every block of the page."""
    text, found = page.read_text(), []
    for match in _FENCE.finditer(text):
        head = _FILE.match(match[2])
        body = match[2][head.end() :] if head else match[2]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(match[1], body, line, head[1] if head else None, bool(head and head[2])))
    return found


def write(block: Block, folder: Path) -> None:
    """Put a block's file into its place."""
    assert block.file is not None
    path = folder / block.file
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a" if block.added else "x") as file:
        file.write(("\n" if block.added else "") + block.text)
