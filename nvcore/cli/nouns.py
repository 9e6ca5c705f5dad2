"""Nouns of the core: noun to (module, summary). The module's `command(argv, context)` is imported only when the noun is used.

A noun of a plugin never stands here: it is an entry point of group `nvcore.command.v1` of its distribution.
"""

from __future__ import annotations

__all__ = ["NOUNS"]

NOUNS: dict[str, tuple[str, str]] = {
    "plugins": ("nvcore.cli.plugins", "list, show, footprint, doctor, stop"),
    "config": ("nvcore.cli.config", "check, show"),
    "explain": ("nvcore.cli.explain", "cause and remedy of a problem code, offline"),
}
