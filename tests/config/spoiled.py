"""Sections of any bytes or values, for the tests of plugins that declare one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from nvcore.api.errors import ConfigError
from nvcore.api.offers import ConfigSection
from nvcore.config.files import check, parse
from nvcore.config.sections import build

__all__ = ["records"]


def records(section: ConfigSection, text: Callable[[random.Random], bytes]) -> list[Any]:
    """The records that a section gives for two thousand texts, each spoiled in up to two places; those that it refuses, it refuses by a
    ConfigError that says where. text(chooser): one of the texts, sound or not."""
    chooser, found = random.Random(0), []
    for _ in range(2000):
        data = bytearray(text(chooser))
        for _ in range(chooser.randrange(3)):
            at = chooser.randrange(len(data))
            data[at : at + chooser.randrange(3)] = chooser.randbytes(chooser.randrange(3))
        try:
            tree, lines = parse(data.decode("latin-1"), "x.toml")
            found.append(build(section, check(tree, {path: f"x.toml:{line}" for path, line in lines.items()})))
        except ConfigError as error:
            assert error.where
    return found
