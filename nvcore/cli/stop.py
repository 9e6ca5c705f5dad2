"""`nvcore stop`. Main thread."""

from __future__ import annotations

from nvcore.cli.args import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvcore.cli.context import Context

__all__ = ["command"]


def command(argv: Sequence[str], context: Context) -> int:
    """Stop the daemon, and wait until its socket is gone."""
    import os
    import time

    parse(argv, {}, words=(0, 0))
    context.call("io.nvcore.Host.Stop")
    deadline = time.monotonic() + context.timeout
    while os.path.exists(context.socket):
        if time.monotonic() > deadline:
            from nvcore.api.errors import WaitTimeout

            raise WaitTimeout("the daemon did not stop", expected=f"within {context.timeout:g} s", remedy="look at its log")
        time.sleep(0.02)
    return 0
