"""Versions and version specifiers: which version is newer, and whether one satisfies `>=1.2,<2`.

Owns no state; pure functions, any thread. Never imports `re` (half a bare start) nor `packaging`, which is its oracle in the tests.
Source: PyPA version specifiers (PEP 440).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["VersionSyntax", "above", "key", "satisfies"]

_PRE = {"a": "a", "alpha": "a", "b": "b", "beta": "b", "c": "rc", "rc": "rc", "pre": "rc", "preview": "rc"}
_POST = ("post", "rev", "r")
_KNOWN = ("preview", "alpha", "beta", "post", "pre", "dev", "rev", "rc", "a", "b", "c", "r", "v")  # longest first
_LAST = (1,)  # sorts after every tuple that begins with 0
_FIRST = (-1,)
_OPERATORS = ("===", "~=", "==", "!=", "<=", ">=", "<", ">")


class VersionSyntax(ValueError):
    """A version or a specifier that PEP 440 does not allow."""


class Version:
    """One version, taken apart. `key` orders as PEP 440 does; `public` is the key without the local part."""

    __slots__ = ("epoch", "key", "local", "post", "pre", "public", "release")

    def __init__(self, text: str) -> None:
        words = _words(text)
        self.epoch, self.release = _head(words, text)
        self.pre: tuple[str, int] | None = None
        self.post: int | None = None
        dev: int | None = None
        if words and words[0] in _PRE:
            self.pre = (_PRE[words.pop(0)], _number(words))
        if words and words[0] in (*_POST, "-"):
            self.post = _post(words, text)
        if words and words[0] == "dev":
            words.pop(0)
            dev = _number(words)
        self.local = _local(words, text)
        release = self.release
        while len(release) > 1 and release[-1] == 0:
            release = release[:-1]
        before: tuple[Any, ...] = _FIRST if self.post is None and dev is not None else _LAST
        if self.pre is not None:
            before = (0, *self.pre)
        after = _FIRST if self.post is None else (0, self.post)
        self.public = (self.epoch, release, before, after, _LAST if dev is None else (0, dev))
        local = tuple((1, part, "") if isinstance(part, int) else (0, 0, part) for part in self.local)
        self.key: tuple[Any, ...] = (*self.public, local if self.local else ())
        if self.pre is None and dev is not None:
            self.pre = ("dev", dev)  # a development release counts as a pre-release where specifiers ask


def _words(text: str) -> list[str]:
    """The text cut into numbers, letters and the separators that carry meaning; other separators are dropped."""
    words: list[str] = []
    kind = ""
    for char in text.strip().lower():
        if char in "._-+!":
            now = "s"
        elif "0" <= char <= "9":
            now = "d"
        elif "a" <= char <= "z":
            now = "l"
        else:
            raise VersionSyntax(f"{text!r} is not a version")
        if now == kind and now != "s":
            words[-1] += char
        else:
            words.append(char)
        kind = now
    end = words.index("+") if "+" in words else len(words)
    return [part for word in words[:end] for part in _spelled(word)] + words[end:]


def _spelled(word: str) -> list[str]:
    """A run of letters as the words of which it may consist: `previewpost` is two. Anything else as it is."""
    parts: list[str] = []
    rest = word if word.isalpha() else ""
    while rest:
        part = next((known for known in _KNOWN if rest.startswith(known)), rest)
        parts.append(part)
        rest = rest[len(part) :]
    return parts or [word]


def _head(words: list[str], text: str) -> tuple[int, tuple[int, ...]]:
    if words and words[0] == "v":
        words.pop(0)
    epoch = 0
    if len(words) > 1 and words[1] == "!" and words[0].isdigit():
        epoch = int(words[0])
        del words[:2]
    release: list[int] = []
    while words and words[0].isdigit():
        release.append(int(words.pop(0)))
        if len(words) > 1 and words[0] == "." and words[1].isdigit():
            words.pop(0)
        else:
            break
    if not release:
        raise VersionSyntax(f"{text!r} is not a version")
    _separator(words)
    return epoch, tuple(release)


def _separator(words: list[str]) -> None:
    """Drop one separator in front of a word of letters; `1.0-1` (a post release) and a local part keep theirs."""
    if len(words) > 1 and words[0] in "._-" and words[1].isalpha():
        words.pop(0)


def _number(words: list[str]) -> int:
    """The number behind a word like `rc` or `dev`, 0 when absent."""
    if words and words[0] in "._-":
        words.pop(0)
    number = int(words.pop(0)) if words and words[0].isdigit() else 0
    _separator(words)
    return number


def _post(words: list[str], text: str) -> int:
    if words.pop(0) == "-" and not (words and words[0].isdigit()):
        raise VersionSyntax(f"{text!r} is not a version")
    return _number(words)


def _local(words: list[str], text: str) -> tuple[int | str, ...]:
    if not words:
        return ()
    if words.pop(0) != "+":
        raise VersionSyntax(f"{text!r} is not a version")
    parts = [""]
    for word in words:
        if word in "._-":
            parts.append("")
        elif word in "+!":
            raise VersionSyntax(f"{text!r} is not a version")
        else:
            parts[-1] += word
    if "" in parts:
        raise VersionSyntax(f"{text!r} is not a version")
    return tuple(int(part) if part.isdigit() else part for part in parts)


def key(text: str) -> tuple[Any, ...]:
    """Sort key of a version. Raises VersionSyntax."""
    return Version(text).key


def _split(clause: str) -> tuple[str, str]:
    for operator in _OPERATORS:
        if clause.startswith(operator):
            return operator, clause[len(operator) :].strip()
    raise VersionSyntax(f"{clause!r} is not a version specifier")


def _prefix(version: Version, wanted: Version) -> bool:
    """`==1.2.*`: epoch and the written release numbers agree, missing ones counting as zero."""
    count = len(wanted.release)
    return version.epoch == wanted.epoch and (*version.release, *([0] * count))[:count] == wanted.release


def _holds(version: Version, operator: str, text: str) -> bool:
    if text.endswith(".*"):
        if operator not in ("==", "!="):
            raise VersionSyntax(f"{operator}{text} is not a version specifier")
        return _prefix(version, Version(text[:-2])) == (operator == "==")
    wanted = Version(text)
    if operator in ("==", "!="):
        same = version.key == wanted.key if wanted.local else version.public == wanted.public
        return same == (operator == "==")
    if operator == "~=":
        if len(wanted.release) < 2:
            raise VersionSyntax(f"~={text} is not a version specifier")
        count = len(wanted.release) - 1
        head = (*version.release, *([0] * count))[:count]
        return version.public >= wanted.public and version.epoch == wanted.epoch and head == wanted.release[:-1]
    if operator == "<=":
        return version.public <= wanted.public
    if operator == ">=":
        return version.public >= wanted.public
    same_release = version.epoch == wanted.epoch and version.public[1] == wanted.public[1]
    if operator == "<":
        return version.public < wanted.public and not (same_release and version.pre is not None and wanted.pre is None)
    return version.public > wanted.public and not (same_release and version.post is not None and wanted.post is None)


def satisfies(version: str, specifiers: str) -> bool:
    """Whether an installed `version` satisfies `specifiers` (comma separated, may be empty). Raises VersionSyntax."""
    clauses = [_split(clause.strip()) for clause in specifiers.split(",") if clause.strip()]
    parsed: Version | None = None
    for operator, text in clauses:
        if text == version or operator == "===":  # the common pin is decided without taking anything apart
            if operator in ("<", ">", "!=") or (operator == "===" and text.lower() != version.lower()):
                return False
            continue
        parsed = parsed or Version(version)
        if not _holds(parsed, operator, text):
            return False
    return True


def above(version: str, specifiers: str) -> bool:
    """Whether `version` fails `specifiers` because it is too new: it lies beyond an upper bound or a pin."""
    parsed = Version(version)
    for clause in specifiers.split(","):
        if not clause.strip():
            continue
        operator, text = _split(clause.strip())
        if operator in ("<", "<=", "==", "~=") and not _holds(parsed, operator, text):
            wanted = Version(text.removesuffix(".*"))
            if parsed.public >= wanted.public:
                return True
    return False
