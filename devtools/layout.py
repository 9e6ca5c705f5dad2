"""Where things are: the checkout, its distributions, and the folder that holds everything made from it.

Owns the names below `.nvcore/`; reads the pyproject files, which are the one place of versions, requirements and sets.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["DISTRIBUTIONS", "ROOT", "STATE", "Distribution", "digest", "extra", "locked", "project", "tree"]

ROOT: Final = Path(__file__).resolve().parent.parent
"""The checkout."""

STATE: Final = Path(os.environ.get("NVCORE_DEV_STATE") or ROOT / ".nvcore").absolute()
"""Everything that dev.py makes; may be deleted at any time. `NVCORE_DEV_STATE` puts it elsewhere."""


@dataclass(frozen=True)
class Distribution:
    """One distribution of the checkout: its name, its module and the folder of its pyproject.toml."""

    name: str
    module: str
    folder: Path

    @property
    def package(self) -> Path:
        """The folder of the module's sources."""
        return self.folder / self.module


DISTRIBUTIONS: Final = (
    Distribution("nvcore", "nvcore", ROOT),
    Distribution("nvcore-fw-gsp", "nvcore_fw_gsp", ROOT / "plugins/fw_gsp"),
    Distribution("nvcore-vfio", "nvcore_vfio", ROOT / "plugins/vfio"),
    Distribution("nvcore-softgpu", "nvcore_softgpu", ROOT / "plugins/softgpu"),
)
"""The host first, then its plugins."""


def project(distribution: Distribution) -> dict[str, Any]:
    """The [project] table of a distribution."""
    with open(distribution.folder / "pyproject.toml", "rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


def extra(name: str) -> list[str]:
    """The requirements of one extra of nvcore that come from outside this checkout."""
    own = {d.name for d in DISTRIBUTIONS}
    listed: list[str] = project(DISTRIBUTIONS[0])["optional-dependencies"][name]
    return [r for r in listed if r.split("=")[0].split("[")[0].strip() not in own]


def tree(folder: Path) -> Iterator[Path]:
    """Every source file below a folder, in a stable order, without what Python leaves behind."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def digest(parts: Iterable[str | bytes | Path]) -> str:
    """A short name for content: the hash of texts, and of files with their names."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            total.update(str(part).encode() + b"\0" + hashlib.sha256(part.read_bytes()).digest())
        else:
            total.update(part.encode() if isinstance(part, str) else part)
        total.update(b"\1")
    return total.hexdigest()[:16]


@contextmanager
def locked(what: str, name: str | None = None, *, shared: bool = False) -> Iterator[None]:
    """Only one dev.py at a time changes what lies under STATE; a second one says that it waits.

    name: of another lock: "pip", "tests" (their environment) or "demo". Who holds one of these never takes the first. shared: many may.
    """
    STATE.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with open(STATE / ("lock" if name is None else f"{name}.lock"), "w") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"  waiting: another dev.py is busy ({what} comes next)", flush=True)
            fcntl.flock(file, kind)
        yield
