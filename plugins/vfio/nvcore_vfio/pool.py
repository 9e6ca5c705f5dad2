"""What the vGPU client has of one GPU: one grant with memory, channel ids and virtual functions, cut into equal parts, one a vGPU.

Owns the grant, and the list of functions that cannot be used: those that do not answer, and those that the firmware did not let go of,
which are in quarantine together with their vGPU's memory and channel ids until the GPU is reset. Life-cycle thread; any thread may look,
since the lists are replaced whole.
"""

from __future__ import annotations

from nvcore.api.client import ClientContext
from nvcore.api.errors import NvcoreError
from nvcore.api.grant import Grant, GrantRequest
from nvcore_vfio.errors import NoCapacity
from nvcore_vfio.instance import Instance
from nvcore_vfio.types import types_for

__all__ = ["Pool"]


class Pool:
    """The parts. limit: how many at the most, None for as many as fit. size: how many there are; kinds: types that the GPU can have;
    unusable, kept: functions that do not answer, and those in quarantine, with the reason."""

    def __init__(self, context: ClientContext, limit: int | None) -> None:
        self._context, self._limit = context, limit
        inventory = context.inventory
        self.kinds = types_for(context.gpu.chip.name, inventory.memory_size)
        self.functions = inventory.vgpu.functions
        self.segment = inventory.vmmu_segment or 0x200000
        self.heap = self.size = 0
        self.unusable: dict[int, str] = {}
        self.kept: dict[int, str] = {}
        self._grant: Grant | None = None

    def fill(self, heap: int) -> None:
        """Take as many parts as fit, or as the configuration says. heap: bytes that the firmware's task of each vGPU needs. Raises
        OutOfResources."""
        self.heap = heap
        silent = {}
        for number in range(1, self.functions + 1):
            try:
                self._context.virtual_function(number)
            except NvcoreError as error:
                silent[number] = error.what
        self.unusable = silent
        if self.kinds:
            self._reserve()

    def _reserve(self) -> None:
        kind = max(self.kinds, key=lambda row: row.max_instances)
        each = Instance.memory_of(kind, self.heap, self.segment)
        inventory = self._context.inventory
        fit = (inventory.usable_memory - self.segment) // each
        wanted = kind.max_instances if self._limit is None else self._limit
        self.size = max(0, min(wanted, kind.max_instances, self.functions, fit))
        if not self.size:
            return
        request = GrantRequest(
            label="vgpus",
            vram=each * self.size,
            vram_align=self.segment,
            top_down=True,
            channels=kind.channels * self.size,
            channels_at=inventory.channels - kind.channels * self.size,  # from the top of the range down
            functions=tuple(range(1, self.functions + 1)),
        )
        self._grant = self._context.grant(request)

    def grant_for(self, function: int) -> Grant:
        """The grant that a vGPU on this function is cut out of. Raises NoCapacity."""
        address = self._context.gpu.address
        if self._grant is None:
            raise NoCapacity(f"no memory is set aside for vGPUs on {address}", remedy="see `nvcore doctor`")
        why = self.unusable.get(function) or self.kept.get(function)
        if why is not None:
            raise NoCapacity(f"virtual function {function} cannot be used", seen=why, remedy=f"nvcore gpus reset {address}")
        return self._grant

    def settle(self, function: int, why: str | None) -> str | None:
        """After the vGPU on a function was taken down: whether its part came back; if not, why the function is in quarantine."""
        if self._grant is None or function in self._grant.functions:
            return None
        text = f"in quarantine until the GPU is reset: {why or 'what it had did not come back'}"
        self.kept = {**self.kept, function: text}
        return text

    def regain(self) -> None:
        """After a reset: quarantined parts are free now, and taken again with all others. No part may be in use. Raises OutOfResources."""
        self.kept = {}
        self.leave()
        if self.kinds:
            self._reserve()

    def leave(self) -> None:
        """Give it back."""
        grant, self._grant = self._grant, None
        if grant is not None:
            grant.release()
