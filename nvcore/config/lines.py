"""Lines: where in a TOML text each key stands. Pure, any thread.

tomllib gives values without places; this finds the places of a text that tomllib has accepted, and gives up on nothing: a key that it does
not find is reported with its file alone. Source: TOML 1.0.
"""

from __future__ import annotations

__all__ = ["Path", "find_lines"]

Path = tuple[str | int, ...]
"""Keys from the top; an element of an array of tables by its number, from 0."""


def find_lines(text: str) -> dict[Path, int]:
    """Path to line number, from 1, of every table header and every key outside of inline tables."""
    found: dict[Path, int] = {}
    arrays: dict[Path, int] = {}
    prefix: Path = ()
    depth, fence = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if fence or depth:
            depth, fence = _scan(line, depth, fence)
            continue
        bare = line.strip()
        if bare.startswith("["):
            twice = bare.startswith("[[")
            keys = _keys(bare[2 if twice else 1 :], "]")[0]
            prefix = _inside(keys, arrays, twice)
            found.setdefault(prefix, number)
            if twice:
                found.setdefault(prefix[:-1], number)
        elif bare and bare[0] != "#":
            keys, rest = _keys(bare, "=")
            for count in range(1, len(keys) + 1):
                found.setdefault((*prefix, *keys[:count]), number)
            depth, fence = _scan(rest, 0, "")
    return found


def _inside(keys: list[str], arrays: dict[Path, int], twice: bool) -> Path:
    """The path of a header, with the numbers of the array elements that it lies in."""
    path: Path = ()
    for at, key in enumerate(keys):
        path = (*path, key)
        if twice and at == len(keys) - 1:
            arrays[path] = arrays.get(path, -1) + 1
        if path in arrays:
            path = (*path, arrays[path])
    return path


def _keys(text: str, end: str) -> tuple[list[str], str]:
    """Dotted, possibly quoted keys up to `end`, and what follows it."""
    keys: list[str] = []
    word = ""
    at = 0
    while at < len(text) and text[at] != end:
        char = text[at]
        if char in "\"'":
            close = at + 1
            while close < len(text) and text[close] != char:
                close += 2 if char == '"' and text[close] == "\\" else 1
            word += text[at + 1 : close]
            at = close
        elif char == ".":
            keys.append(word)
            word = ""
        elif char not in " \t":
            word += char
        at += 1
    return [*keys, word], text[at + 1 :]


def _scan(line: str, depth: int, fence: str) -> tuple[int, str]:
    """Follow a value over one line: how deep in brackets, and inside which multi-line string it ends."""
    at = 0
    while at < len(line):
        if fence:
            if fence[0] == '"' and line[at] == "\\":
                at += 2
                continue
            if line.startswith(fence, at):
                at += len(fence)
                fence = ""
                continue
            at += 1
            continue
        char = line[at]
        if char == "#":
            break
        if char in "\"'":
            fence = char * 3 if line.startswith(char * 3, at) else char
            at += len(fence)
            continue
        if char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        at += 1
    return depth, fence if len(fence) == 3 else ""
