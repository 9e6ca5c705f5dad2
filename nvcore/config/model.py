"""The configuration as the host uses it: plain records, with the origin of every value. Built by `files`, read by anyone; changes nothing.

The core's own tables are declared here, once: a class is a table, a field a key with its type and default. A plugin's table
`[plugins.NAME]` is kept as it is until the plugin is loaded and its record can check it (`sections`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from nvcore.api.errors import ConfigError

# Keys from the top; an element of an array of tables by its number, from 0.
Path = tuple[str | int, ...]


class Host(NamedTuple):
    """`[host]`.

    socket: path of the control socket, by default in the runtime folder. state_dir: folder of what survives a restart. log_level: how much
    is logged. time_scale: factor on every time-out, for slow hosts and emulation; above 0. group: its members may control the daemon.
    """

    socket: str | None = None
    state_dir: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    time_scale: float = 1.0
    group: str = "nvcore"


class Gpu(NamedTuple):
    """One `[[gpu]]`.

    source: where the device comes from, as in softgpu:ga100?vram=40G. firmware: label of the version to boot, by default the backend's
    choice. backend: firmware backend (plugin or offer name), where two claim the chip.
    """

    source: str
    firmware: str | None = None
    backend: str | None = None


class Lists(NamedTuple):
    """The lists of `[plugins]`.

    only: load these plugins and no other; None for all. disable: never load these. required: the host does not start without these.
    deny: patterns that nothing installed may match (`nvcore plugins footprint`).
    """

    only: list[str] | None = None
    disable: Sequence[str] = ()
    required: Sequence[str] = ()
    deny: Sequence[str] = ()


class Tables(NamedTuple):
    """The core's own tables."""

    host: Host = Host()
    gpu: Sequence[Gpu] = ()
    plugins: Lists = Lists()


class Configuration:
    """Everything that was configured. tree: the merged tables; origins: path to "file:line" (or "command line"); files: those read;
    sections: the tables `[plugins.NAME]` as written, by name."""

    def __init__(self, tables: Tables, tree: dict[str, Any], origins: dict[Path, str], files: list[str]) -> None:
        self.host, self.gpus, self.plugins = tables
        self.tree, self.origins, self.files = tree, origins, files
        self.sections = {name: value for name, value in tree.get("plugins", {}).items() if isinstance(value, dict)}

    def where(self, *path: str | int) -> str:
        """File and line of a key, "default" where nobody set it."""
        return self.origins.get(path, "default")

    def check_names(self, plugins: Mapping[str, str], with_record: set[str]) -> None:
        """Refuse a section that nobody reads: of a plugin that is not installed, or that works and declares none. Raises ConfigError.

        plugins: name to state. A section of a plugin that is disabled or broken is left alone: it cannot be judged.
        """
        for name in self.sections:
            section, where = f"section [plugins.{name}]", self.origins.get(("plugins", name))
            if name not in plugins:
                expected = f"one of {', '.join(sorted(plugins)) or 'none'}"
                what = f"{section} is of a plugin that is not installed"
                raise ConfigError(what, where=where, expected=expected, remedy="install it, or remove the section")
            if plugins[name] == "registered" and name not in with_record:
                raise ConfigError(f"plugin {name} has no configuration", where=where, seen=section, remedy="remove the section")
