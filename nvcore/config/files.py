"""Files: read the TOML files in their order, lay them over one another, check the core's own tables.

Owns reading and merging. Main thread, at start and in `config check`. Imports tomllib only when there is a file. Tables are merged key by
key; lists and `[[gpu]]` are replaced as a whole by a later file. Never writes.
"""

from __future__ import annotations

from nvcore.api.errors import ConfigError
from nvcore.config.model import GPU, HOST, LISTS, Configuration, Gpu, Host, Key, Lists, known, place, wrong_type
from nvcore.config.places import config_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from nvcore.config.lines import Path

__all__ = ["check", "load", "parse"]

_LIMIT = 1 << 20


def load(given: str | None = None, *, command_line: Mapping[str, Any] | None = None, files: Sequence[str] | None = None) -> Configuration:
    """Read the configuration. given: `--config`; command_line: tables from options, laid over all files; files: instead of the usual ones.

    Raises ConfigError with file and line: unreadable or malformed file, unknown key, wrong type.
    """
    try:
        paths = config_files(given) if files is None else list(files)
    except OSError as error:
        what = f"configuration folder cannot be listed: {error.strerror}"
        raise ConfigError(what, where=str(error.filename), remedy="give the user read access to it") from error
    tree: dict[str, Any] = {}
    origins: dict[Path, str] = {}
    for path in paths:
        table, lines = parse(_read(path), path)
        _lay_over(tree, table, origins, {at: f"{path}:{line}" for at, line in lines.items()}, ())
        check(tree, origins, paths)  # after each file, so that a value which a later file hides is still judged
    if command_line:
        _lay_over(tree, command_line, origins, {}, ())
    return check(tree, origins, paths)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        what = f"configuration file cannot be read: {error.strerror}"
        raise ConfigError(what, where=path, remedy="correct the path, or give the user read access") from error
    if len(data) > _LIMIT:
        raise ConfigError("configuration file is too large", where=path, expected=f"at most {_LIMIT} bytes")
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
        line = at.partition(",")[0]
        where = f"{path}:{line}" if line.isdigit() else f"{path}:{text.count(chr(10)) + 1}"
        raise ConfigError(f"not TOML: {what}", where=where, remedy="correct the line") from error
    except (RecursionError, ValueError, OverflowError) as error:  # tables nested beyond the parser, numbers beyond int's text limit
        raise ConfigError(f"not TOML that can be read: {type(error).__name__}", where=path, remedy="simplify the file") from error


def _lay_over(tree: dict[str, Any], table: Mapping[str, Any], origins: dict[Path, str], places: Mapping[Path, str], path: Path) -> None:
    """Merge `table` into `tree`; every path that it sets gets its place, and replaced lists lose the places of their old elements."""
    for key, value in table.items():
        here = (*path, key)
        where = place(places, here) if places else "command line"
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            origins.setdefault(here, where)
            _lay_over(tree[key], value, origins, places, here)
            continue
        for stale in [at for at in origins if at[: len(here)] == here]:
            del origins[stale]
        origins[here] = where
        origins.update({at: line for at, line in places.items() if at[: len(here)] == here})
        tree[key] = {} if isinstance(value, dict) else value
        if isinstance(value, dict):
            _lay_over(tree[key], value, origins, places, here)


def check(tree: dict[str, Any], origins: dict[Path, str], files: Sequence[str] = ()) -> Configuration:
    """Check the core's tables of a merged tree. Raises ConfigError."""
    known(tree, {"host": 0, "gpu": 0, "plugins": 0}, (), origins)
    host = _table(("host",), tree.get("host", {}), HOST, origins)
    if not 0 < host["time_scale"] <= 1000:
        raise wrong_type(("host", "time_scale"), host["time_scale"], "a number above 0, at most 1000", origins)
    gpus = tree.get("gpu", [])
    if not isinstance(gpus, list) or not all(isinstance(gpu, dict) for gpu in gpus):
        raise wrong_type(("gpu",), gpus, "tables [[gpu]]", origins)
    plugins = tree.get("plugins", {})
    if isinstance(plugins, dict):  # a table in it is a plugin's section
        plugins = {key: value for key, value in plugins.items() if key in LISTS or not isinstance(value, dict)}
    lists = _table(("plugins",), plugins, LISTS, origins)
    return Configuration(Host(**host), [_gpu(gpu, at, origins) for at, gpu in enumerate(gpus)], Lists(**lists), tree, origins, list(files))


def _gpu(table: dict[str, Any], at: int, origins: dict[Path, str]) -> Gpu:
    path: Path = ("gpu", at)
    values = _table(path, table, GPU, origins)
    source = values["source"]
    if not source:
        raise ConfigError("a [[gpu]] has no source", where=place(origins, path), expected='source = "SCHEME:…"')
    if ":" not in source:
        raise wrong_type((*path, "source"), source, "SCHEME:REST, as in pci:0000:41:00.0", origins)
    return Gpu(source, values["firmware"], values["backend"], place(origins, path))


def _table(path: Path, table: Any, keys: Mapping[str, Key], origins: dict[Path, str]) -> dict[str, Any]:
    """The checked value of every key of a core table, its default where it is not set."""
    if not isinstance(table, dict):
        raise wrong_type(path, table, "a table", origins)
    known(table, keys, path, origins)
    return {key: _value((*path, key), table.get(key, spec.default), spec, origins) for key, spec in keys.items()}


def _value(path: Path, value: Any, spec: Key, origins: dict[Path, str]) -> Any:
    if value is None:
        return None
    if spec.kind == "number":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            raise wrong_type(path, value, "a number", origins)
        return float(value) if abs(value) < 1e18 else float("inf")
    if spec.kind == "texts":
        if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
            raise wrong_type(path, value, "a list of texts", origins)
        return list(value)
    if not isinstance(value, str) or (spec.choices and value not in spec.choices):
        raise wrong_type(path, value, f"one of {', '.join(spec.choices)}" if spec.choices else "text", origins)
    return value
