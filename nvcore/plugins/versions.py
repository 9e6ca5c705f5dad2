"""Versions and requirements: which version is newer, what a `Requires-Dist` line asks for, and whether what is installed satisfies it.

Owns no state; pure functions, any thread. `re` (half a bare start) is imported only for a version that is more than numbers and dots, and
`platform` only for a marker; never a plugin, never `packaging`, which is the oracle in the tests.
Source: PyPA version specifiers (PEP 440), dependency specifiers (PEP 508).
"""

from __future__ import annotations

from nvcore.plugins.names import normalise

_PATTERN = (
    r"v?(?:(\d+)!)?(\d+(?:\.\d+)*)"  # epoch, release
    r"(?:[-_.]?(alpha|a|beta|b|preview|pre|c|rc)[-_.]?(\d*))?"
    r"(?:-(\d+)|[-_.]?(post|rev|r)[-_.]?(\d*))?"  # a post-release, without and with its word
    r"(?:[-_.]?(dev)[-_.]?(\d*))?"
    r"(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?"
)
_OPERATORS = ("===", "~=", "==", "!=", "<=", ">=", "<", ">")
_NEVER = float("inf")
_LIMIT = 200


class VersionSyntax(ValueError):
    """A version, a specifier, a marker or a requirement that the specifications do not allow."""


class Version:
    """One version, taken apart.

    `key` orders as PEP 440 does; `public` is the key without the local part; `early`: a pre-release or development release; `first`: the
    public key of its own earliest development release, below which lies what is less than it; `release`: epoch and numbers as written.
    """

    __slots__ = ("early", "first", "key", "local", "public", "release")

    def __init__(self, text: str) -> None:
        epoch, numbers, pre, number, minus, post, nth, dev, day, self.local = _parts(text)
        self.release = short = (int(epoch or 0), *map(int, numbers.split(".")))
        while len(short) > 1 and short[-1] == 0:
            short = short[:-1]
        after = int(minus or nth or 0) if minus or post else -1
        self.early = bool(pre or dev)
        before: tuple[str | int, ...] = ("z",)  # a final release sorts behind its candidates
        if pre:  # every word but these two makes a release candidate
            before = (pre[0] if pre[0] in "ab" else "rc", int(number or 0))
        elif dev and after < 0:
            before = ("",)
        self.public = (short, before, after, int(day or 0) if dev else _NEVER)
        self.first = (short, ("",) if after < 0 else before, after, 0)
        words = self.local.replace("-", ".").replace("_", ".").split(".") if self.local else ()
        self.key = (*self.public, tuple((1, int(word), "") if word.isdigit() else (0, 0, word) for word in words))


def _parts(text: str) -> tuple[str, ...]:
    """The ten groups of _PATTERN, empty where the version has no such part."""
    text = text.strip().lower()
    if text.isascii() and len(text) <= _LIMIT:
        if all(word.isdigit() for word in text.split(".")):
            return "", text, "", "", "", "", "", "", "", ""
        import re

        if match := re.fullmatch(_PATTERN, text):
            return match.groups("")
    raise VersionSyntax(f"{text[:_LIMIT]!r} is not a version")


def _holds(version: Version, operator: str, text: str) -> bool:
    wildcard = text.endswith(".*")
    wanted = Version(text.removesuffix(".*"))
    if wildcard or operator == "~=":  # the written release numbers agree, missing ones counting as zero
        head = wanted.release if wildcard else wanted.release[:-1]
        if len(head) < 2 or (wildcard and operator not in ("==", "!=")):
            raise VersionSyntax(f"{operator}{text} is not a version specifier")
        inside = (*version.release, *[0] * len(head))[: len(head)] == head
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
    family = wanted.public[2:] == (-1, _NEVER)  # then its post-releases are not above it
    return version.public > wanted.public and not (family and version.public[:2] == wanted.public[:2])


def _failing(version: str, specifiers: str) -> tuple[str, str] | None:
    """Operator and version of the first clause that does not hold."""
    for clause in filter(None, map(str.strip, specifiers.split(","))):
        operator = next((one for one in _OPERATORS if clause.startswith(one)), "")
        text = clause[len(operator) :].strip()
        if not operator:
            raise VersionSyntax(f"{clause!r} is not a version specifier")
        if text == version or operator == "===":  # the common pin is decided without taking anything apart
            holds = operator not in ("<", ">", "!=") and (operator != "===" or text.lower() == version.lower())
        else:
            holds = _holds(Version(version), operator, text)
        if not holds:
            return operator, text
    return None


def satisfies(version: str, specifiers: str) -> bool:
    """Whether an installed `version` satisfies `specifiers` (comma separated, may be empty). Raises VersionSyntax."""
    return _failing(version, specifiers) is None


def above(version: str, specifiers: str) -> bool:
    """Whether `version` fails `specifiers` because it is too new: it lies beyond an upper bound or a pin."""
    operator, text = _failing(version, specifiers) or ("", "")
    return operator in ("<", "<=", "==", "~=") and Version(version).public >= Version(text.removesuffix(".*")).public


def parse(line: str) -> tuple[str, str, str]:
    """Take apart `name[extras] (>=1,<2); marker` or `name @ url; marker`: name as spelled, specifiers, marker. Raises VersionSyntax."""
    head, _, marker = line.partition(";")
    if "@" in head:  # a direct reference: any version of that name will do; a url may hold a semicolon, the marker then follows " ;"
        head, _, rest = line.partition("@")
        head, marker = head.rstrip(), rest.partition(" ;")[2]
    end = next((at for at, char in enumerate(head) if char in " [(<>=!~\t"), len(head))
    name, tail = head[:end].strip(), head[end:].strip()
    if tail.startswith("["):
        _, closed, tail = tail.partition("]")
        if not closed:
            raise VersionSyntax(f"{line!r} opens a list of extras and does not close it")
    tail = tail.strip()
    if tail.startswith("(") and tail.endswith(")"):
        tail = tail[1:-1]
    if not name or not name.isascii() or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise VersionSyntax(f"{line!r} names no distribution")
    return name, tail.replace(" ", ""), marker.strip()


def applies(marker: str) -> bool:
    """Whether a requirement with this marker, which may be empty, is one here, with no extra asked for. Raises VersionSyntax."""
    if not marker:
        return True
    from nvcore.plugins.markers import evaluate

    return evaluate(marker)


def check(owner: str, lines: list[str], installed: dict[str, str]) -> tuple[str, str] | None:
    """What is wrong about the first requirement of `owner` that `installed` (normalised name to version) does not satisfy, and the pip line
    that mends it; None when all hold.

    An installed version of unknown number (empty) satisfies every specifier. A host that is newer than a plugin allows means that the
    plugin was left behind: it is the plugin that is upgraded. Raises VersionSyntax for a line without sense.
    """
    for line in lines:
        spelled, specifiers, marker = parse(line)
        name = normalise(spelled)
        seen = installed.get(name)
        try:
            if not applies(marker) or (seen is not None and (not seen or satisfies(seen, specifiers))):
                continue
            behind = seen and name == "nvcore" and above(seen, specifiers)
        except VersionSyntax as error:
            raise VersionSyntax(f"{line!r}: {error}") from None
        wanted = spelled + specifiers
        remedy = f"--upgrade {owner}" if behind else f"--upgrade '{wanted}'" if seen else f"'{wanted}'"
        return f"requires {wanted}; seen {seen or 'not installed'}", f"pip install {remedy}"
    return None
