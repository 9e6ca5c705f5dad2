"""The operator's side of fw_gsp: the configuration section `[plugins.fw_gsp]`.

Owns the record and its checks. The hook is called once, on the main thread; the record is read when folders are searched or a VBIOS
is looked for, on a GPU's life-cycle thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import attrs

from nvcore.api import hookimpl
from nvcore.api.offers import ConfigSection, HostInfo

__all__ = ["SECTION", "FwGspConfig", "nvcore_config_sections"]


def _absolute(record: object, field: object, folders: tuple[str, ...]) -> None:
    for folder in folders:
        if not os.path.isabs(folder):
            raise ValueError(f"firmware_dir with absolute folders, not {folder!r}: the daemon runs in a folder of its own")


def _file_paths(record: object, field: object, paths: tuple[str, ...]) -> None:
    for path in paths:
        if not os.path.isabs(path) or "\0" in path:
            raise ValueError(f"vbios with absolute paths without NUL, not {path!r}: the daemon runs in a folder of its own")


@attrs.frozen
class FwGspConfig:
    """`[plugins.fw_gsp]`. firmware_dir: folders with `<chip>/gsp/…` (or `nvidia/<chip>/gsp/…`), looked in before all others, in order.
    vbios: files with ROMs, tried in order for GPUs whose own ROM cannot be used; each begins with its first image or an IFR header."""

    firmware_dir: tuple[str, ...] = attrs.field(default=(), validator=_absolute)
    vbios: tuple[str, ...] = attrs.field(default=(), validator=_file_paths)


SECTION = ConfigSection("fw_gsp", "where firmware images and VBIOS files lie", FwGspConfig)
"""What the configuration knows of this plugin."""


@hookimpl
def nvcore_config_sections(host: HostInfo) -> Iterable[ConfigSection]:
    """The section `[plugins.fw_gsp]`."""
    return [SECTION]
