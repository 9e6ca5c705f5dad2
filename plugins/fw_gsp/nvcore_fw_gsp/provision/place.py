"""Where fetched images lie: the plugin's part of the state directory.

Owns the rule, no file. Any thread. The rule is the host's: `$STATE_DIRECTORY` (a service manager's), else /var/lib/nvcore as root and
`$XDG_STATE_HOME/nvcore` otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["default_folder"]


def default_folder(environ: Mapping[str, str] = os.environ) -> str:
    """The folder that holds `<chip>/gsp/…` of fetched images, whether it exists or not."""
    state = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if not state:
        home = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME") or "/", ".local", "state")
        state = "/var/lib/nvcore" if os.geteuid() == 0 else os.path.join(home, "nvcore")
    return os.path.join(state, "plugins", "fw_gsp", "firmware", "nvidia")
