"""Nouns of the core: noun to ("module:function", summary). A function takes (argv, context) and is imported only when its noun is used.

A noun of a plugin never stands here: it is an entry point of group `nvcore.command.v1` of its distribution.
"""

from __future__ import annotations

__all__ = ["NOUNS"]

NOUNS: dict[str, tuple[str, str]] = {
    "run": ("nvcore.daemon.run:command", "start the host daemon"),
    "status": ("nvcore.cli.status:command", "one screen: is it all right, and if not, what to do"),
    "gpus": ("nvcore.cli.live:gpus", "list, show, retry, reset"),
    "events": ("nvcore.cli.live:events", "what happened, and what was done about it"),
    "doctor": ("nvcore.cli.live:doctor", "run every check"),
    "dump": ("nvcore.cli.live:dump", "write a post-mortem bundle"),
    "stop": ("nvcore.cli.live:stop", "stop the daemon"),
    "devices": ("nvcore.cli.live:devices", "NVIDIA functions on this machine's PCI bus"),
    "plugins": ("nvcore.cli.plugins:command", "list, show, footprint, doctor, stop"),
    "config": ("nvcore.cli.config:command", "check, show"),
    "explain": ("nvcore.cli.explain:command", "cause and remedy of a problem code, offline"),
}
