"""vGPUs that are declared for GPUs that host none now: listed as down, stopped and destroyed on the disk.

Such a GPU is not up, is not configured any more, has a firmware without vGPUs, or its client was given up. Which of these it is, the core
knows and tells; nothing that was the reason once is kept here, for it would be told when another one is.

Owns the word on which GPU's records are a manager's: from the begin of a probe (`claim`) until its client left (`give_back`) nothing is
changed here. A claim is its manager's alone: one that the core gave up, and that ends later, takes none from the manager that came after
it, and its own counts no more. What is changed is told in the daemon's log: events are written through the context of a client at work.
The lock is held over the change of one small file, so that a GPU that comes up reads what was decided. Any thread that may sleep.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvcore.api.errors import FormatError
from nvcore.locks import Lock
from nvcore_vfio.books import Entry
from nvcore_vfio.claims import check_unheld
from nvcore_vfio.declared import Declared
from nvcore_vfio.errors import NoFirmware, UnknownVgpu, taken
from nvcore_vfio.rows import vgpu_row
from nvcore_vfio.store import Damaged, Store, address_of
from nvcore_vfio.types import find_type

if TYPE_CHECKING:
    from nvcore_vfio.manager import Manager

__all__ = ["Shelf"]

_LOG = logging.getLogger("nvcore.client.vfio")  # the one that the core gives this plugin's clients
_SOON = "nvcore vgpu list shows how it stands; then try again"


class Shelf:
    """The records below `folder`, one folder a GPU; without a folder there are none.

    up: addresses of GPUs that have a manager at work, as the caller sees them; their records are left out.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = Lock("vfio.shelf")
        self._claimed: dict[str, tuple[Manager, str]] = {}

    def claim(self, manager: Manager) -> None:
        """Its GPU comes up: the records are this manager's from now on."""
        with self._lock:
            self._claimed[manager.context.gpu.address] = manager, "its GPU is coming up"

    def tell(self, manager: Manager, words: str) -> bool:
        """What to say, while it has the records, of those vGPUs that it does not answer for itself. False: it has them no more."""
        address = manager.context.gpu.address
        with self._lock:
            if not self._has(manager) or manager.gone:
                return False
            self._claimed[address] = manager, words
            return True

    def give_back(self, manager: Manager) -> None:
        """Its client left, or did not come up."""
        with self._lock:
            if self._has(manager):
                del self._claimed[manager.context.gpu.address]

    def _has(self, manager: Manager) -> bool:
        claim = self._claimed.get(manager.context.gpu.address)
        return claim is not None and claim[0] is manager

    def _claim(self, address: str) -> str | None:
        """What is said while a manager has the records."""
        claim = self._claimed.get(address)
        return None if claim is None or claim[0].gone else claim[1]

    def _stores(self, up: Collection[str]) -> Iterator[tuple[str, Store]]:
        if self._folder is None or not self._folder.is_dir():
            return
        for folder in sorted(self._folder.iterdir()):
            address = address_of(folder.name)
            if address is not None and address not in up and folder.is_dir():
                yield address, Store(folder)

    def _records(self, up: Collection[str]) -> Iterator[tuple[str, Store, Declared]]:
        for address, store in self._stores(up):
            for item in store.load():
                if isinstance(item, Declared):
                    yield address, store, item

    def _stands(self, address: str) -> tuple[str, str]:
        """Why vGPUs of this GPU are down, and what to do."""
        words = self._claim(address)
        return ("its GPU hosts no vGPUs now", f"nvcore gpus show {address} and nvcore doctor say why") if words is None else (words, _SOON)

    def rows(self, up: Collection[str]) -> list[dict[str, Any]]:
        """Every vGPU of such a GPU, as rows of nvcore.vgpu/1."""
        return [self._row(address, record) for address, _, record in self._records(up)]

    def _row(self, address: str, record: Declared) -> dict[str, Any]:
        row = vgpu_row(Entry(record, find_type(record.type)), address, 0.0)
        why, remedy = self._stands(address)
        return {**row, "state": "down", "reason": why if remedy is _SOON else f"{why}; {remedy}"}

    def problems(self, up: Collection[str]) -> list[tuple[str, list[str], list[FormatError], tuple[str, str]]]:
        """Each such GPU that has records: address, names, why others cannot be read, and why they are down with what to do."""
        found = []
        for address, store in self._stores(up):
            items = list(store.load())
            names = [item.name for item in items if isinstance(item, Declared)]
            damaged = [item.error for item in items if isinstance(item, Damaged)]
            if items:
                found.append((address, names, damaged, self._stands(address)))
        return found

    def declares(self, name: str, up: Collection[str]) -> bool:
        """Whether a vGPU of that name is declared for such a GPU."""
        return any(record.name == name for _, _, record in self._records(up))

    def check_free(self, name: str, up: Collection[str]) -> None:
        """Raise VgpuExists when the name is that of a record of such a GPU, readable or not."""
        if any(store.holds(name) for _, store in self._stores(up)):
            raise taken(name, self.declares(name, up))

    def start(self, name: str, *, pid: int | None = None) -> dict[str, Any]:
        """Raises NoFirmware: there is nothing to start it on."""
        address, _, _ = self._find(name)
        seen, remedy = self._stands(address)
        raise NoFirmware(f"vGPU {name} of GPU {address} cannot be started", seen=seen, remedy=remedy)

    def stop(self, name: str, *, force: bool = False) -> dict[str, Any]:
        """It is not started when its GPU comes up. Raises VgpuInUse unless `force`, NotStored, NoFirmware while it comes or goes."""

        def change(store: Store, record: Declared) -> None:
            record.claim, record.autostart = None, False
            store.save(record)

        return self._change(name, force, "stopped", change)

    def destroy(self, name: str, *, force: bool = False) -> dict[str, Any]:
        """Forget it. Raises as `stop`."""
        row = self._change(name, force, "destroyed", lambda store, record: store.remove(record.name))
        return {**row, "state": "destroyed", "reason": None}

    def _change(self, name: str, force: bool, what: str, change: Callable[[Store, Declared], None]) -> dict[str, Any]:
        with self._lock:
            address, store, record = self._find(name)
            words = self._claim(address)
            if words is not None:
                raise NoFirmware(f"vGPU {name} of GPU {address} cannot be changed now", seen=words, remedy=_SOON)
            check_unheld(record, force)
            change(store, record)
        done = f"{what} by force" if force else what
        _LOG.info("vGPU %s (VM %s) of GPU %s, which hosts none now, was %s", name, record.vm, address, done)
        return self._row(address, record)

    def _find(self, name: str) -> tuple[str, Store, Declared]:
        for found in self._records(()):  # also of a GPU that came up since: its claim is what says so
            if found[2].name == name:
                return found
        raise UnknownVgpu(f"no vGPU {name}", seen=ascii(name))
