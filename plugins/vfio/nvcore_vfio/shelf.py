"""vGPUs that are declared for GPUs that are not up, or not configured any more: listed with the reason, stopped and destroyed on the disk.

Owns the word on which GPU's records are a manager's: from the begin of a probe (`claim`) until its client left (`give_back`) nothing is
changed here. A claim is its manager's alone: one that the core gave up, and that ends later, takes none from the manager that came after
it, and its own counts no more. The lock is held over the change of one small file, so that a GPU that comes up reads what was decided. Any
thread that may sleep.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvcore.api.errors import FormatError
from nvcore.locks import Lock
from nvcore_vfio.books import Entry
from nvcore_vfio.claims import check_unheld
from nvcore_vfio.declared import Declared
from nvcore_vfio.errors import NoFirmware, UnknownVgpu
from nvcore_vfio.rows import vgpu_row
from nvcore_vfio.store import Damaged, Store, address_of
from nvcore_vfio.types import find_type

if TYPE_CHECKING:
    from nvcore_vfio.manager import Manager

__all__ = ["Shelf"]

_ABSENT = "its GPU is not up, or not configured any more; nvcore gpus says how it stands"
_SOON = "nvcore vgpu list shows when that is over; then again"


class Shelf:
    """The records below `folder`, one folder a GPU; without a folder there are none.

    up: addresses of GPUs that answer for themselves, as the caller sees them; their records are left out.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = Lock("vfio.shelf")
        self._claimed: dict[str, tuple[Manager, str]] = {}
        self._why: dict[str, str] = {}

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

    def give_back(self, manager: Manager, why: str | None = None) -> None:
        """Its client left, or why it did not come up."""
        address = manager.context.gpu.address
        with self._lock:
            if not self._has(manager):
                return
            del self._claimed[address]
            self._why.pop(address, None)
            if why is not None:
                self._why[address] = why

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

    def _reason(self, address: str) -> str:
        words = self._claim(address)
        if words is not None:
            return words
        why = self._why.get(address)
        return _ABSENT if why is None else f"its GPU hosts no vGPUs now: {why}"

    def rows(self, up: Collection[str]) -> list[dict[str, Any]]:
        """Every vGPU of a GPU that is not up, as rows of nvcore.vgpu/1."""
        return [self._row(address, record) for address, _, record in self._records(up)]

    def _row(self, address: str, record: Declared) -> dict[str, Any]:
        row = vgpu_row(Entry(record, find_type(record.type)), address, 0.0)
        return {**row, "state": "down", "reason": self._reason(address)}

    def problems(self, up: Collection[str]) -> list[tuple[str, list[str], list[FormatError], str]]:
        """Each GPU that is not up and has records: address, names, why others cannot be read, and why it is not up."""
        found = []
        for address, store in self._stores(up):
            items = list(store.load())
            names = [item.name for item in items if isinstance(item, Declared)]
            damaged = [item.error for item in items if isinstance(item, Damaged)]
            if items:
                found.append((address, names, damaged, self._reason(address)))
        return found

    def declares(self, name: str, up: Collection[str]) -> bool:
        """Whether a vGPU of that name is declared for a GPU that is not up."""
        return any(record.name == name for _, _, record in self._records(up))

    def start(self, name: str, *, pid: int | None = None) -> dict[str, Any]:
        """Raises NoFirmware: there is nothing to start it on."""
        address, _, _ = self._find(name)
        raise NoFirmware(f"vGPU {name} cannot be started: GPU {address} does not run", seen=self._reason(address))

    def stop(self, name: str, *, force: bool = False) -> dict[str, Any]:
        """It is not started when its GPU comes up. Raises VgpuInUse unless `force`, NotStored, NoFirmware while the GPU comes up."""

        def change(store: Store, record: Declared) -> None:
            record.claim, record.autostart = None, False
            store.save(record)

        return self._change(name, force, change)

    def destroy(self, name: str, *, force: bool = False) -> dict[str, Any]:
        """Forget it. Raises as `stop`."""
        row = self._change(name, force, lambda store, record: store.remove(record.name))
        return {**row, "state": "destroyed", "reason": None}

    def _change(self, name: str, force: bool, change: Callable[[Store, Declared], None]) -> dict[str, Any]:
        with self._lock:
            address, store, record = self._find(name)
            words = self._claim(address)
            if words is not None:
                raise NoFirmware(f"vGPU {name} cannot be changed now", seen=words, remedy=_SOON)
            check_unheld(record, force)
            change(store, record)
        return self._row(address, record)

    def _find(self, name: str) -> tuple[str, Store, Declared]:
        for found in self._records(()):  # also of a GPU that came up since: its claim is what says so
            if found[2].name == name:
                return found
        raise UnknownVgpu(f"no vGPU {name}", seen=ascii(name))
