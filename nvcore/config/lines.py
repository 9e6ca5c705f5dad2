"""Lines: where in a TOML text each key stands. Pure, any thread.

tomllib gives values without places; this finds the places in a text that tomllib has accepted, and gives up on nothing: a key that it does
not find is reported with its file alone. Imported with tomllib, which needs `re` too. Source: TOML 1.0.
"""

from __future__ import annotations

import re

from nvcore.config.model import Path

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}"  # a closing fence may have up to two more quotes, which are the string's
    r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'" r"|#[^\n]*|\n|[][{}=.,]" r"""|[^][\s{}=.,#"']+""",
    re.DOTALL,
)


def find_lines(text: str) -> dict[Path, int]:
    """Path to line number, from 1, of every table header and every key outside of inline tables."""
    found: dict[Path, int] = {}
    arrays: dict[Path, int] = {}
    prefix: Path = ()
    line, depth, keys, brackets, behind = 1, 0, list[str](), 0, False
    for token in _TOKEN.findall(text):
        if token == "\n" and not depth:
            keys, brackets, behind = [], 0, False
        elif behind:  # the value, or the rest of a header's line
            depth += (token in ("[", "{")) - (token in ("]", "}"))
        elif token == "[":
            brackets += 1
        elif token == "]":
            prefix = _inside(keys, arrays, brackets == 2)
            found.setdefault(prefix, line)
            if brackets == 2:
                found.setdefault(prefix[:-1], line)
            behind, depth = True, brackets - 1
        elif token == "=":
            for count in range(1, len(keys) + 1):
                found.setdefault((*prefix, *keys[:count]), line)
            behind = True
        elif token != "." and token[0] != "#":
            keys.append(token[1:-1] if token[0] in "\"'" else token)
        line += token.count("\n")
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
