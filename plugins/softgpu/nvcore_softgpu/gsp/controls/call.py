"""One control call, and the row that describes a control.

Declarations shared by all control modules; no control here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from nvcore_softgpu.gsp.objects import Node
from nvcore_softgpu.gsp.state import Channel, State
from nvcore_softgpu.gsp.versions import Version

__all__ = ["Call", "Control", "Handler", "Size"]


class Call:
    """A control on an object. `params` is the caller's structure, changed in place; the handler answers a status."""

    __slots__ = ("client", "command", "node", "params", "state")

    def __init__(self, state: State, client: int, node: Node, command: int, params: bytearray) -> None:
        """client: the handle under which the call came; params: a copy that the caller sends back."""
        self.state = state
        self.client = client
        self.node = node
        self.command = command
        self.params = params

    def u32(self, offset: int) -> int:
        """A word of the parameters."""
        return int(struct.unpack_from("<I", self.params, offset)[0])

    def u64(self, offset: int) -> int:
        """A double word of the parameters."""
        return int(struct.unpack_from("<Q", self.params, offset)[0])

    def put32(self, offset: int, *values: int) -> None:
        """Store words."""
        struct.pack_into(f"<{len(values)}I", self.params, offset, *values)

    def put64(self, offset: int, *values: int) -> None:
        """Store double words."""
        struct.pack_into(f"<{len(values)}Q", self.params, offset, *values)

    def zero(self) -> None:
        """Clear the parameters: an answer starts from nothing that the caller left in them."""
        self.params[:] = bytes(len(self.params))

    def channel(self) -> Channel:
        """The channel record of the object; its row names the kind channel."""
        assert isinstance(self.node.data, Channel)
        return self.node.data


Handler = Callable[[Call], int]
"""Does what a control asks, in place; its status."""

Size = int | Callable[[Version], int | None]
"""Parameter bytes, or how they follow from the version; None: that version has no such control."""


class Control(NamedTuple):
    """kinds: objects it may be called on. size: parameter bytes, by version where it differs; a size of None: absent in that version."""

    name: str
    kinds: tuple[str, ...]
    size: Size
    handler: Handler

    def bytes_in(self, version: Version) -> int | None:
        """Parameter bytes in one version, None where the control does not exist."""
        return self.size if isinstance(self.size, int) else self.size(version)
