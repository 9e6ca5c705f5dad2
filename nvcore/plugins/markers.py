"""Environment markers: `python_version < "3.12" and extra == 'x'` evaluated for this interpreter with no extra asked for.

Owns no state; pure, any thread. Imported only when a requirement has a marker. `packaging` is its oracle in the tests.
Source: PyPA dependency specifiers (PEP 508).
"""

from __future__ import annotations

import os
import sys

from nvcore.plugins.versions import VersionSyntax, satisfies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["evaluate"]

_OPERATORS = ("===", "~=", "==", "!=", "<=", ">=", "<", ">")


def _tokens(marker: str) -> list[str]:
    """Words, operators, parentheses; quoted strings keep their opening quote so that they differ from names."""
    out: list[str] = []
    at = 0
    while at < len(marker):
        char = marker[at]
        if char in " \t":
            at += 1
        elif char in "()":
            out.append(char)
            at += 1
        elif char in "'\"":
            end = marker.find(char, at + 1)
            if end < 0:
                raise VersionSyntax(f"marker {marker!r} has an open quote")
            out.append("'" + marker[at + 1 : end])
            at = end + 1
        elif operator := next((o for o in _OPERATORS if marker.startswith(o, at)), ""):
            out.append(operator)
            at += len(operator)
        else:
            end = at
            while end < len(marker) and (marker[end].isalnum() or marker[end] in "_."):
                end += 1
            if end == at:
                raise VersionSyntax(f"marker {marker!r} has a stray {char!r}")
            out.append(marker[at:end])
            at = end
    return out


def _environment(name: str) -> str:
    """The value of one marker variable; `platform` is imported only for those that need it."""
    implementation = sys.implementation
    simple: dict[str, str] = {
        "extra": "",
        "os_name": os.name,
        "sys_platform": sys.platform,
        "python_version": ".".join(map(str, sys.version_info[:2])),
        "python_full_version": _full(sys.version_info),
        "implementation_name": implementation.name,
        "implementation_version": _full(implementation.version),
    }
    if name in simple:
        return simple[name]
    import platform

    functions: dict[str, Callable[[], str]] = {
        "platform_machine": platform.machine,
        "platform_system": platform.system,
        "platform_release": platform.release,
        "platform_version": platform.version,
        "platform_python_implementation": platform.python_implementation,
    }
    if name not in functions:
        raise VersionSyntax(f"unknown marker variable {name!r}")
    return functions[name]()


def _full(info: object) -> str:
    major, minor, micro, level, serial = (getattr(info, field) for field in ("major", "minor", "micro", "releaselevel", "serial"))
    return f"{major}.{minor}.{micro}" + ("" if level == "final" else f"{level[0]}{serial}")


def _compare(left: str, operator: str, right: str, versions: bool) -> bool:
    if operator == "in":
        return left in right
    if operator == "not in":
        return left not in right
    if versions:
        try:
            return satisfies(left, operator + right)
        except VersionSyntax:
            pass  # PEP 508: what is not a version is compared as text
    if operator in ("==", "==="):
        return left == right
    if operator == "!=":
        return left != right
    if operator in ("<=", ">=", "<", ">"):
        return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator]
    raise VersionSyntax(f"marker operator {operator!r} needs versions")


class _Parser:
    __slots__ = ("at", "tokens")

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise VersionSyntax("marker ends too early")
        self.at += 1
        return token

    def either(self) -> bool:
        value = self.both()
        while self.peek() == "or":
            self.at += 1
            other = self.both()
            value = value or other
        return value

    def both(self) -> bool:
        value = self.one()
        while self.peek() == "and":
            self.at += 1
            other = self.one()
            value = value and other
        return value

    def one(self) -> bool:
        if self.peek() == "(":
            self.at += 1
            value = self.either()
            if self.take() != ")":
                raise VersionSyntax("marker misses a closing parenthesis")
            return value
        left = self.take()
        operator = self.take()
        if operator == "not" and self.take() == "in":
            operator = "not in"
        elif operator not in (*_OPERATORS, "in"):
            raise VersionSyntax(f"marker has {operator!r} where an operator belongs")
        right = self.take()
        versions = any("version" in side and not side.startswith("'") and side != "platform_version" for side in (left, right))
        return _compare(_value(left), operator, _value(right), versions)


def _value(token: str) -> str:
    return token[1:] if token.startswith("'") else _environment(token)


def evaluate(marker: str) -> bool:
    """Whether the marker holds here. Raises VersionSyntax for one that cannot be understood."""
    parser = _Parser(_tokens(marker))
    value = parser.either()
    if parser.peek():
        raise VersionSyntax(f"marker {marker!r} goes on after its end")
    return value
