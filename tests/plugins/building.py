"""Throwaway distributions: a dist-info folder and a module in a temporary folder, as pip would leave them."""

from __future__ import annotations

import csv
from pathlib import Path

from nvcore import __version__

HOST = f"nvcore=={__version__}"

CLIENT = """
from nvcore.api import hookimpl
from nvcore.api.offers import ClientOffer

@hookimpl
def nvcore_client_drivers(host):
    return [ClientOffer(name={name!r}, summary="a toy", functions=[{claim!r}], needs=lambda identity: None, open=lambda: None)]
"""

OBSERVER = """
import time
from nvcore.api import hookimpl

seen = []

@hookimpl
def nvcore_host_started(host):
    seen.append("started")
    {started}

@hookimpl
def nvcore_host_stopping(host):
    seen.append("stopping")
    {stopping}
"""

SECTION = """
import attrs
from nvcore.api import hookimpl
from nvcore.api.offers import ConfigSection

@attrs.frozen
class Settings:
    slots: int = 4
    label: str = "none"

@hookimpl
def nvcore_config_sections(host):
    return [ConfigSection(name="settings", summary="toy settings", record=Settings)]

seen = []

@hookimpl
def nvcore_doctor_checks(host):
    seen.append(host.config)
    return []
"""


def distribution(
    folder: Path,
    name: str,
    *,
    version: str = "1.0",
    points: dict[str, dict[str, str]] | None = None,
    modules: dict[str, str] | None = None,
    requires: tuple[str, ...] = (HOST,),
    files: tuple[str, ...] = (),
) -> Path:
    """Install a distribution: `points` is group to name to value; `modules` is module to source. Returns its dist-info folder."""
    folder.mkdir(parents=True, exist_ok=True)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requires)]
    (info / "METADATA").write_text("\n".join(lines) + "\n\nA long description: with a colon\nRequires-Dist: not-a-header\n")
    if points:
        text = "".join(f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in of.items()) + "\n" for group, of in points.items())
        (info / "entry_points.txt").write_text(text)
    records = [f"{info.name}/METADATA", *files]
    for module, source in (modules or {}).items():
        path = folder / (module.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        records.append(str(path.relative_to(folder)))
    with (info / "RECORD").open("w", newline="") as file:
        csv.writer(file).writerows([record, "", ""] for record in records)
    return info


def plugin(folder: Path, name: str, source: str, *, family: str = "operator", generation: int = 1, **more: object) -> Path:
    """A distribution `toy-NAME` with one plugin `NAME` in one module `toy_NAME`."""
    dist = str(more.pop("dist", f"toy-{name}"))
    module = dist.replace("-", "_")
    points = {f"nvcore.{family}.v{generation}": {name: module}}
    return distribution(folder, dist, points=points, modules={module: source}, **more)  # type: ignore[arg-type]
