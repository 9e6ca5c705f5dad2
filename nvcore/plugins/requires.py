"""Requirements of a distribution: one `Requires-Dist` line, its markers, and whether the installed set satisfies it.

Owns no state; pure functions, any thread. Never imports a plugin, `re`, `packaging` (its oracle in the tests) or, unless a marker asks for
it, `platform`. Source: PyPA dependency specifiers (PEP 508).
"""

from __future__ import annotations

from nvcore.plugins.names import normalise
from nvcore.plugins.versions import VersionSyntax, above, satisfies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Requirement", "RequirementSyntax", "Unsatisfied", "check", "parse"]


class RequirementSyntax(ValueError):
    """A `Requires-Dist` line that cannot be understood."""


class Requirement:
    """One requirement: `name` (normalised), `spelled` as written, `specifiers` (may be empty), `marker` (may be empty)."""

    __slots__ = ("marker", "name", "specifiers", "spelled")

    def __init__(self, spelled: str, specifiers: str, marker: str) -> None:
        self.spelled, self.name, self.specifiers, self.marker = spelled, normalise(spelled), specifiers, marker

    def applies(self) -> bool:
        """Whether its marker holds here, with no extra asked for."""
        if not self.marker:
            return True
        from nvcore.plugins.markers import evaluate

        return evaluate(self.marker)


class Unsatisfied:
    """A requirement that the installed set does not meet: what was expected and seen, and the pip line that mends it."""

    __slots__ = ("expected", "remedy", "seen")

    def __init__(self, expected: str, seen: str, remedy: str) -> None:
        self.expected, self.seen, self.remedy = expected, seen, remedy


def parse(line: str) -> Requirement:
    """Take apart `name[extras] (>=1,<2); marker` or `name @ url; marker`. Raises RequirementSyntax."""
    head, _, marker = line.partition(";")
    if "@" in head:  # a direct reference: any version of that name will do; a url may hold a semicolon, the marker then follows " ;"
        head, _, rest = line.partition("@")
        head, marker = head.rstrip(), rest.partition(" ;")[2]
    end = next((at for at, char in enumerate(head) if char in " [(<>=!~\t"), len(head))
    name, tail = head[:end].strip(), head[end:].strip()
    if tail.startswith("["):
        _, closed, tail = tail.partition("]")
        if not closed:
            raise RequirementSyntax(f"{line!r} opens a list of extras and does not close it")
    tail = tail.strip()
    if tail.startswith("(") and tail.endswith(")"):
        tail = tail[1:-1]
    if not name or not name.isascii() or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise RequirementSyntax(f"{line!r} names no distribution")
    return Requirement(name, tail.replace(" ", ""), marker.strip())


def _mend(owner: str, requirement: Requirement, seen: str | None) -> str:
    """The pip line. A host that is newer than a plugin allows means that the plugin was left behind: upgrade the plugin."""
    wanted = f"{requirement.spelled}{requirement.specifiers}"
    if seen is None:
        return f"pip install '{wanted}'"
    if requirement.name == "nvcore" and above(seen, requirement.specifiers):
        return f"pip install --upgrade {owner}"
    return f"pip install --upgrade '{wanted}'"


def check(owner: str, lines: list[str], installed: Mapping[str, str]) -> Unsatisfied | None:
    """The first requirement of `owner` that `installed` (normalised name to version) does not satisfy; None when all hold.

    An installed version of unknown number (empty) satisfies every specifier. Raises RequirementSyntax for a line without sense.
    """
    for line in lines:
        requirement = parse(line)
        try:
            if not requirement.applies():
                continue
            seen = installed.get(requirement.name)
            if seen is not None and (not seen or satisfies(seen, requirement.specifiers)):
                continue
            remedy = _mend(owner, requirement, seen)
        except VersionSyntax as error:
            raise RequirementSyntax(f"{line!r}: {error}") from None
        return Unsatisfied(f"{requirement.spelled}{requirement.specifiers}", seen or "not installed", remedy)
    return None
