"""Versions and version specifiers: which version is newer, and whether one satisfies `>=1.2,<2`.

Owns no state; pure functions, any thread. `re` (half a bare start) is imported only for a version that is more than numbers and dots; never
`packaging`, which is the oracle in the tests.
Source: PyPA version specifiers (PEP 440).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["VersionSyntax", "above", "key", "satisfies"]

_PATTERN = (
    r"v?(?:(\d+)!)?(\d+(?:\.\d+)*)"  # epoch, release
    r"(?:[-_.]?(alpha|a|beta|b|preview|pre|c|rc)[-_.]?(\d*))?"
    r"(?:-(\d+)|[-_.]?(post|rev|r)[-_.]?(\d*))?"  # a post-release, without and with its word
    r"(?:[-_.]?(dev)[-_.]?(\d*))?"
    r"(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?"
)
_PRE = {"a": "a", "alpha": "a", "b": "b", "beta": "b"}
"""Words of a pre-release to the letter by which it sorts; every other one is a release candidate."""

_OPERATORS = ("===", "~=", "==", "!=", "<=", ">=", "<", ">")
_NEVER = float("inf")
_LIMIT = 200


class VersionSyntax(ValueError):
    """A version or a specifier that PEP 440 does not allow."""


class Version:
    """One version, taken apart.

    `key` orders as PEP 440 does; `public` is the key without the local part; `early`: a pre-release or development release; `first`: the
    public key of its own earliest development release, below which lies what is less than it.
    """

    __slots__ = ("early", "epoch", "first", "key", "local", "post", "public", "release")

    def __init__(self, text: str) -> None:
        epoch, release, pre, number, minus, post, nth, dev, day, self.local = _parts(text)
        self.epoch, self.release = int(epoch or 0), tuple(map(int, release.split(".")))
        self.post = int(minus or nth or 0) if minus or post else None
        self.early = bool(pre or dev)
        short = self.release
        while short and short[-1] == 0:
            short = short[:-1]
        before: tuple[Any, ...] = ("z",)  # a final release sorts behind its candidates
        if pre:
            before = (_PRE.get(pre, "rc"), int(number or 0))
        elif dev and self.post is None:
            before = ("",)
        after = -1 if self.post is None else self.post
        self.public = (self.epoch, short, before, after, int(day or 0) if dev else _NEVER)
        self.first = (self.epoch, short, ("",) if self.post is None else before, after, 0)
        words = self.local.replace("-", ".").replace("_", ".").split(".") if self.local else ()
        self.key: tuple[Any, ...] = (*self.public, tuple((1, int(word), "") if word.isdigit() else (0, 0, word) for word in words))


def _parts(text: str) -> tuple[str, ...]:
    """The ten groups of _PATTERN, empty where the version has no such part."""
    text = text.strip().lower()
    if text.isascii() and len(text) <= _LIMIT:
        if all(word.isdigit() for word in text.split(".")):
            return "", text, "", "", "", "", "", "", "", ""
        import re

        match = re.fullmatch(_PATTERN, text)
        if match is not None:
            return match.groups("")
    raise VersionSyntax(f"{text[:_LIMIT]!r} is not a version")


def key(text: str) -> tuple[Any, ...]:
    """Sort key of a version. Raises VersionSyntax."""
    return Version(text).key


def _clauses(specifiers: str) -> list[tuple[str, str]]:
    """Operator and version of each clause."""
    found = []
    for clause in filter(None, map(str.strip, specifiers.split(","))):
        operator = next((one for one in _OPERATORS if clause.startswith(one)), None)
        if operator is None:
            raise VersionSyntax(f"{clause!r} is not a version specifier")
        found.append((operator, clause[len(operator) :].strip()))
    return found


def _holds(version: Version, operator: str, text: str) -> bool:
    wildcard = text.endswith(".*")
    wanted = Version(text.removesuffix(".*"))
    if wildcard or operator == "~=":  # the written release numbers agree, missing ones counting as zero
        head = wanted.release if wildcard else wanted.release[:-1]
        if not head or (wildcard and operator not in ("==", "!=")):
            raise VersionSyntax(f"{operator}{text} is not a version specifier")
        inside = version.epoch == wanted.epoch and (*version.release, *[0] * len(head))[: len(head)] == head
        return inside and version.public >= wanted.public if operator == "~=" else inside == (operator == "==")
    if operator in ("==", "!="):
        same = version.key == wanted.key if wanted.local else version.public == wanted.public
        return same == (operator == "==")
    if operator == "<=":
        return version.public <= wanted.public
    if operator == ">=":
        return version.public >= wanted.public
    if operator == "<":
        return version.public < (wanted.public if wanted.early else wanted.first)
    family = wanted.post is None and wanted.public[-1] == _NEVER  # then its post-releases are not above it
    return version.public > wanted.public and not (family and version.public[:3] == wanted.public[:3])


def _failing(version: str, specifiers: str) -> tuple[str, str] | None:
    """Operator and version of the first clause that does not hold."""
    parsed: Version | None = None
    for operator, text in _clauses(specifiers):
        if text == version or operator == "===":  # the common pin is decided without taking anything apart
            if operator in ("<", ">", "!=") or (operator == "===" and text.lower() != version.lower()):
                return operator, text
            continue
        parsed = parsed or Version(version)
        if not _holds(parsed, operator, text):
            return operator, text
    return None


def satisfies(version: str, specifiers: str) -> bool:
    """Whether an installed `version` satisfies `specifiers` (comma separated, may be empty). Raises VersionSyntax."""
    return _failing(version, specifiers) is None


def above(version: str, specifiers: str) -> bool:
    """Whether `version` fails `specifiers` because it is too new: it lies beyond an upper bound or a pin."""
    operator, text = _failing(version, specifiers) or ("", "")
    return operator in ("<", "<=", "==", "~=") and Version(version).public >= Version(text.removesuffix(".*")).public
