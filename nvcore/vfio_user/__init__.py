"""vfio-user: a PCI device served to a VM monitor over a unix socket. A library of its own: needs a `nvcore.api.device.Device`, nothing
else.

    server = DeviceServer(device, "/run/gpu.sock")
    server.serve()                      # blocks; server.close() from another thread ends it

A device that has work of its own to do gives `work=` a function that does a short piece of it; the server calls it between messages.

This side serves what QEMU 11.1 needs: version, device, region and interrupt information, DMA maps, region access (single and batched,
posted or answered), sparse mmap, interrupts by eventfd, reset.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nvcore.vfio_user.server import DeviceServer

__all__ = ["DeviceServer"]


def __getattr__(name: str) -> object:
    if name == "DeviceServer":  # on use: who wants a listening socket only need not pay for the protocol
        from nvcore.vfio_user.server import DeviceServer

        return DeviceServer
    raise AttributeError(f"module 'nvcore.vfio_user' has no attribute {name!r}")
