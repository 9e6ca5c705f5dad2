"""Memory in the hands of a grant's owner: leases, the only way to touch granted memory, and host memory for the device.

Owns the base of all that hangs below a grant: closed once, by whoever comes first, and forgotten by the grant then; the state of each lease
and the mapping behind it. `revoke` may run in any thread, also the receiver's: it calls no client; a view that a holder kept then shows
anonymous zeros. What a lease is on belongs to its grant; scrubbing too. Source: DESIGN "Faults", on revocation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvcore.api.device import DmaBuffer
from nvcore.api.errors import ContractError, LeaseRevoked, NotSupportedError
from nvcore.api.grant import Lease
from nvcore.api.inventory import Range
from nvcore.api.marks import follows, may_sleep
from nvcore.vmm.mapping import Mapped

if TYPE_CHECKING:
    from nvcore.gpu.grants import GpuGrant


class Owned:
    """Base of spaces, channels, leases and buffers."""

    __slots__ = ("closed", "grant")

    def __init__(self, grant: GpuGrant) -> None:
        self.grant, self.closed = grant, False

    def first_close(self) -> bool:
        """Whether nobody closed it before; it is closed now, and its grant's no more."""
        first, self.closed = not self.closed, True
        if first:
            self.grant.forget(self)
        return first


class GrantBuffer(Owned):
    """As `nvcore.api.device.DmaBuffer`; `bus_address` is the device's own bound method, so that a submission path pays nothing for the
    wrapping."""

    __slots__ = ("_inner", "bus_address", "contiguous", "fd", "size", "view")

    def __init__(self, grant: GpuGrant, inner: DmaBuffer) -> None:
        super().__init__(grant)
        self._inner, self.bus_address, self.contiguous = inner, inner.bus_address, inner.contiguous
        self.size, self.view, self.fd = inner.size, inner.view, inner.fd

    @may_sleep
    def close(self) -> None:
        """Unmap it from the device, then free it. Idempotent."""
        self.first_close()
        self.view = memoryview(b"")
        self._inner.close()


@follows(Lease)
class MemoryLease(Owned):
    """A claim on `range` (VRAM addresses). mapped: the memory in this process, or None where every access goes through the window."""

    __slots__ = ("_cause", "_mapped", "_vram", "range")

    def __init__(self, grant: GpuGrant, item: Range, mapped: Mapped | None) -> None:
        super().__init__(grant)
        self.range, self._mapped, self._vram = item, mapped, grant.hardware.vram
        self._cause: str | None = None

    @property
    def valid(self) -> bool:
        """Whether it has been neither revoked nor released."""
        return self._cause is None

    def _check(self, offset: int, size: int) -> None:
        if self._cause is not None:
            what = f"the lease on [{self.range.start:#x}, {self.range.end:#x}) of {self.grant.name} is gone"
            raise LeaseRevoked(what, seen=self._cause, remedy="acquire the memory again after resume, or give up")
        if offset < 0 or size < 0 or offset + size > self.range.size:
            raise ContractError("access outside of a lease", expected=f"within {self.range.size:#x} bytes", seen=f"{offset:#x} + {size:#x}")

    def read(self, offset: int, size: int) -> bytes:
        """Bytes at `offset`. Raises LeaseRevoked, ContractError."""
        self._check(offset, size)
        mapped = self._mapped
        if mapped is not None:
            return bytes(mapped.view[offset : offset + size])
        return self._vram.read(self.range.start + offset, size)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store at `offset`. Raises LeaseRevoked, ContractError."""
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        self._check(offset, size)
        mapped = self._mapped
        if mapped is not None:
            mapped.view[offset : offset + size] = data
        else:
            self._vram.write(self.range.start + offset, data)

    def view(self) -> memoryview:
        """The whole lease, writable. Raises LeaseRevoked; NotSupportedError where the device cannot be mapped revocably."""
        self._check(0, 0)
        if self._mapped is None:
            raise NotSupportedError("this device's memory cannot be mapped", remedy="use read and write of the lease")
        return self._mapped.view

    def release(self) -> None:
        """Give it back. Idempotent."""
        self.revoke("released by its holder")

    def revoke(self, cause: str) -> None:
        """Take it back from its holder, whatever views exist. Idempotent."""
        self._cause = self._cause or cause
        mapped, self._mapped = self._mapped, None
        if mapped is not None:
            mapped.revoke()
        self.first_close()
