"""The daemon: control socket, service-manager protocol, and `nvcore run`. A face of the core's five duties, not a sixth.

Importing this package costs nothing; `nvcore.daemon.run` is what `nvcore run` imports.
"""
