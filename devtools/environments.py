"""Python environments, named by the hash of what goes in, and the wheelhouse they are filled from.

Owns `.nvcore/env/` and `.nvcore/wheelhouse/`. Outside packages are downloaded once, with the machine's own pip configuration; every
environment is then filled with `--no-index` from the wheelhouse and from our own wheels: fast, offline, and no stranger's package of our
name can get in. Environments hold no pip.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from devtools.layout import DISTRIBUTIONS, STATE, digest, extra, locked, project
from devtools.pips import pip
from devtools.say import clean_environment, step

__all__ = ["environment", "pip_command", "python_of", "refreshed", "runtime_requirements", "wheelhouse"]

_KEEP = 3  # environments of one name that stay: a checkout is worked on with more than one Python


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "bin/python"


def _this_python() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _key(requirements: Sequence[str]) -> str:
    return digest([sys.version, _this_python(), *sorted(requirements)])


def _forget_old(folder: Path) -> None:
    """Keep the newest few of one name."""
    name = folder.name.rpartition("-")[0]
    old = sorted((p for p in folder.parent.glob(f"{name}-????????????????") if p != folder), key=lambda p: p.stat().st_mtime)
    for path in old[: max(0, len(old) - _KEEP + 1)]:
        shutil.rmtree(path, ignore_errors=True)


def _bare(folder: Path) -> Path:
    """An empty environment without pip; its interpreter. `venv` alone, because Debian's lacks ensurepip."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with step(f"make the environment {folder.name}") as this:
        this.run([_this_python(), "-m", "venv", "--without-pip", folder])
    return python_of(folder)


def pip_command(python: Path, *words: str | Path) -> list[str | Path]:
    """The command line that runs pip on an environment which holds no pip."""
    return [_this_python(), pip(), "--python", python, "-q", *words]


def runtime_requirements() -> list[str]:
    """What every set needs from outside: the host's own requirements, rich for its screens, and hatchling to build our wheels."""
    return sorted({*project(DISTRIBUTIONS[0])["dependencies"], *extra("status"), "hatchling>=1.26"})


def wheelhouse(name: str = "runtime") -> Path:
    """The folder of outside wheels: "runtime" is enough to build and run every set, "dev" has the tools of test and lint as well."""
    requirements = runtime_requirements()
    if name == "dev":
        requirements = sorted({*requirements, *extra("dev")})
    house = STATE / "wheelhouse" / f"{name}-{_key(requirements)}"
    with locked("download"):
        _download(name, house, requirements)
    return house


def _download(name: str, house: Path, requirements: Sequence[str]) -> None:
    if not (house / ".ready").exists():
        python = _bare(STATE / "env" / f"download-{_key(())}")
        shutil.rmtree(house, ignore_errors=True)
        house.mkdir(parents=True)
        with step(f"download {'the tools of test and lint' if name == 'dev' else 'what the sets need'} from the package index") as this:
            this.remedy = "pip asks the index that its own configuration names (pip config list): it must be reachable, once"
            this.run(pip_command(python, "download", "--only-binary=:all:", "-d", house, *requirements), timeout=900)
            this.note = f"{len(list(house.glob('*.whl')))} wheels"
        (house / ".ready").touch()
        _forget_old(house)


def environment(name: str, requirements: Sequence[str], *, house: Path, own: Path | None = None) -> Path:
    """An environment of this name with exactly these requirements; made only when what goes in has changed. Its folder.

    own: folder of our own wheels that the requirements may name; they count by content (wheel names do not change with it).
    """
    with locked(f"environment {name}"):
        content = sorted(own.glob("*.whl")) if own else []
        folder = STATE / "env" / f"{name}-{digest([_key(requirements), house.name, *(p.name + digest([p.read_bytes()]) for p in content)])}"
        if not (folder / ".ready").exists():
            _fill(folder, requirements, house, own)
            _forget_old(folder)
        os.utime(folder)
    return folder


def refreshed(folder: Path, own: Path) -> None:
    """Put our own wheels into an environment that has everything else, replacing those of an earlier state of the sources.

    Waits for whoever uses the environment (holding "tests" shared): its packages are not exchanged under a running test.
    """
    wheels = sorted(own.glob("*.whl"))
    stamp, state = folder / ".own", digest(wheels)
    if stamp.exists() and stamp.read_text() == state:
        return
    with locked("our wheels", "tests"):
        if stamp.exists() and stamp.read_text() == state:
            return
        stamp.unlink(missing_ok=True)
        with step(f"install our {len(wheels)} wheels into {folder.name}") as this:
            this.run(pip_command(python_of(folder), "install", "--no-index", "--no-deps", "--force-reinstall", *wheels))
        stamp.write_text(state)


def _fill(folder: Path, requirements: Sequence[str], house: Path, own: Path | None) -> None:
    python = _bare(folder)
    links: list[str | Path] = ["--no-index", "--find-links", house, *(("--find-links", own) if own else ())]
    with step(f"install {_shown(requirements)} into {folder.name}") as this:
        env = clean_environment()
        this.run(pip_command(python, "install", *links, *requirements), env=env, timeout=900)
    (folder / ".ready").touch()


def _shown(requirements: Sequence[str]) -> str:
    return ", ".join(requirements) if len(requirements) <= 4 else f"{len(requirements)} requirements"
