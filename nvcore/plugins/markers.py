"""Environment markers: `python_version < "3.12" and extra == 'x'` evaluated for this interpreter with no extra asked for.

Owns no state; pure, any thread. Imported only when a requirement has a marker. `packaging` is its oracle in the tests.
Source: PyPA dependency specifiers (PEP 508).
"""

from __future__ import annotations

import os
import platform
import re
import sys
from operator import eq, ne
from typing import Final

from nvcore.plugins.versions import VersionSyntax, satisfies

_VALUE: Final = r"""('[^']*'|"[^"]*"|[\w.]+)"""
_COMPARISON: Final = re.compile(rf"{_VALUE}\s*(===|~=|==|!=|<=|>=|<|>|not\s+in\b|in\b)\s*{_VALUE}", re.ASCII)
_GROUP: Final = re.compile(r"\(([^()]*)\)")
# What stands for false and for true in a marker that is half evaluated: characters that no marker holds.
_TRUTH: Final = ("\0", "\1")

_VERSIONED: Final = ("python_version", "python_full_version", "implementation_version", "platform_release")
_PLATFORM: Final = ("machine", "system", "release", "version", "python_implementation")
# Comparisons of what is no version. Texts have no order: `<` and `>` never hold between them.
_TEXT: Final = {"==": eq, "===": eq, "<=": eq, ">=": eq, "!=": ne}


def _environment(name: str) -> str:
    """The value of one marker variable."""
    about = sys.implementation.version
    early = "" if about.releaselevel == "final" else f"{about.releaselevel[0]}{about.serial}"
    known = {
        "extra": "", "os_name": os.name, "sys_platform": sys.platform,
        "python_version": ".".join(platform.python_version_tuple()[:2]), "python_full_version": platform.python_version(),
        "implementation_name": sys.implementation.name, "implementation_version": f"{about.major}.{about.minor}.{about.micro}{early}",
        **{f"platform_{asked}": str(getattr(platform, asked)()) for asked in _PLATFORM},
    }  # fmt: skip
    if name not in known:
        raise VersionSyntax(f"unknown marker variable {name!r}")
    return known[name]


def _compare(match: re.Match[str]) -> str:
    """One comparison as its truth."""
    left, operator, right = match.groups()
    versions = left in _VERSIONED or right in _VERSIONED
    left, right = _value(left), _value(right)
    if operator.endswith("in"):
        return _TRUTH[(left in right) == (operator == "in")]
    if versions:
        try:
            return _TRUTH[satisfies(left, operator + right)]
        except VersionSyntax:
            pass  # what is not a version is compared as text
    if operator == "~=":
        raise VersionSyntax("marker operator '~=' needs versions")
    return _TRUTH[operator in _TEXT and bool(_TEXT[operator](left, right))]


def _value(token: str) -> str:
    return token[1:-1] if token[0] in "'\"" else _environment(token)


def _joined(group: re.Match[str]) -> str:
    """Truths joined by `and`, which binds tighter, and `or`, as one truth."""
    terms = [[term.strip() for term in re.split(r"\band\b", both)] for both in re.split(r"\bor\b", group[1])]
    for term in (term for both in terms for term in both):
        if term not in _TRUTH:
            raise VersionSyntax(f"marker has {term!r} where a comparison belongs")
    return _TRUTH[any(all(term == _TRUTH[True] for term in both) for both in terms)]


def evaluate(marker: str) -> bool:
    """Whether the marker holds here. Raises VersionSyntax for one that cannot be understood."""
    if not marker.isprintable():
        raise VersionSyntax(f"marker {marker!r} is no line of text")
    text, groups = f"({_COMPARISON.sub(_compare, marker)})", 1
    while groups and text not in _TRUTH:  # from the innermost group outwards
        text, groups = _GROUP.subn(_joined, text)
    if text not in _TRUTH:
        raise VersionSyntax(f"marker {marker!r} has parentheses that do not match")
    return text == _TRUTH[True]
