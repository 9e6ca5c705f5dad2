"""Objects and controls of the firmware's resource manager: allocate, control, free.

Owns the layouts of the three headers in this version; sends through the port. Any thread that may sleep.
Source: open-gpu-kernel-modules g_rpc-structures.h at the version's tag (rpc_gsp_rm_alloc, rpc_gsp_rm_control, rpc_free).
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Final

from nvcore.api.errors import FormatError, NvcoreError
from nvcore_fw_gsp.abi import Abi
from nvcore_fw_gsp.queue.errors import CallRefused, CallTimeout
from nvcore_fw_gsp.queue.port import RpcPort
from nvcore_fw_gsp.session.status import status_name

__all__ = ["CALL_TIMEOUT", "Rm"]

CALL_TIMEOUT: Final = 30.0
"""The reference driver's default in compute mode; scaled like every limit."""

_FREE: Final = 0x0A
_CONTROL: Final = 0x4C
_ALLOC: Final = 0x67
_ALLOC_HEAD: Final = struct.Struct("<7I4x")
_FREE_HEAD: Final = struct.Struct("<4I")
# Bytes at the beginning of a request that name the object and what is asked of it: its answer repeats them.
_CONTROL_NAMED: Final = 12
_ALLOC_NAMED: Final = 16
_FREE_NAMED: Final = 12


class Rm:
    """Calls on objects. `internal_client`, `internal_subdevice`: the firmware's own handles, for controls that have no object of ours."""

    __slots__ = ("_head", "abi", "internal_client", "internal_subdevice", "port")

    def __init__(self, port: RpcPort, abi: Abi, internal_client: int, internal_subdevice: int) -> None:
        self.port, self.abi = port, abi
        self.internal_client, self.internal_subdevice = internal_client, internal_subdevice
        layout = abi.struct("rpc_gsp_rm_control_v03_00")
        self._head = struct.Struct(f"<6I{layout.size - 24}x")

    def control(self, client: int, target: int, command: int, params: bytes | bytearray, what: str) -> bytes:
        """One control on an object; its parameters as they came back. Raises CallRefused with the firmware's status, and the port's
        errors."""
        head = self._head
        asked = head.pack(client, target, command, 0, len(params), 0)
        reply = self.port.call(_CONTROL, asked + params, what, CALL_TIMEOUT, _CONTROL_NAMED)
        if len(reply) < head.size + len(params):
            raise FormatError(
                f"the answer to {what} is too short", expected=head.size + len(params), seen=len(reply), where=f"control {command:#x}"
            )
        _is_answer(asked, reply, _CONTROL_NAMED, what)
        status = head.unpack_from(reply)[3]
        if status:
            raise CallRefused(f"the firmware refused {what}", status, seen=status_name(status), where=f"control {command:#x}")
        return reply[head.size : head.size + len(params)]

    def internal(self, name: str, params: bytes | bytearray, what: str) -> bytes:
        """A control by name on the firmware's own subdevice."""
        return self.control(self.internal_client, self.internal_subdevice, self.abi.enum(name), params, what)

    def alloc(self, client: int, parent: int, handle: int, class_id: int, params: bytes | bytearray, what: str) -> None:
        """Make an object. Raises CallRefused; after any other failure nobody knows whether it was made, and its handle is freed."""
        asked = _ALLOC_HEAD.pack(client, parent, handle, class_id, 0, len(params), 0)
        try:
            reply = self.port.call(_ALLOC, asked + params, what, CALL_TIMEOUT, _ALLOC_NAMED)
            if len(reply) < _ALLOC_HEAD.size:
                raise FormatError(f"the answer to {what} is too short", expected=_ALLOC_HEAD.size, seen=len(reply), where="allocation")
            _is_answer(asked, reply, _ALLOC_NAMED, what)
        except (CallTimeout, FormatError):
            with suppress(NvcoreError):
                self.free(client, handle, f"what may have become of {what}")
            raise
        status = _ALLOC_HEAD.unpack_from(reply)[4]
        if status:
            raise CallRefused(f"the firmware refused {what}", status, seen=status_name(status), where=f"class {class_id:#x}")

    def free(self, client: int, handle: int, what: str) -> None:
        """Free an object and all below it. Raises CallRefused."""
        reply = self.port.call(_FREE, _FREE_HEAD.pack(client, 0, handle, 0), what, CALL_TIMEOUT, _FREE_NAMED)
        if len(reply) < _FREE_HEAD.size:
            raise FormatError(f"the answer to {what} is too short", expected=_FREE_HEAD.size, seen=len(reply), where="free")
        status = _FREE_HEAD.unpack_from(reply)[3]
        if status:
            raise CallRefused(f"the firmware refused {what}", status, seen=status_name(status), where=f"object {handle:#x}")


def _is_answer(asked: bytes, reply: bytes, size: int, what: str) -> None:
    """A reply's payload is the request's with the outputs filled in: its first `size` bytes name the object and what was asked of it."""
    if reply[:size] != asked[:size]:
        raise FormatError(f"the answer to {what} is one to something else", expected=asked[:size].hex(), seen=bytes(reply[:size]).hex())
