"""`dev.py wheels`: our four wheels, built once for each state of the sources.

Owns `.nvcore/wheels/`. A wheel is built again only when something that goes into it changed; `pip wheel --no-build-isolation` in one
environment with hatchling takes a quarter of the time of isolated builds. Prints the folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from devtools.environments import environment, pip_command, python_of, wheelhouse
from devtools.layout import DISTRIBUTIONS, ROOT, STATE, Distribution, digest, locked, tree
from devtools.say import say, step

__all__ = ["build", "main"]

_KEEP = 6  # sets of wheels that stay


def _sources(distribution: Distribution) -> list[Path]:
    beside = [distribution.folder / "pyproject.toml", ROOT / "LICENSE"]
    if distribution.folder == ROOT:
        beside.append(ROOT / "README.md")
    return [*beside, *tree(distribution.package)]


def _relative(paths: Sequence[Path]) -> list[str | bytes]:
    return [part for path in paths for part in (str(path.relative_to(ROOT)), path.read_bytes())]


def build() -> Path:
    """The folder with one wheel of each distribution, as the sources are now."""
    house = wheelhouse()
    maker = environment("build", ["hatchling>=1.26"], house=house)
    with locked("wheels"):
        keys = {d: digest(_relative(_sources(d))) for d in DISTRIBUTIONS}
        one = STATE / "wheels"
        stale = [d for d in DISTRIBUTIONS if not (one / f"{d.module}-{keys[d]}").exists()]
        if stale:
            _make(stale, keys, one, maker)
        together = one / f"set-{digest(sorted(keys[d] for d in DISTRIBUTIONS))}"
        if not together.exists():
            fresh = together.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            for d in DISTRIBUTIONS:
                for wheel in (one / f"{d.module}-{keys[d]}").glob("*.whl"):
                    shutil.copy2(wheel, fresh)
            fresh.rename(together)
        _forget(one, keep={together.name, *(f"{d.module}-{keys[d]}" for d in DISTRIBUTIONS)})
    return together


def _make(stale: Sequence[Distribution], keys: dict[Distribution, str], one: Path, maker: Path) -> None:
    out = one / "building"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with step(f"build {len(stale)} wheel{'s' if len(stale) > 1 else ''}: {', '.join(d.name for d in stale)}") as this:
        command = pip_command(python_of(maker), "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", out)
        this.run([*command, *(d.folder for d in stale)], timeout=600)
        for d in stale:
            found = list(out.glob(f"{d.module}-*.whl"))
            if len(found) != 1:
                raise this.failed(f"expected one wheel of {d.name}, found {len(found)}")
            place = one / f"{d.module}-{keys[d]}"
            place.mkdir(exist_ok=True)
            os.replace(found[0], place / found[0].name)


def _forget(one: Path, keep: set[str]) -> None:
    for prefix in ("set", *(d.module for d in DISTRIBUTIONS)):
        old = sorted((p for p in one.glob(f"{prefix}-????????????????") if p.name not in keep), key=lambda p: p.stat().st_mtime)
        for path in old[: max(0, len(old) - _KEEP)]:
            shutil.rmtree(path, ignore_errors=True)


def main(argv: list[str]) -> int:
    """Build what changed and say where the wheels are; with a folder as argument, copy them there."""
    wheels = build()
    for wheel in sorted(wheels.glob("*.whl")):
        say(f"  {wheel.name}  {wheel.stat().st_size / 1024:.0f} KiB")
    if argv:
        target = Path(argv[0])
        target.mkdir(parents=True, exist_ok=True)
        for wheel in wheels.glob("*.whl"):
            shutil.copy2(wheel, target)
        wheels = target
    say(str(wheels))
    return 0
