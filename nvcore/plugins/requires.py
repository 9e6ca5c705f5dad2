"""Requirements of a distribution: one `Requires-Dist` line, its markers, and whether the installed set satisfies it.

Owns no state; pure functions, any thread. Never imports a plugin, `re`, `packaging` (its oracle in the tests) or, unless a marker asks for
it, `platform`. Source: PyPA dependency specifiers (PEP 508).
"""

from __future__ import annotations

from nvcore.plugins.names import normalise
from nvcore.plugins.versions import VersionSyntax, above, satisfies

__all__ = ["Requirement", "RequirementSyntax", "check", "parse"]


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


def check(owner: str, lines: list[str], installed: dict[str, str]) -> tuple[str, str] | None:
    """What is wrong about the first requirement of `owner` that `installed` (normalised name to version) does not satisfy, and the pip line
    that mends it; None when all hold.

    An installed version of unknown number (empty) satisfies every specifier. A host that is newer than a plugin allows means that the
    plugin was left behind: it is the plugin that is upgraded. Raises RequirementSyntax for a line without sense.
    """
    for line in lines:
        requirement = parse(line)
        wanted, seen = requirement.spelled + requirement.specifiers, installed.get(requirement.name)
        try:
            if not requirement.applies() or (seen is not None and (not seen or satisfies(seen, requirement.specifiers))):
                continue
            behind = seen and requirement.name == "nvcore" and above(seen, requirement.specifiers)
        except VersionSyntax as error:
            raise RequirementSyntax(f"{line!r}: {error}") from None
        remedy = f"--upgrade {owner}" if behind else f"--upgrade '{wanted}'" if seen else f"'{wanted}'"
        return f"requires {wanted}; seen {seen or 'not installed'}", f"pip install {remedy}"
    return None
