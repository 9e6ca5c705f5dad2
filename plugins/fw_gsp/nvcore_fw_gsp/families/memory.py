"""Family "memory": address spaces whose tables their owner builds; the firmware learns where the root is.

Owns nothing beyond the session's books. Any thread that may sleep.
Source: open-gpu-kernel-modules ctrl0080dma.h, cl90f1.h; nouveau nvkm/subdev/gsp/rm/r535/vmm.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, cast

from nvcore.api.errors import ContractError
from nvcore.api.families import SpaceRef, Tenant
from nvcore.api.marks import may_sleep
from nvcore_fw_gsp.session.tenant import DEVICE, GspSpace, GspTenant

if TYPE_CHECKING:
    from nvcore_fw_gsp.session.gsp import GspSession

__all__ = ["MemoryFamily"]

_EXTERNALLY_OWNED: Final = 8
_APERTURES: Final = {"vram": 0, "system": 1}


class MemoryFamily:
    """See `nvcore.api.families.MemoryFamily`."""

    name = "memory"
    version = 1

    def __init__(self, session: GspSession) -> None:
        self._session = session

    @may_sleep
    def create_space(self, tenant: Tenant) -> GspSpace:
        """An empty address space that its owner manages."""
        owner = cast(GspTenant, tenant)
        owner.check()
        session = self._session
        abi, handle = session.rm.abi, owner.space_handle()
        params = abi.struct("NV_VASPACE_ALLOCATION_PARAMETERS").pack(flags=_EXTERNALLY_OWNED)
        session.rm.alloc(owner.client, DEVICE, handle, abi.enum("FERMI_VASPACE_A"), params, f"an address space for {owner.label}")
        space = GspSpace(owner, handle)
        owner.spaces.append(space)
        session.book.alive["space"] += 1
        return space

    @may_sleep
    def set_page_directory(self, space: SpaceRef, address: int, *, entries: int, aperture: Literal["vram", "system"] = "vram") -> None:
        """Link the root directory."""
        target = _checked(space)
        rm = self._session.rm
        params = rm.abi.struct("NV0080_CTRL_DMA_SET_PAGE_DIRECTORY_PARAMS").pack(
            physAddress=address, numEntries=entries, flags=_APERTURES[aperture], hVASpace=target.handle
        )
        command = rm.abi.enum("NV0080_CTRL_CMD_DMA_SET_PAGE_DIRECTORY")
        rm.control(target.owner.client, DEVICE, command, params, f"the page directory of {target.owner.label}")
        target.linked = True

    @may_sleep
    def unset_page_directory(self, space: SpaceRef) -> None:
        """Unlink it. Nothing is asked when none is linked."""
        target = _checked(space)
        if not target.linked:
            return
        rm = self._session.rm
        params = rm.abi.struct("NV0080_CTRL_DMA_UNSET_PAGE_DIRECTORY_PARAMS").pack(hVASpace=target.handle)
        command = rm.abi.enum("NV0080_CTRL_CMD_DMA_UNSET_PAGE_DIRECTORY")
        rm.control(target.owner.client, DEVICE, command, params, f"unlinking the page directory of {target.owner.label}")
        target.linked = False

    @may_sleep
    def free_space(self, space: SpaceRef) -> None:
        """Free the space; its channels must be gone. Idempotent."""
        target = cast(GspSpace, space)
        if not target.open:
            return
        session, owner = self._session, target.owner
        try:
            if session.dead is None:
                self.unset_page_directory(target)
        finally:
            target.open = False
            owner.spaces.remove(target)
            session.book.alive["space"] -= 1
            session.rm.free(owner.client, target.handle, f"an address space of {owner.label}")


def _checked(space: SpaceRef) -> GspSpace:
    target = cast(GspSpace, space)
    if not target.open:
        raise ContractError(f"an address space of {target.owner.label} was freed", remedy="create another one")
    return target
