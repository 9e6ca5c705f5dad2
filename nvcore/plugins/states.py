"""States: one record per plugin, from found to started, or disabled, incompatible, failed; all JSON-able.

Owns the record and its vocabulary. Changed by one thread at a time (the one that owns the host). Never imports a plugin, attrs or pluggy:
`plugins list` builds these for 1.3 of a bare start.
"""

from __future__ import annotations

from nvcore.plugins.index import EntryPoint

TYPE_CHECKING = False  # typing itself costs a whole bare start; type checkers take this name as true
if TYPE_CHECKING:
    from typing import Any

_REASON = 600
_INSIDE = ("families", "key", "hidden")  # fields that no view shows as they are; the others come in their order


class Plugin:
    """One plugin: the entry points of one name in one distribution.

    families: family to entry point of the generation that this host speaks. commands: noun to entry-point value. state: found, selected,
    imported, registered, started, one after the other; or an end: disabled, incompatible, failed.
    hidden: this copy is not the one that the daemon sees.
    code, reason, remedy: why it is in an end state. notes: what a reader should know though it is no failure. hooks: what it implements.
    import_ms: how long its import took, None before it. offers: how many offers its hooks returned. key: unique in a host.
    """

    def __init__(self, name: str, distribution: str, version: str, location: str) -> None:
        self.name, self.distribution, self.version, self.state = name, distribution, version, "found"
        self.code: str | None = None
        self.reason: str | None = None
        self.remedy: str | None = None
        self.required = False
        self.selected_by: str | None = None
        self.offers = 0
        self.import_ms: float | None = None
        self.location = location
        self.notes: list[str] = []
        self.conflicts: list[str] = []
        self.commands: dict[str, str] = {}
        self.hooks: list[str] = []
        self.families: dict[str, EntryPoint] = {}
        self.key, self.hidden = name, False

    def end(self, state: str, code: str | None, reason: str, remedy: str | None) -> None:
        """Put it into an end state. The first failure stands: a later one would hide the cause.

        A reason may quote an exception, so it is made one line of at most _REASON characters: it must not look like a row of its own.
        """
        if self.state not in ("failed", "incompatible"):
            self.state, self.code, self.reason, self.remedy = state, code, " ".join(reason.split())[:_REASON], remedy

    def fail(self, code: str, reason: str, remedy: str | None = None) -> None:
        """Put it into the state failed; without a remedy of its own it is the plugin's authors who have one."""
        self.end("failed", code, reason, remedy or self.complaint)

    @property
    def complaint(self) -> str:
        """What to do about a plugin that is wrong in itself."""
        return f"upgrade {self.distribution} or report it to its authors; until then -p no:{self.name}"

    @property
    def broken(self) -> bool:
        """Whether something about it is wrong (disabled is not wrong)."""
        return self.state in ("failed", "incompatible") or bool(self.conflicts)

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON views and the control socket carry it (schema nvcore.plugins/1)."""
        shown = {field: list(value) if isinstance(value, list) else value for field, value in vars(self).items() if field not in _INSIDE}
        families = {family: point.value for family, point in self.families.items()}
        return {**shown, "families": families, "generations": {family: point.generation for family, point in self.families.items()}}
