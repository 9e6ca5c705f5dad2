"""Objects in the firmware as a tree on this side: tenants, address spaces, channels.

Owns the books of what was made; the firmware owns the objects. Each tenant is one client of the resource manager with its device and
subdevice. Any thread that may sleep; one tenant is used by one thread at a time.
Source: nouveau nvkm/subdev/gsp/rm/r535/{client,device}.c for the order of the calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
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
_SPACE: Final = 0x90F10000
_CHANNEL: Final = 0xF1F00000
_OBJECT: Final = 0x0B1E0000


class ObjectBook:
    """Counts of living objects by kind, and handles that are never used twice in a session."""

    __slots__ = ("_clients", "alive", "tenants")

    def __init__(self) -> None:
        self.alive: Counter[str] = Counter()
        self.tenants: list[GspTenant] = []
        self._clients = count()

    def client_handle(self) -> int:
        """A fresh client handle."""
        return _CLIENT | next(self._clients) & 0xFFFF

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
        self.tasks: list[Callable[[], None]] = []  # ends of vGPU tasks, called before anything is freed
        self._handles = count(1)
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

    def fresh(self, base: int) -> int:
        """A handle that this client has not used."""
        return base | next(self._handles) & 0xFFFF

    def space_handle(self) -> int:
        """Handle for an address space."""
        return self.fresh(_SPACE)

    def channel_handle(self) -> int:
        """Handle for a channel."""
        return self.fresh(_CHANNEL)

    def object_handle(self) -> int:
        """Handle for an engine object."""
        return self.fresh(_OBJECT)

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
        """Free everything below, channels first, then itself. Idempotent; on a dead firmware it only forgets."""
        if not self._open:
            return
        session = self.session
        while self.tasks:
            session.try_free(self.tasks.pop(), f"a vGPU task of {self.label}")
        for channel in reversed(self.channels):
            session.try_free(partial(session.channel_family.destroy, channel), f"channel {channel.channel} of {self.label}")
        for space in reversed(self.spaces):
            session.try_free(partial(session.memory_family.free_space, space), f"an address space of {self.label}")
        self._teardown()
        if self in session.book.tenants:
            session.book.tenants.remove(self)

    def _teardown(self) -> None:
        session = self.session
        self._open = False
        for kind, handle in reversed(self._made):
            session.try_free(partial(session.rm.free, self.client, handle, f"the end of {self.label}"), f"{kind} of {self.label}")
            session.book.alive[kind] -= 1
        self._made.clear()
        for channel in self.channels:
            if channel.open:
                channel.open = False
                session.book.alive["channel"] -= 1
                session.book.alive["object"] -= channel.objects
        for space in self.spaces:
            if space.open:
                space.open = False
                session.book.alive["space"] -= 1
        self.channels.clear()
        self.spaces.clear()
