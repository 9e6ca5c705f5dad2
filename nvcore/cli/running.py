"""The running daemon's plugins, if there is a daemon. Main thread. Costs one `stat` where there is none."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nvcore.cli.context import Context
    from nvcore.plugins.index import Index

__all__ = ["plugins_of_daemon"]


def plugins_of_daemon(context: Context, index: Index) -> list[dict[str, Any]] | None:
    """The daemon's states (`io.nvcore.Plugin.List`), with notes on what changed on the disk since; None where no daemon answers."""
    if not os.path.exists(context.socket):
        return None
    from nvcore.api.errors import UnreachableError
    from nvcore.plugins.compare import changes_on_disk

    try:
        rows = list(context.call("io.nvcore.Plugin.List")["plugins"])
    except UnreachableError:
        return None  # a socket left behind; what the disk says is the best answer there is
    changes_on_disk(rows, index)
    return rows
