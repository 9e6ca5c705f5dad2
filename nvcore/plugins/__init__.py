"""The plugin host: index, select, import, register; states, sets, footprint.

Importing this package costs nothing; its parts are imported on use. The stages, each usable alone:

    from nvcore.plugins import scan, inventory, select, Selection, PluginHost
    plugins = select(inventory(scan()), Selection(only=["vfio"]))      # imports no plugin, no pluggy, no attrs

    host = PluginHost(mode="daemon", configuration=configuration)      # pluggy and attrs from here on
    host.load(Selection(required=["fw_gsp"]))    # index, select, import, register, call every hook once
    host.states()                                # every plugin with state, reason, remedy: JSON-able dictionaries
    host.collect("nvcore_buses")                 # offers, stamped with their plugin, conflicting ones left out
    host.claim("nvcore_firmware_backends", "GA100")   # the one offer for a claim, or ConflictError, or None
    host.start(view)                             # observers and services; one that hangs is abandoned after 5 s
    host.stop("vfio")                            # one plugin: its services and observers; returns the offers it withdrew
    host.teardown()                              # everything, in reverse order, errors grouped

`PluginHost` belongs to one thread. Nothing here runs per register, message or event.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nvcore.plugins.compare import changes_on_disk
    from nvcore.plugins.host import PluginHost
    from nvcore.plugins.index import Index, scan
    from nvcore.plugins.select import Selection, inventory, select
    from nvcore.plugins.states import Plugin

__all__ = ["Index", "Plugin", "PluginHost", "Selection", "changes_on_disk", "inventory", "scan", "select"]

_HOMES = {
    "Index": "index", "scan": "index",
    "Plugin": "states",
    "PluginHost": "host",
    "Selection": "select", "inventory": "select", "select": "select",
    "changes_on_disk": "compare",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'nvcore.plugins' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"nvcore.plugins.{_HOMES[name]}"), name)
