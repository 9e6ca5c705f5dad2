"""Configuration: TOML files with drop-ins, checked before anything acts on them.

    from nvcore.config import load
    configuration = load(command_line={"host": {"log_level": "debug"}})   # raises ConfigError with file and line
    configuration.host.socket, configuration.gpus, configuration.plugins, configuration.section("vfio")

Importing this package costs nothing; tomllib is imported when a file exists.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nvcore.config.files import load
    from nvcore.config.model import Configuration
    from nvcore.config.sections import build

__all__ = ["Configuration", "build", "load"]

_HOMES = {"Configuration": "model", "build": "sections", "load": "files"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'nvcore.config' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"nvcore.config.{_HOMES[name]}"), name)
