"""Files: read the TOML files in their order, lay them over one another, check the core's own tables.

Owns reading and merging. Main thread, at start and in `config check`. Imports tomllib only when there is a file. Tables are merged key by
key; lists and `[[gpu]]` are replaced as a whole by a later file. Never writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nvcore.api.errors import ConfigError
from nvcore.config.model import Configuration, Lists, Path, Tables
from nvcore.config.places import config_files
from nvcore.config.sections import Checker

_LIMIT = 1 << 20


def load(given: str | None = None, *, command_line: Mapping[str, Any] | None = None, files: Sequence[str] | None = None) -> Configuration:
    """Read the configuration. given: `--config`; command_line: tables from options, laid over all files; files: instead of the usual ones.

    Raises ConfigError with file and line: unreadable or malformed file, unknown key, wrong type.
    """
    tree: dict[str, Any] = {}
    origins: dict[Path, str] = {}
    try:
        paths = config_files(given) if files is None else list(files)
        for path in paths:
            table, lines = parse(_read(path), path)
            _lay_over(tree, table, origins, path)
            origins.update({at: f"{path}:{line}" for at, line in lines.items()})
            check(tree, origins, paths)  # after each file, so that a value which a later file hides is still judged
    except OSError as error:
        what, remedy = f"configuration cannot be read: {error.strerror}", "correct the path, or give the user read access"
        raise ConfigError(what, where=error.filename, remedy=remedy) from error
    _lay_over(tree, command_line or {}, origins, "command line")
    return check(tree, origins, paths)


def _read(path: str) -> str:
    with open(path, "rb") as file:
        data = file.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        raise ConfigError("configuration file is too large", where=path, expected=f"at most {_LIMIT} bytes", remedy="split it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"{path}:{data[: error.start].count(10) + 1}"
        raise ConfigError("configuration file is not UTF-8", where=where, remedy="save it as UTF-8") from error


def parse(text: str, path: str) -> tuple[dict[str, Any], dict[Path, int]]:
    """Parse one TOML text: its tables, and the line of every key. Raises ConfigError."""
    import tomllib

    from nvcore.config.lines import find_lines

    try:
        return tomllib.loads(text), find_lines(text)
    except tomllib.TOMLDecodeError as error:
        what, _, at = str(error).partition(" (at line ")
        line = at.partition(",")[0] or text.count("\n") + 1  # without a number it is the end of the text
        raise ConfigError(f"not TOML: {what}", where=f"{path}:{line}", remedy="correct the line") from error
    except (RecursionError, ValueError, OverflowError) as error:  # tables nested beyond the parser, numbers beyond int's text limit
        raise ConfigError(f"not TOML that can be read: {type(error).__name__}", where=path, remedy="simplify the file") from error


def _lay_over(tree: dict[str, Any], table: Mapping[str, Any], origins: dict[Path, str], where: str, path: Path = ()) -> None:
    """Merge `table` into `tree`; every path that it sets is of `where`, and a replaced list loses the places of its old elements."""
    for key, value in table.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(tree.get(key, {}), dict):
            origins.setdefault(here, where)
            _lay_over(tree.setdefault(key, {}), value, origins, where, here)
        else:
            for stale in [at for at in origins if at[: len(here)] == here]:
                del origins[stale]
            tree[key], origins[here] = value, where


def check(tree: dict[str, Any], origins: dict[Path, str], files: Sequence[str] = ()) -> Configuration:
    """Check the core's tables of a merged tree. Raises ConfigError."""
    checker, plugins = Checker(origins), tree.get("plugins", {})
    if isinstance(plugins, dict):  # a table in it is a plugin's section
        plugins = {key: value for key, value in plugins.items() if key in Lists._fields or not isinstance(value, dict)}
    tables = checker.fit(Tables, {**tree, "plugins": plugins}, ())
    if not 0 < tables.host.time_scale <= 1000:
        raise checker.unfit(("host", "time_scale"), "a number above 0, at most 1000", tables.host.time_scale)
    for key, value in (("socket", tables.host.socket), ("state_dir", tables.host.state_dir)):
        if value is not None and (value[:1] != "/" or "\0" in value or (key == "socket" and len(value.encode()) > 107)):  # unix(7)
            raise checker.unfit(("host", key), "an absolute path without NUL, of a socket at most 107 bytes", value)
    for at, gpu in enumerate(tables.gpu):
        if ":" not in gpu.source:
            raise checker.unfit(("gpu", at, "source"), "SCHEME:REST, as in softgpu:ga100", gpu.source)
        if gpu.source in [other.source for other in tables.gpu[:at]]:
            raise checker.unfit(("gpu", at, "source"), "another device in each [[gpu]]", gpu.source, what=f"{gpu.source} is given twice")
    return Configuration(tables, tree, origins, list(files))
