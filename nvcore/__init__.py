"""nvcore: a plugin-based driver host for NVIDIA GPUs that run GSP-RM firmware.

Importing this package costs nothing: it holds the version and nothing else. `nvcore.Host` (the embedded host) is imported on use.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["Host", "__version__"]

TYPE_CHECKING = False  # typing itself costs a whole bare start; type checkers take this name as true
if TYPE_CHECKING:
    from nvcore.host import Host


def __getattr__(name: str) -> object:
    if name == "Host":
        from nvcore.host import Host

        return Host
    raise AttributeError(f"module 'nvcore' has no attribute {name!r}")
