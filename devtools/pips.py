"""Where pip comes from on a machine that has only `python3`.

Owns `.nvcore/pip/`: pip's own wheel, unpacked, run with `--python` on environments that hold no pip. Taken from ensurepip where Python
brings it; on a Debian without python3-venv from the package python3-pip-whl, fetched into an apt state of our own, which needs no root
and changes nothing on the machine. Where packages come from is the machine's own apt and pip configuration; no address stands here.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
import zipfile
from contextlib import suppress
from pathlib import Path

from devtools.layout import STATE, digest, locked
from devtools.say import Failed, Step, step

__all__ = ["apt_options", "pip"]

_PACKAGE = "python3-pip-whl"
_REMEDY = "install it once as root: apt-get install python3-venv"


def pip() -> Path:
    """The folder to hand to a Python as its program: `python PIP --python ENVIRONMENT install …`."""
    bundled = _bundled()
    key = digest([bundled]) if bundled else "debian"
    home = STATE / "pip" / key
    with locked("pip", "pip"):
        if not (home / ".ready").exists():
            _make(home, bundled)
    return home / "pip"


def _make(home: Path, bundled: Path | None) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    if bundled:
        _unpack(bundled, home)
    else:
        with step(f"fetch pip from the Debian package {_PACKAGE} (this Python has no ensurepip)") as this:
            this.remedy = f"apt-get must reach Debian's archive, once; or {_REMEDY}"
            _unpack(_from_debian(this), home)
    (home / ".ready").touch()


def _bundled() -> Path | None:
    """The newest pip wheel that this Python brings along."""
    folders = [Path(sysconfig.get_path("stdlib")) / "ensurepip/_bundled"]
    debian = sysconfig.get_config_var("WHEEL_PKG_DIR") or "/usr/share/python-wheels"
    folders.append(Path(debian))
    found = [wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"))]
    return found[-1] if found else None


def _unpack(wheel: Path, home: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home)


def apt_options(state: Path) -> list[str]:
    """Options that keep apt inside `state`: its lists, its archives, an empty package status. Sources stay the machine's."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    values = {
        "Dir::State": state / "state", "Dir::State::status": state / "status", "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "", "Acquire::Languages": "none", "Acquire::Retries": "3", "Debug::NoLocking": "1",
    }
    return [word for key, value in values.items() for word in ("-o", f"{key}={value}")]


def _from_debian(this: Step) -> Path:
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt is None or dpkg is None:
        raise Failed(f"{sys.executable} has no ensurepip, and there is no apt-get to fetch pip with: {_REMEDY}")
    state = STATE / "apt"
    options = apt_options(state)
    # One unreachable source of a third party must not stop us; where it was Debian's, the download below fails and says so.
    with suppress(Failed):
        this.run([apt, *options, "-q", "update"], timeout=300)
    fetched = state / "fetched"
    shutil.rmtree(fetched, ignore_errors=True)
    fetched.mkdir()
    this.run([apt, *options, "-q", "download", _PACKAGE], cwd=fetched, timeout=300)
    for package in fetched.glob("*.deb"):
        this.run([dpkg, "-x", package, fetched / "root"])
    wheels = sorted(fetched.glob("root/usr/share/python-wheels/pip-*.whl"))
    if not wheels:
        raise this.failed(f"no pip wheel in {_PACKAGE}")
    return wheels[-1]
