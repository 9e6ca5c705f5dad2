"""The configuration as the host uses it: plain records, with the origin of every value. Built by `files`, read by anyone; changes nothing.

The core's own tables are declared here, once: key, type, default, meaning. A plugin's table `[plugins.NAME]` is kept as it is until the
plugin is loaded and its record can check it (`sections`).
"""

from __future__ import annotations

from nvcore.api.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from nvcore.config.lines import Path

__all__ = ["GPU", "HOST", "LISTS", "Configuration", "Gpu", "Host", "Key", "Lists", "Section", "known", "wrong_type"]


class Key:
    """One key of a core table. kind: "text" (`choices`: these words only), "texts", "number"; default None: decided at run time."""

    __slots__ = ("choices", "default", "kind", "meaning")

    def __init__(self, kind: str, default: object, meaning: str, choices: tuple[str, ...] = ()) -> None:
        self.kind, self.default, self.meaning, self.choices = kind, default, meaning, choices


HOST: dict[str, Key] = {
    "socket": Key("text", None, "path of the control socket; by default in the runtime folder"),
    "state_dir": Key("text", None, "folder of what survives a restart"),
    "log_level": Key("text", "info", "how much is logged", ("debug", "info", "warning", "error")),
    "time_scale": Key("number", 1.0, "factor on every time-out, for slow hosts and emulation; above 0"),
    "group": Key("text", "nvcore", "members of this group may control the daemon"),
}
GPU: dict[str, Key] = {
    "source": Key("text", None, "where the device comes from, as in softgpu:ga100?vram=40G, pci:0000:41:00.0, vfio-user:/path"),
    "firmware": Key("text", None, "label of the firmware version to boot; by default the backend's choice"),
    "backend": Key("text", None, "firmware backend (plugin or offer name), where two claim the chip"),
}
LISTS: dict[str, Key] = {
    "only": Key("texts", None, "load these plugins and no other"),
    "disable": Key("texts", (), "never load these"),
    "required": Key("texts", (), "the host does not start without these"),
    "deny": Key("texts", (), "patterns that nothing installed may match (nvcore plugins footprint)"),
}


class Host:
    """`[host]`: see HOST."""

    __slots__ = ("group", "log_level", "socket", "state_dir", "time_scale")

    def __init__(self, socket: str | None, state_dir: str | None, log_level: str, time_scale: float, group: str) -> None:
        self.socket, self.state_dir, self.log_level, self.time_scale, self.group = socket, state_dir, log_level, time_scale, group


class Gpu:
    """One `[[gpu]]`: see GPU. where: file and line."""

    __slots__ = ("backend", "firmware", "source", "where")

    def __init__(self, source: str, firmware: str | None, backend: str | None, where: str) -> None:
        self.source, self.firmware, self.backend, self.where = source, firmware, backend, where


class Lists:
    """The lists of `[plugins]`: see LISTS. only: None for "all"."""

    __slots__ = ("deny", "disable", "only", "required")

    def __init__(self, only: list[str] | None, disable: list[str], required: list[str], deny: list[str]) -> None:
        self.only, self.disable, self.required, self.deny = only, disable, required, deny


class Section:
    """One `[plugins.NAME]` as written: `table`, and `where(path)` giving file and line of a key in it."""

    __slots__ = ("_origins", "name", "table")

    def __init__(self, name: str, table: dict[str, Any], origins: Mapping[Path, str]) -> None:
        self.name, self.table, self._origins = name, table, origins

    def where(self, *path: str | int) -> str:
        """File and line of a key, or of the nearest table around it that has a place."""
        return place(self._origins, ("plugins", self.name, *path))


class Configuration:
    """Everything that was configured. tree: the merged tables; origins: path to "file:line" (or "command line"); files: those read."""

    __slots__ = ("files", "gpus", "host", "origins", "plugins", "tree")

    def __init__(
        self, host: Host, gpus: list[Gpu], plugins: Lists, tree: dict[str, Any], origins: dict[Path, str], files: list[str]
    ) -> None:
        self.host, self.gpus, self.plugins, self.tree, self.origins, self.files = host, gpus, plugins, tree, origins, files

    def sections(self) -> list[str]:
        """Names of plugins that have a section."""
        return [name for name, value in self.tree.get("plugins", {}).items() if isinstance(value, dict)]

    def section(self, name: str) -> Section | None:
        """The section of a plugin, None without one."""
        table = self.tree.get("plugins", {}).get(name)
        return Section(name, table, self.origins) if isinstance(table, dict) else None

    def where(self, *path: str | int) -> str:
        """File and line of a key, "default" where nobody set it."""
        return self.origins.get(path, "default")

    def check_names(self, plugins: Mapping[str, str], with_record: set[str]) -> None:
        """Refuse a section that nobody reads: of a plugin that is not installed, or that works and declares none. Raises ConfigError.

        plugins: name to state. A section of a plugin that is disabled or broken is left alone: it cannot be judged.
        """
        for name in self.sections():
            section, where = f"section [plugins.{name}]", self.origins.get(("plugins", name))
            if name not in plugins:
                expected = f"one of {', '.join(sorted(plugins)) or 'none'}"
                what = f"{section} is of a plugin that is not installed"
                raise ConfigError(what, where=where, expected=expected, remedy="install it, or remove the section")
            if plugins[name] == "registered" and name not in with_record:
                raise ConfigError(f"plugin {name} has no configuration", where=where, seen=section, remedy="remove the section")


def known(table: Mapping[str, Any], keys: Mapping[str, object], path: Path, origins: Mapping[Path, str]) -> None:
    """Raise ConfigError for a key of `table` that is not in `keys`, with the closest that is."""
    for key in table:
        if key not in keys:
            from difflib import get_close_matches

            close = get_close_matches(key, keys, n=1)
            name = ".".join(str(part) for part in path if not isinstance(part, int))
            what, where = f"unknown key {key!r}" + (f" in [{name}]" if name else ""), place(origins, (*path, key))
            remedy = f"did you mean {close[0]}?" if close else "remove it"
            raise ConfigError(what, where=where, expected="one of " + ", ".join(keys), seen=key, remedy=remedy)


def place(origins: Mapping[Path, str], path: Path) -> str:
    """The origin of a path, or of the nearest table around it."""
    while path and path not in origins:
        path = path[:-1]
    return origins.get(path, "the configuration")


def wrong_type(path: Path, value: object, expected: str, origins: Mapping[Path, str]) -> ConfigError:
    """The error for a value of the wrong type or range."""
    name = ".".join(str(part) for part in path)
    return ConfigError(f"{name} has a value of the wrong kind", where=place(origins, path), expected=expected, seen=_said(value))


def _said(value: object) -> str:
    words = {bool: "a truth value", str: "text", int: "a whole number", float: "a number", list: "a list", dict: "a table"}
    return f"{words.get(type(value), type(value).__name__)}: {value!r}"[:200]
