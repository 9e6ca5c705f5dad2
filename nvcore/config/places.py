"""Places: where the host keeps its socket, its state and its configuration. Pure but for the environment; any thread.

Root uses /run/nvcore and /var/lib/nvcore, others $XDG_RUNTIME_DIR/nvcore and $XDG_STATE_HOME/nvcore; systemd's $RUNTIME_DIRECTORY and
$STATE_DIRECTORY go first. NVCORE_SOCKET names the socket itself; NVCORE_CONFIG one more file, laid over the system's.
Source: file-hierarchy(7), XDG base directory specification 0.8, systemd.exec(5).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from nvcore.api.errors import DeniedError

USR_LIB = "/usr/lib/nvcore"  # the vendor's files
ETC = "/etc/nvcore"  # the operator's


def _folder(environ: Mapping[str, str], systemd: str, root: str, xdg: str, otherwise: str) -> str:
    """The first of: what systemd gives, root's place, the user's place below an XDG folder or, without one, below `otherwise`."""
    if given := environ.get(systemd):
        return given.partition(":")[0]
    return root if os.geteuid() == 0 else os.path.join(environ.get(xdg) or otherwise, "nvcore")


def runtime_dir(environ: Mapping[str, str] = os.environ) -> str:
    """Folder of the control socket. Not created here. Raises DeniedError where it would be one in /tmp that others may write to."""
    shared = f"/tmp/nvcore-{os.geteuid()}"
    folder = _folder(environ, "RUNTIME_DIRECTORY", "/run/nvcore", "XDG_RUNTIME_DIR", shared)
    if folder == f"{shared}/nvcore" and os.path.lexists(shared):
        about = os.lstat(shared)
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o022:
            seen, remedy = f"owner {about.st_uid}, {stat.filemode(about.st_mode)}", "set XDG_RUNTIME_DIR or NVCORE_SOCKET, or remove it"
            raise DeniedError("somebody else can write to the folder of the control socket", where=shared, seen=seen, remedy=remedy)
    return folder


def state_dir(environ: Mapping[str, str] = os.environ) -> str:
    """Folder of what must survive a restart. Not created here."""
    home = environ.get("HOME") or os.path.expanduser("~")
    return _folder(environ, "STATE_DIRECTORY", "/var/lib/nvcore", "XDG_STATE_HOME", os.path.join(home, ".local", "state"))


def socket_path(environ: Mapping[str, str] = os.environ) -> str:
    """The control socket: NVCORE_SOCKET, or `nvcore.sock` in the runtime folder."""
    return environ.get("NVCORE_SOCKET") or os.path.join(runtime_dir(environ), "nvcore.sock")


def _toml(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".toml") and name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return []


def config_files(given: str | None = None, *, environ: Mapping[str, str] = os.environ, usr: str = USR_LIB, etc: str = ETC) -> list[str]:
    """Configuration files in the order in which they apply; later ones win.

    Vendor files, nvcore.toml, then drop-ins in lexical order (one masks the vendor file of its name), NVCORE_CONFIG, `given` (`--config`).
    Raises PermissionError where a folder cannot be listed.
    """
    drop_ins = os.path.join(etc, "conf.d")
    late = _toml(drop_ins)
    files = [os.path.join(usr, name) for name in _toml(usr) if name not in late]
    main = os.path.join(etc, "nvcore.toml")
    if os.path.lexists(main):
        files.append(main)
    files += [os.path.join(drop_ins, name) for name in late]
    return files + [path for path in (environ.get("NVCORE_CONFIG"), given) if path]
