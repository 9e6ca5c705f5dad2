"""Environment markers: `python_version < "3.12" and extra == 'x'` evaluated for this interpreter with no extra asked for.

Owns no state; pure, any thread. Imported only when a requirement has a marker. `packaging` is its oracle in the tests.
Source: PyPA dependency specifiers (PEP 508).
"""

from __future__ import annotations

import os
import re
import sys
from operator import eq, ge, gt, le, lt, ne

from nvcore.plugins.versions import VersionSyntax, satisfies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

__all__ = ["evaluate"]

_TOKEN: Final = re.compile(r"""\s*('[^']*'|"[^"]*"|===|~=|==|!=|<=|>=|<|>|[()]|not\s+in\b|[\w.]+)""", re.ASCII)
_TEXT: Final[dict[str, Callable[[Any, Any], bool]]] = {"==": eq, "===": eq, "!=": ne, "<=": le, ">=": ge, "<": lt, ">": gt}
"""Comparisons of what is no version."""


def _full(info: Any) -> str:
    return f"{info.major}.{info.minor}.{info.micro}" + ("" if info.releaselevel == "final" else f"{info.releaselevel[0]}{info.serial}")


def _environment(name: str) -> str:
    """The value of one marker variable; `platform` is imported only for those that need it."""
    simple = {
        "extra": "",
        "os_name": os.name,
        "sys_platform": sys.platform,
        "python_version": ".".join(map(str, sys.version_info[:2])),
        "python_full_version": _full(sys.version_info),
        "implementation_name": sys.implementation.name,
        "implementation_version": _full(sys.implementation.version),
    }
    if name in simple:
        return simple[name]
    asked = name.removeprefix("platform_")
    if asked == name or asked not in ("machine", "system", "release", "version", "python_implementation"):
        raise VersionSyntax(f"unknown marker variable {name!r}")
    import platform

    return str(getattr(platform, asked)())


def _either(tokens: list[str]) -> bool:
    """A marker from the end of `tokens`, which are reversed and begin with an empty one: terms joined by `or`."""
    value = _both(tokens)
    while tokens[-1] == "or":
        tokens.pop()
        value |= _both(tokens)
    return value


def _both(tokens: list[str]) -> bool:
    value = _one(tokens)
    while tokens[-1] == "and":
        tokens.pop()
        value &= _one(tokens)
    return value


def _one(tokens: list[str]) -> bool:
    if tokens[-1] == "(":
        tokens.pop()
        value = _either(tokens)
        if tokens[-1] != ")":
            raise VersionSyntax("marker misses a closing parenthesis")
        tokens.pop()
        return value
    if len(tokens) < 4:
        raise VersionSyntax("marker ends too early")
    left, operator, right = tokens.pop(), tokens.pop(), tokens.pop()
    versions = any("version" in side and side[0] not in "'\"" and side != "platform_version" for side in (left, right))
    return _compare(_value(left), operator, _value(right), versions)


def _value(token: str) -> str:
    return token[1:-1] if token[0] in "'\"" else _environment(token)


def _compare(left: str, operator: str, right: str, versions: bool) -> bool:
    if operator == "in":
        return left in right
    if operator.startswith("not"):
        return left not in right
    if versions and operator in (*_TEXT, "~="):
        try:
            return satisfies(left, operator + right)
        except VersionSyntax:
            pass  # PEP 508: what is not a version is compared as text
    if operator not in _TEXT:
        raise VersionSyntax(f"marker has {operator!r} where an operator belongs")
    return _TEXT[operator](left, right)


def evaluate(marker: str) -> bool:
    """Whether the marker holds here. Raises VersionSyntax for one that cannot be understood."""
    marker = marker.strip()
    tokens: list[str] = []
    at = 0
    while at < len(marker):
        match = _TOKEN.match(marker, at)
        if match is None:
            raise VersionSyntax(f"marker {marker!r} has a stray {marker[at:].lstrip()[:1]!r}")
        tokens.append(match[1])
        at = match.end()
    left = ["", *reversed(tokens)]
    try:
        value = _either(left)
    except RecursionError:
        raise VersionSyntax("marker is nested too deeply") from None
    if len(left) > 1:
        raise VersionSyntax(f"marker {marker!r} goes on after its end")
    return value
