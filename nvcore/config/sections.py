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
from nvcore.config.model import Configuration, Path, Tables
from nvcore.plugins.names import did_you_mean

if typing.TYPE_CHECKING:
    from nvcore.api.offers import ConfigSection

_LISTS: dict[Any, Any] = {list: list, tuple: tuple, set: set, frozenset: frozenset, Sequence: list, Iterable: list, Collection: list}
_WRITTEN: dict[Any, tuple[Any, str]] = {
    str: (str, "text"), FilePath: (str, "a path"), int: (int, "a whole number"), float: ((int, float), "a number"),
    bool: (bool, "true or false"), **dict.fromkeys(_LISTS, (list, "a list")), **dict.fromkeys((dict, Mapping), (dict, "a table")),
    Any: (object, "anything"),
}  # fmt: skip


def place(origins: Mapping[Path, str], path: Path) -> str:
    """The origin of a path, or of the nearest table around it."""
    while path and path not in origins:
        path = path[:-1]
    return origins.get(path, "the configuration")


def build(offer: ConfigSection, configuration: Configuration | None) -> Any:
    """The record of a plugin, from its section, or from defaults alone where it has none. An offer without a plugin goes by its own name.

    Raises ConfigError with file and line for an unknown key, a wrong type, a missing key or a value that the record refuses; PluginError
    for an offer whose record is no attrs class.
    """
    if not hasattr(offer.record, "__attrs_attrs__"):
        raise PluginError(f"configuration record of {offer.plugin} is no attrs class", seen=repr(offer.record))
    name, known = offer.plugin or offer.name, configuration or Configuration(Tables(), {}, {(): "the defaults"}, [])
    table = known.sections.get(name, {})
    if offer.migrate is not None and isinstance(table.get("version"), int):
        table = dict(table)
        table = offer.migrate(table.pop("version"), table)
    return Checker(known.origins).fit(offer.record, table, ("plugins", name))


def _written(kind: Any) -> tuple[Any, str]:
    """The type that TOML gives to a value of this kind, and the word for it."""
    origin = typing.get_origin(kind) or kind
    if origin is Literal:
        return object, "one of " + ", ".join(map(str, typing.get_args(kind)))
    if _is_record(kind):
        origin = dict
    return _WRITTEN.get(origin) or (origin if isinstance(origin, type) else (), str(getattr(origin, "__name__", origin)))


def _fits(kind: Any, value: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return any(value == one and type(value) is type(one) for one in typing.get_args(kind))
    toml, _ = _written(kind)
    return toml is object or (isinstance(value, toml) and isinstance(value, bool) == (kind is bool))


class Checker:
    """Makes records of tables; `origins` says where each key stands."""

    def __init__(self, origins: Mapping[Path, str]) -> None:
        self._origins = origins

    def unfit(self, path: Path, expected: str, value: object, *, what: str = "", remedy: str | None = None) -> ConfigError:
        """The error for a value at `path`."""
        seen = f"{_written(type(value))[1]}: {value!r}"[:200]
        what = what or f"{'.'.join(map(str, path))} has a value of the wrong kind"
        return ConfigError(what, where=place(self._origins, path), expected=expected, seen=seen, remedy=remedy)

    def fit(self, kind: Any, value: Any, path: Path) -> Any:
        """`value` as `kind`, or as the first of a union's that it fits, converted where TOML has no such type (path, tuple, record). Raises
        ConfigError."""
        union = typing.get_origin(kind) in (typing.Union, types.UnionType)
        kinds = [one for one in (typing.get_args(kind) if union else (kind,)) if one is not type(None)]
        for one in kinds:
            if _fits(one, value):
                return self._made(one, value, path)
        raise self.unfit(path, " or ".join(_written(one)[1] for one in kinds), value)

    def _made(self, kind: Any, value: Any, path: Path) -> Any:
        origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
        if origin in _LISTS:
            inner = arguments[0] if arguments else Any
            return _LISTS[origin](self.fit(inner, one, (*path, at)) for at, one in enumerate(value))
        if origin in (dict, Mapping):
            inner = arguments[1] if arguments else Any
            return {key: self.fit(inner, one, (*path, key)) for key, one in value.items()}
        if _is_record(kind):
            return self._record(kind, value, path)
        if kind is float and type(value) is int:
            return float(value) if abs(value) < 1e18 else float("inf")
        return FilePath(value) if kind is FilePath else value

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


def _is_record(kind: Any) -> bool:
    return hasattr(kind, "_field_defaults") or hasattr(kind, "__attrs_attrs__")


def _keys(record: Any) -> dict[str, tuple[Any, bool]]:
    """Key to its type and whether it must be given."""
    hints = typing.get_type_hints(record)
    if hasattr(record, "_field_defaults"):
        return {key: (kind, key not in record._field_defaults) for key, kind in hints.items()}
    import attrs

    fields = [field for field in attrs.fields(record) if field.init]
    return {field.alias or field.name: (hints.get(field.name, Any), field.default is attrs.NOTHING) for field in fields}
