"""What the status screen shows beside the GPUs: panels of plugins, the set that is installed, and whether what is denied is absent.

Collecting a panel is an isolation boundary (hook): one that fails is shown as failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvcore.plugins.host import PluginHost
    from nvcore.plugins.index import Index

__all__ = ["SETS", "deny_state", "panels", "sets_of"]

SETS: Final = {"vgpu-host": {"fw_gsp", "vfio"}, "demo": {"fw_gsp", "vfio", "softgpu"}}
"""Named plugin sets (the extras of the distribution nvcore) by the plugins that make them up."""


def sets_of(states: Sequence[dict[str, object]]) -> list[str]:
    """Names of the sets that exactly the usable plugins make up; empty for a set of one's own."""
    here = {str(state["name"]) for state in states if state["state"] in ("registered", "started")}
    return [name for name, plugins in SETS.items() if plugins == here]


def panels(plugins: PluginHost) -> list[dict[str, Any]]:
    """Every panel with its rows, in order."""
    answer = []
    for offer in sorted(plugins.collect("nvcore_status_panels"), key=lambda offer: (offer.order, offer.name)):
        try:
            rows, problem = offer.snapshot(), None
        except Exception as error:  # isolation boundary: hook
            rows, problem = [], f"{type(error).__name__}: {error}"
        columns = [{"key": key, "heading": heading, "side": side} for key, heading, side in offer.columns]
        panel = {"name": offer.name, "schema": offer.schema, "title": offer.summary, "order": offer.order, "columns": columns, "rows": rows}
        answer.append({**panel, "problem": problem} if problem else panel)
    return answer


def deny_state(index: Index, patterns: Sequence[str]) -> list[dict[str, Any]]:
    """For each denied pattern of the configuration, what matches it: nothing, when all is well."""
    if not patterns:
        return []
    from nvcore.plugins.footprint import denied

    return [{"pattern": pattern, "matches": [hit["name"] for hit in denied(index, [pattern])]} for pattern in patterns]
