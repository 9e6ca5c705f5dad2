"""The books of one GPU's vGPUs: each one's record, how it stands, and what it has of the hardware.

Owns them behind one lock, held for a look or a change alone, never across a call of the core, the firmware or the disk. Any thread may
look. Entries and instances come and go on the life-cycle thread only. How one stands is changed there and on the client's delivery thread
(a fault, a crash), which says from which states it may; so a fault undoes no operation, and an operation overlooks no fault.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from nvcore.locks import Lock
from nvcore_vfio.declared import Declared
from nvcore_vfio.errors import UnknownVgpu
from nvcore_vfio.instance import Instance
from nvcore_vfio.store import Damaged
from nvcore_vfio.types import VgpuType

__all__ = ["Books", "Entry", "State"]

State = Literal["stopped", "starting", "running", "stopping", "suspended", "failed"]


class Entry:
    """A declared vGPU. kind: its type, None when this release does not know it; flaw: why it can never be started as it is; stands: its
    state with the reason; instance: what it has of the hardware while it is started."""

    __slots__ = ("flaw", "instance", "kind", "record", "stands")

    def __init__(self, record: Declared, kind: VgpuType | None, flaw: str | None = None) -> None:
        self.record, self.kind, self.flaw = record, kind, flaw
        self.stands: tuple[State, str | None] = ("failed", flaw) if flaw else ("stopped", None)
        self.instance: Instance | None = None


class Books:
    """All of one GPU. damaged: records that cannot be read."""

    def __init__(self) -> None:
        self._lock = Lock("vfio.books")
        self._entries: dict[str, Entry] = {}
        self.damaged: list[Damaged] = []

    def all(self) -> list[Entry]:
        """Every entry, by slot."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda entry: entry.record.slot)

    def started(self) -> list[Entry]:
        """Those that have something of the hardware."""
        return [entry for entry in self.all() if entry.instance is not None]

    def find(self, name: str) -> Entry | None:
        """The entry of that name."""
        with self._lock:
            return self._entries.get(name)

    def entry(self, name: str) -> Entry:
        """The entry of that name. Raises UnknownVgpu."""
        found = self.find(name)
        if found is None:
            names = ", ".join(entry.record.name for entry in self.all())
            raise UnknownVgpu(f"no vGPU {name}", expected=names or "none is declared", seen=ascii(name))
        return found

    def add(self, entry: Entry) -> None:
        """Enter it."""
        with self._lock:
            self._entries[entry.record.name] = entry

    def remove(self, entry: Entry) -> None:
        """Strike it out."""
        with self._lock:
            del self._entries[entry.record.name]

    def places(self) -> list[tuple[int | None, int | None]]:
        """Slot and function of every record, also of those that cannot be read, as far as they can be made out."""
        places: list[tuple[int | None, int | None]] = [(entry.record.slot, entry.record.function) for entry in self.all()]
        return places + [(item.slot, item.function) for item in self.damaged]

    def move(self, entry: Entry, state: State, reason: str | None = None, *, only: Collection[State] = ()) -> bool:
        """Enter how it stands now. only: states that this may follow; False, and nothing is changed, in another one."""
        with self._lock:
            if only and entry.stands[0] not in only:
                return False
            entry.stands = (state, reason)
            return True
