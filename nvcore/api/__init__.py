"""What a plugin is written against: contracts, records, errors, offers and hook specifications.

Owns the API generations and the hook marker; everything else lives in one module a topic and is imported on use, because each attrs
class costs about a tenth of a bare interpreter's start. Imports nothing of the host.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs a whole bare start; type checkers take this name as true
if TYPE_CHECKING:
    from typing import Final

    from pluggy import HookimplMarker

__all__ = ["GENERATIONS", "hookimpl"]

# The one API generation of each family of hooks, and of commands, that this host speaks; a plugin of another one is shown as incompatible
# and never imported. The entry-point group of a family is `nvcore.FAMILY.vGENERATION`.
GENERATIONS: Final[dict[str, int]] = {"device": 1, "firmware": 1, "client": 1, "operator": 1, "command": 1}

# Marks a function as an implementation of the hook that it is named after.
hookimpl: HookimplMarker


def __getattr__(name: str) -> object:
    if name == "hookimpl":  # on use: pluggy costs two bare starts, and `plugins list` does without it
        from pluggy import HookimplMarker

        return HookimplMarker("nvcore")
    raise AttributeError(f"module 'nvcore.api' has no attribute {name!r}")
