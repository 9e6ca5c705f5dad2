"""The plugin host: index, select, import, register; states, sets, footprint.

Importing this package costs nothing; its parts are imported on use. The stages, each usable alone:

    from nvcore.plugins.index import scan
    from nvcore.plugins.select import Selection, inventory, select
    plugins = select(inventory(scan()), Selection(only=["vfio"]))      # imports no plugin, no pluggy, no attrs

    from nvcore.plugins.host import PluginHost
    host = PluginHost(mode="daemon", configuration=configuration)      # pluggy and attrs from here on
    host.load(Selection(required=["fw_gsp"]))    # index, select, import, register, call every hook once
    host.states()                                # every plugin with state, reason, remedy: JSON-able dictionaries
    host.collect("nvcore_buses")                 # offers, stamped with their plugin, conflicting ones left out
    host.start(view)                             # observers and services; one that hangs is abandoned after 5 s
    host.stop("vfio")                            # one plugin: its services and observers; returns the offers it withdrew
    host.teardown()                              # everything, in reverse order, errors grouped

`PluginHost` belongs to one thread. Nothing here runs per register, message or event.
"""
