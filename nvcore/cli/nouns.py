"""Nouns of the core: noun to (module, summary). The module's `command(argv, context)` is imported only when the noun is used.

A noun of a plugin never stands here: it is an entry point of group `nvcore.command.v1` of its distribution.
"""

from __future__ import annotations

__all__ = ["NOUNS"]

NOUNS: dict[str, tuple[str, str]] = {
    "run": ("nvcore.daemon.run", "start the host daemon"),
    "status": ("nvcore.cli.status", "one screen: is it all right, and if not, what to do"),
    "gpus": ("nvcore.cli.gpus", "list, show, retry, reset"),
    "events": ("nvcore.cli.events", "what happened, and what was done about it"),
    "doctor": ("nvcore.cli.doctor", "run every check"),
    "dump": ("nvcore.cli.dump", "write a post-mortem bundle"),
    "stop": ("nvcore.cli.stop", "stop the daemon"),
    "devices": ("nvcore.cli.devices", "NVIDIA functions on this machine's PCI bus"),
    "plugins": ("nvcore.cli.plugins", "list, show, footprint, doctor, stop"),
    "config": ("nvcore.cli.config", "check, show"),
    "explain": ("nvcore.cli.explain", "cause and remedy of a problem code, offline"),
}
