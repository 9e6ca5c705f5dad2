"""Nouns of the core: noun to (module, summary). The module's table `NOUNS` (nvcore.cli.verbs) is imported only when the noun is used.

A noun of a plugin never stands here: it is an entry point of group `nvcore.command.v1` of its distribution.
"""

from __future__ import annotations

__all__ = ["NOUNS"]

NOUNS: dict[str, tuple[str, str]] = {
    "run": ("nvcore.daemon.run", "start the host daemon"),
    "status": ("nvcore.cli.status", "one screen: is it all right, and if not, what to do"),
    "gpus": ("nvcore.cli.live", "list, show, retry, reset"),
    "events": ("nvcore.cli.live", "what happened, and what was done about it"),
    "doctor": ("nvcore.cli.live", "run every check"),
    "dump": ("nvcore.cli.live", "write a post-mortem bundle"),
    "stop": ("nvcore.cli.live", "stop the daemon"),
    "devices": ("nvcore.cli.live", "NVIDIA functions on this machine's PCI bus"),
    "plugins": ("nvcore.cli.plugins", "list, show, footprint, doctor, stop"),
    "config": ("nvcore.cli.config", "check, show"),
    "explain": ("nvcore.cli.explain", "cause and remedy of a problem code, offline"),
}
