"""Post-mortem bundles: where `nvcore dump` writes, and what the daemon adds to what the core knows."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nvcore.api.errors import UsageError

if TYPE_CHECKING:
    from nvcore.daemon.daemon import Daemon

__all__ = ["write"]


def write(daemon: Daemon, folder: str | None) -> str:
    """Write a bundle; the folder. folder: a new or empty one, absolute; None: below the state directory, named by the time."""
    if folder is None:
        place = daemon.state_dir / "dumps" / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    else:
        place = Path(folder)
        if not place.is_absolute():
            raise UsageError("the folder of a dump must be absolute", seen=ascii(folder))
        if place.exists() and any(place.iterdir()):
            raise UsageError("the folder of a dump must be new or empty", seen=ascii(folder))
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        daemon.host.dump(place)
        (place / "plugins.json").write_text(json.dumps(daemon.plugins(), indent=1))
    except OSError as error:
        raise UsageError("the bundle cannot be written", seen=error.strerror, where=str(place)) from error
    return str(place)
