"""The plugin author's kit: a host on fake devices, fault scripts, contract checks, a clock that a test owns, the freeze test, and a pytest
plugin that runs every test under the lock validator.

Imported by tests only, never by the host or a plugin; but for `lockdep`, of which `nvcore.locks` is made where `NVCORE_LOCKDEP` is set.
Its names are imported on use, because the pytest plugin must set the validator's switch before anything of nvcore is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nvcore.testing.clock import VirtualClock
    from nvcore.testing.expect import expect_violation

__all__ = ["VirtualClock", "expect_violation"]

_ON_USE = {"VirtualClock": "clock", "expect_violation": "expect"}


def __getattr__(name: str) -> Any:
    module = _ON_USE.get(name)
    if module is None:
        raise AttributeError(f"module 'nvcore.testing' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"nvcore.testing.{module}"), name)
    return value
