"""Sections: tables of TOML checked against the record classes that declare them, the core's and the plugins' alike.

Pure, main thread. A record is a NamedTuple (the core's, see `model`) or an attrs class (a plugin's, see ConfigSection). Knows text,
numbers, truth values, paths, literals, lists, tuples, mappings, optional values and nested records; a record's validators have the last
word.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Literal

from nvcore.api.errors import ConfigError, PluginError
from nvcore.config.model import Path, Section
from nvcore.plugins.names import did_you_mean

if typing.TYPE_CHECKING:
    from nvcore.api.offers import ConfigSection

__all__ = ["Checker", "build", "place"]

_LISTS: dict[Any, Any] = {list: list, tuple: tuple, set: set, frozenset: frozenset, Sequence: list, Iterable: list, Collection: list}
_WORDS: dict[Any, str] = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", FilePath: "a path", list: "a list", dict: "a table",
}  # fmt: skip


def place(origins: Mapping[Path, str], path: Path) -> str:
    """The origin of a path, or of the nearest table around it."""
    while path and path not in origins:
        path = path[:-1]
    return origins.get(path, "the configuration")


def build(offer: ConfigSection, section: Section | None) -> Any:
    """The record of a plugin, from its section (None: from defaults alone).

    Raises ConfigError with file and line for an unknown key, a wrong type, a missing key or a value that the record refuses; PluginError
    for an offer whose record is no attrs class.
    """
    if not hasattr(offer.record, "__attrs_attrs__"):
        raise PluginError(f"configuration record of {offer.plugin} is no attrs class", seen=repr(offer.record))
    name, table, origins = section or Section(offer.plugin, {}, {(): "the defaults"})
    if offer.migrate is not None and isinstance(table.get("version"), int):
        table = dict(table)
        table = offer.migrate(table.pop("version"), table)
    return Checker(origins).fit(offer.record, table, ("plugins", name))


class _Unfit(ConfigError):
    """A value that does not fit, at `path`."""

    path: Path


class Checker:
    """Makes records of tables; `origins` says where each key stands."""

    def __init__(self, origins: Mapping[Path, str]) -> None:
        self._origins = origins

    def unfit(self, path: Path, expected: str, value: object, *, what: str = "", remedy: str | None = None) -> ConfigError:
        """The error for a value at `path`."""
        seen = f"{_WORDS.get(type(value), type(value).__name__)}: {value!r}"[:200]
        what = what or f"{'.'.join(map(str, path))} has a value of the wrong kind"
        error = _Unfit(what, where=place(self._origins, path), expected=expected, seen=seen, remedy=remedy)
        error.path = path
        return error

    def _need(self, fits: bool, path: Path, expected: str, value: object) -> None:
        if not fits:
            raise self.unfit(path, expected, value)

    def fit(self, kind: Any, value: Any, path: Path) -> Any:
        """`value` as `kind`, converted where TOML has no such type (path, tuple, record). Raises ConfigError."""
        origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
        if kind is Any:
            return value
        if origin in (typing.Union, types.UnionType):
            return self._either(arguments, value, path)
        if origin in _LISTS:
            self._need(isinstance(value, list), path, "a list", value)
            inner = arguments[0] if arguments else Any
            return _LISTS[origin](self.fit(inner, one, (*path, at)) for at, one in enumerate(value))
        if origin in (dict, Mapping):
            self._need(isinstance(value, dict), path, "a table", value)
            inner = arguments[1] if arguments else Any
            return {key: self.fit(inner, one, (*path, key)) for key, one in value.items()}
        if hasattr(kind, "_field_defaults") or hasattr(kind, "__attrs_attrs__"):
            self._need(isinstance(value, dict), path, "a table", value)
            return self._record(kind, value, path)
        if origin is Literal:
            fits = value in arguments and type(value) in map(type, arguments)
            self._need(fits, path, "one of " + ", ".join(map(str, arguments)), value)
            return value
        return self._plain(kind, value, path)

    def _plain(self, kind: Any, value: Any, path: Path) -> Any:
        if kind is FilePath and isinstance(value, str):
            return FilePath(value)
        if kind is float and type(value) is int:
            return float(value) if abs(value) < 1e18 else float("inf")
        fits = isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        self._need(fits, path, _WORDS.get(kind) or str(getattr(kind, "__name__", kind)), value)
        return value

    def _either(self, kinds: Iterable[Any], value: Any, path: Path) -> Any:
        wanted: list[str] = []
        for kind in kinds:
            if kind is type(None):
                continue
            try:
                return self.fit(kind, value, path)
            except _Unfit as error:
                if error.path != path:
                    raise
                wanted.append(str(error.expected))
        raise self.unfit(path, " or ".join(wanted), value)

    def _record(self, record: Any, table: dict[str, Any], path: Path) -> Any:
        keys = _keys(record)
        for key in table:
            if key not in keys:
                name = ".".join(part for part in path if isinstance(part, str))
                what, remedy = f"unknown key {key!r}" + (f" in [{name}]" if name else ""), did_you_mean(key, keys, "remove it")
                raise self.unfit((*path, key), "one of " + (", ".join(keys) or "no key"), key, what=what, remedy=remedy)
        for key, (_, required) in keys.items():
            if required and key not in table:
                raise self.unfit(path, f"a key {key!r}", sorted(table), what=f"key {key!r} is missing")
        values = {key: self.fit(keys[key][0], value, (*path, key)) for key, value in table.items()}
        try:
            return record(**values)
        except (ValueError, TypeError) as error:
            message = str(error.args[0]) if error.args else type(error).__name__
            raise self.unfit(path, message, table, what="a value is refused by its plugin") from error


def _keys(record: Any) -> dict[str, tuple[Any, bool]]:
    """Key to its type and whether it must be given."""
    hints = typing.get_type_hints(record)
    if hasattr(record, "_field_defaults"):
        return {key: (kind, key not in record._field_defaults) for key, kind in hints.items()}
    import attrs

    fields = [field for field in attrs.fields(record) if field.init]
    return {field.alias or field.name: (hints.get(field.name, Any), field.default is attrs.NOTHING) for field in fields}
