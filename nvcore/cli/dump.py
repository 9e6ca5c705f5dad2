"""`nvcore dump [FOLDER]`. Main thread."""

from __future__ import annotations

from nvcore.cli.args import parse
from nvcore.cli.output import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvcore.cli.context import Context

__all__ = ["command"]


def command(argv: Sequence[str], context: Context) -> int:
    """Write a post-mortem bundle and name its folder."""
    import os

    given = parse(argv, {"--json": "json?"}, words=(0, 1))
    folder = os.path.abspath(given.words[0]) if given.words else None
    answer = context.call("io.nvcore.Host.Dump", {"folder": folder}, timeout=300.0)
    context.out(document("nvcore.dump/1", answer) if given.flag("json") else f"{answer['folder']}\n")
    return 0
