"""Sections: a plugin's table `[plugins.NAME]` checked against the attrs record that its ConfigSection offers.

Pure, main thread; imported only when a plugin offers a section. Knows text, numbers, truth values, paths, literals, lists, tuples,
mappings, optional values and nested records; a record's own validators have the last word.
"""

from __future__ import annotations

import types
import typing
from pathlib import Path as FilePath
from typing import Any, Literal

import attrs

from nvcore.api.errors import ConfigError, PluginError
from nvcore.api.offers import ConfigSection
from nvcore.config.model import Section

__all__ = ["build"]

_WORDS: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false", FilePath: "a path"}


class _Wrong(Exception):
    """A value that does not fit; `path` inside the section."""

    def __init__(self, path: tuple[str | int, ...], expected: str, seen: object, what: str = "") -> None:
        super().__init__(expected)
        self.path, self.expected, self.seen, self.what = path, expected, seen, what


def build(offer: ConfigSection, section: Section | None) -> Any:
    """The record of a plugin, from its section (None: from defaults alone).

    Raises ConfigError with file and line for an unknown key, a wrong type, a missing key or a value that the record refuses; PluginError
    for an offer whose record is no attrs class.
    """
    if not attrs.has(offer.record):
        raise PluginError(f"configuration record of {offer.plugin} is no attrs class", seen=repr(offer.record))
    table = {} if section is None else dict(section.table)
    name = offer.plugin if section is None else section.name
    if offer.migrate is not None and isinstance(table.get("version"), int):
        table = offer.migrate(table.pop("version"), table)
    try:
        return _record(offer.record, table, ())
    except _Wrong as error:
        what = error.what or f"plugins.{name}.{'.'.join(map(str, error.path))} has a value of the wrong kind"
        where = "the defaults" if section is None else section.where(*error.path)
        raise ConfigError(what, where=where, expected=error.expected, seen=repr(error.seen)[:200]) from error


def _record(record: type, table: dict[str, Any], path: tuple[str | int, ...]) -> Any:
    hints = typing.get_type_hints(record)
    fields = {field.alias or field.name: field for field in attrs.fields(record) if field.init}
    for key in table:
        if key not in fields:
            raise _Wrong((*path, key), "one of " + (", ".join(fields) or "no key"), key, f"unknown key {key!r}")
    values: dict[str, Any] = {}
    for key, field in fields.items():
        if key in table:
            values[key] = _fit(hints.get(field.name, Any), table[key], (*path, key))
        elif field.default is attrs.NOTHING:
            raise _Wrong(path, f"a key {key!r}", sorted(table), f"key {key!r} is missing")
    try:
        return record(**values)
    except (ValueError, TypeError) as error:
        message = str(error.args[0]) if error.args else type(error).__name__
        raise _Wrong(path, message, table, "a value is refused by its plugin") from error


def _fit(kind: Any, value: Any, path: tuple[str | int, ...]) -> Any:
    """`value` as `kind`, converted where TOML has no such type (path, tuple, record). Raises _Wrong."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _either(arguments, value, path)
    if origin is Literal:
        if value in arguments and type(value) in map(type, arguments):
            return value
        raise _Wrong(path, "one of " + ", ".join(map(str, arguments)), value)
    if kind in _WORDS:
        return _plain(kind, value, path)
    if origin in (list, tuple, set, frozenset) or getattr(origin, "__name__", "") in ("Sequence", "Iterable", "Collection"):
        if not isinstance(value, list):
            raise _Wrong(path, "a list", value)
        inner = arguments[0] if arguments else Any
        items = [_fit(inner, one, (*path, at)) for at, one in enumerate(value)]
        return origin(items) if origin in (tuple, set, frozenset) else items
    if kind in (list, dict) or origin is dict or getattr(origin, "__name__", "") == "Mapping":
        if not isinstance(value, list if kind is list else dict):
            raise _Wrong(path, "a list" if kind is list else "a table", value)
        if isinstance(value, dict) and len(arguments) == 2:
            return {key: _fit(arguments[1], one, (*path, key)) for key, one in value.items()}
        return value
    if isinstance(kind, type) and attrs.has(kind):
        if not isinstance(value, dict):
            raise _Wrong(path, "a table", value)
        return _record(kind, value, path)
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    raise _Wrong(path, getattr(kind, "__name__", str(kind)), value)


def _plain(kind: Any, value: Any, path: tuple[str | int, ...]) -> Any:
    if kind is FilePath and isinstance(value, str):
        return FilePath(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _Wrong(path, _WORDS[kind], value)
    return value


def _either(kinds: tuple[Any, ...], value: Any, path: tuple[str | int, ...]) -> Any:
    wanted: list[str] = []
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return _fit(kind, value, path)
        except _Wrong as error:
            if error.path != path:
                raise
            wanted.append(error.expected)
    raise _Wrong(path, " or ".join(wanted), value)
