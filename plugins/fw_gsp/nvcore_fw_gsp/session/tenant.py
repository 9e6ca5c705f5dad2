"""Objects in the firmware as a tree on this side: tenants, address spaces, channels.

Owns the books of what was made; the firmware owns the objects. Each tenant is one client of the resource manager with its device and
subdevice. Handles count up and begin again after 2^20, without those that are still in use. Any thread that may sleep; one tenant is used
by one thread at a time.
Source: nouveau nvkm/subdev/gsp/rm/r535/{client,device}.c for the order of the calls; open-gpu-kernel-modules 570.144 resserv.h for the 20
bits of a client's number (RS_CLIENT_HANDLE_MAX).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

from nvcore.api.errors import ContractError, NvcoreError
from nvcore.api.families import Tenant
from nvcore.api.marks import may_sleep

if TYPE_CHECKING:
    from nvcore_fw_gsp.session.gsp import GspSession

__all__ = ["GspChannel", "GspSpace", "GspTenant", "ObjectBook"]

DEVICE: Final = 0xDE1D0000
SUBDEVICE: Final = 0x5D1D0000
_CLIENT: Final = 0xC1D00000
_SPACE: Final = 0x90F00000
_CHANNEL: Final = 0xF1F00000
_OBJECT: Final = 0x0B100000
_NUMBER: Final = 0xFFFFF
"""The bits of a handle that count; those above name its kind."""


def _unused(base: int, numbers: count[int], used: Collection[int]) -> int:
    """The next handle of a kind that nobody uses."""
    return next(handle for number in numbers if (handle := base | number & _NUMBER) not in used)


class ObjectBook:
    """Counts of living objects by kind, the tenants, and the handles of clients. clients: those that the firmware may have."""

    __slots__ = ("_numbers", "alive", "clients", "tenants")

    def __init__(self) -> None:
        self.alive: Counter[str] = Counter()
        self.tenants: list[GspTenant] = []
        self.clients: set[int] = set()
        self._numbers = count()

    def client_handle(self) -> int:
        """A client handle that no client has. Two threads never get the same: each draws numbers of its own."""
        handle = _unused(_CLIENT, self._numbers, self.clients)
        self.clients.add(handle)
        return handle

    def snapshot(self) -> dict[str, int]:
        """Counts, without kinds that have none."""
        return {kind: number for kind, number in sorted(self.alive.items()) if number}


class GspSpace:
    """An address space. linked: a page directory is set."""

    __slots__ = ("handle", "linked", "open", "owner", "tenant")

    def __init__(self, owner: GspTenant, handle: int) -> None:
        self.owner, self.handle, self.linked, self.open = owner, handle, False, True
        self.tenant: Tenant = owner


class GspChannel:
    """A channel. token: what is written to the doorbell."""

    __slots__ = ("channel", "enabled", "engine", "handle", "objects", "open", "owner", "tenant", "token")

    def __init__(self, owner: GspTenant, handle: int, channel: int, engine: str, token: int) -> None:
        self.owner, self.handle, self.channel, self.engine, self.token = owner, handle, channel, engine, token
        self.tenant: Tenant = owner
        self.enabled, self.open = False, True
        self.objects = 0


class GspTenant:
    """A root in the firmware: client, device, subdevice, and what hangs below."""

    def __init__(self, session: GspSession, label: str) -> None:
        self.label = label
        self.session = session
        self.client = session.book.client_handle()
        self.spaces: list[GspSpace] = []
        self.channels: list[GspChannel] = []
        self.tasks: dict[object, Callable[[], None]] = {}  # the vGPUs that it has, and the end of each, called before anything is freed
        self._numbers = count(1)
        self._made: list[tuple[str, int]] = []
        self._open = True
        try:
            self._build()
        except NvcoreError:
            self._teardown()
            raise
        session.book.tenants.append(self)

    @property
    def open(self) -> bool:
        """Whether it can still be used."""
        return self._open

    def check(self) -> None:
        """Raise ContractError when it was closed."""
        if not self._open:
            raise ContractError(f"tenant {self.label} was closed", remedy="open another one")

    def space_handle(self) -> int:
        """Handle for an address space."""
        return _unused(_SPACE, self._numbers, [space.handle for space in self.spaces])

    def channel_handle(self) -> int:
        """Handle for a channel."""
        return _unused(_CHANNEL, self._numbers, [channel.handle for channel in self.channels])

    def object_handle(self) -> int:
        """Handle for an engine object; it goes with its channel, long before the count is through."""
        return _unused(_OBJECT, self._numbers, ())

    def _build(self) -> None:
        abi, client = self.session.rm.abi, self.client
        root = abi.struct("NV0000_ALLOC_PARAMETERS").pack(hClient=client, processID=0xFFFFFFFF)
        self._make("client", client, client, abi.enum("NV01_ROOT"), root)
        device = abi.struct("NV0080_ALLOC_PARAMETERS").pack(deviceId=0, hClientShare=client)
        self._make("device", client, DEVICE, abi.enum("NV01_DEVICE_0"), device)
        self._make("subdevice", DEVICE, SUBDEVICE, abi.enum("NV20_SUBDEVICE_0"), abi.struct("NV2080_ALLOC_PARAMETERS").pack())

    def _make(self, kind: str, parent: int, handle: int, class_id: int, params: bytearray) -> None:
        session = self.session
        session.rm.alloc(self.client, parent, handle, class_id, params, f"a {kind} for {self.label}")
        self._made.append((kind, handle))
        session.book.alive[kind] += 1

    @may_sleep
    def close(self) -> None:
        """Free everything below, channels first, then itself; each step is tried. Idempotent; on a dead firmware it only forgets. Raises
        the first cause when the firmware may still hold something: a vGPU's task, or the client with what is below."""
        if not self._open:
            return
        session = self.session
        held = [session.try_free(end, f"a vGPU task of {self.label}") for end in reversed(list(self.tasks.values()))]
        for channel in reversed(self.channels):
            session.try_free(partial(session.channel_family.destroy, channel), f"channel {channel.channel} of {self.label}")
        for space in reversed(self.spaces):
            session.try_free(partial(session.memory_family.free_space, space), f"an address space of {self.label}")
        held.append(self._teardown())
        if self in session.book.tenants:
            session.book.tenants.remove(self)
        for cause in held:
            if cause is not None:
                raise cause

    def _teardown(self) -> NvcoreError | None:
        """Free the client and what it is made of; why the client itself, with which all below it goes, could not be freed."""
        session, cause = self.session, None
        self._open = False
        for kind, handle in reversed(self._made):
            cause = session.try_free(partial(session.rm.free, self.client, handle, f"the end of {self.label}"), f"{kind} of {self.label}")
            session.book.alive[kind] -= 1
        if cause is None:
            session.book.clients.discard(self.client)
        self._made.clear()
        return cause
