"""Sections: a plugin's table `[plugins.NAME]` checked against the attrs record that its ConfigSection offers.

Pure, main thread; imported only when a plugin offers a section. Knows text, numbers, truth values, paths, literals, lists, tuples,
mappings, optional values and nested records; a record's own validators have the last word.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Literal

import attrs

from nvcore.api.errors import ConfigError, PluginError
from nvcore.api.offers import ConfigSection
from nvcore.config.model import Section

__all__ = ["build"]

_LISTS: dict[Any, Any] = {list: list, tuple: tuple, set: set, frozenset: frozenset, Sequence: list, Iterable: list, Collection: list}
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


def _need(fits: bool, path: tuple[str | int, ...], expected: str, seen: object) -> None:
    if not fits:
        raise _Wrong(path, expected, seen)


def _fit(kind: Any, value: Any, path: tuple[str | int, ...]) -> Any:
    """`value` as `kind`, converted where TOML has no such type (path, tuple, record). Raises _Wrong."""
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _either(arguments, value, path)
    if kind in _WORDS:
        return _plain(kind, value, path)
    if origin in _LISTS:
        _need(isinstance(value, list), path, "a list", value)
        inner = arguments[0] if arguments else Any
        return _LISTS[origin](_fit(inner, one, (*path, at)) for at, one in enumerate(value))
    if origin in (dict, Mapping):
        _need(isinstance(value, dict), path, "a table", value)
        inner = arguments[1] if arguments else Any
        return {key: _fit(inner, one, (*path, key)) for key, one in value.items()}
    if isinstance(kind, type) and attrs.has(kind):
        _need(isinstance(value, dict), path, "a table", value)
        return _record(kind, value, path)
    if origin is Literal:
        _need(value in arguments and type(value) in map(type, arguments), path, "one of " + ", ".join(map(str, arguments)), value)
    else:
        _need(isinstance(kind, type) and isinstance(value, kind), path, getattr(kind, "__name__", str(kind)), value)
    return value


def _plain(kind: Any, value: Any, path: tuple[str | int, ...]) -> Any:
    if kind is FilePath and isinstance(value, str):
        return FilePath(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    _need(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), path, _WORDS[kind], value)
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
