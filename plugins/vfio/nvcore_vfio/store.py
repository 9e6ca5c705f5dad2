"""The records of one GPU's vGPUs on disk, so that they are made again after a restart.

Owns a folder with one JSON file each, replaced whole (write, sync, rename). A file that cannot be read is reported and left alone, never
guessed at, and keeps its name; as far as its place can be made out, that is kept too. Life-cycle thread.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nvcore.api.errors import FormatError
from nvcore_vfio.declared import Declared, is_name
from nvcore_vfio.errors import NotStored

__all__ = ["Damaged", "Store", "address_of", "folder_name"]

_PLACE: Final = re.compile(r'"(slot|function)"\s*:\s*(\d{1,5})\b')

_FOLDER: Final = re.compile(r"[0-9a-fA-F]{4,8}-[0-9a-fA-F]{2}-[0-9a-fA-F]{2}\.[0-7]")  # an address is kept as its bus writes it


def folder_name(address: str) -> str:
    """The folder of a GPU's records, by its bus address."""
    return address.replace(":", "-")


def address_of(folder: str) -> str | None:
    """The bus address that a folder is named for; None for another name."""
    return folder.replace("-", ":") if _FOLDER.fullmatch(folder) else None


class Damaged:
    """A record that cannot be used: why, and the slot and function that its text names, or None."""

    __slots__ = ("error", "function", "slot")

    def __init__(self, error: FormatError, text: str) -> None:
        found = {key: int(value) for key, value in _PLACE.findall(text)}
        self.error, self.slot, self.function = error, found.get("slot"), found.get("function")


class Store:
    """The records below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def holds(self, name: str) -> bool:
        """Whether there is anything of that name, readable or not."""
        return os.path.lexists(self._path(name))

    def load(self) -> Iterator[Declared | Damaged]:
        """Every record in name order; for a file that cannot be used, why. Files of other names are not looked at (F15)."""
        for path in sorted(self.folder.glob("*.json")):
            if not path.is_file() or not is_name(path.stem):
                continue
            text = ""
            try:
                data = path.read_bytes()
                text = data.decode("utf-8", "replace")
                record = Declared.parse(data.decode("utf-8"), str(path))
                if record.name != path.stem:
                    raise FormatError("a vGPU record under another name", expected=path.stem, seen=record.name, where=str(path))
                yield record
            except (OSError, UnicodeDecodeError) as error:
                yield Damaged(FormatError("a vGPU record cannot be read", seen=str(error), where=str(path)), text)
            except FormatError as error:
                yield Damaged(error, text)

    def save(self, record: Declared) -> None:
        """Store it: after this returns it survives a power cut. Raises NotStored."""
        path = self._path(record.name)
        scratch = path.with_suffix(".new")
        with _told(record.name, path, "written"):
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(record.as_dict(), file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
            self._sync()

    def remove(self, name: str) -> None:
        """Forget it. Nothing happens when it is not there. Raises NotStored."""
        path = self._path(name)
        with _told(name, path, "removed"):
            path.unlink(missing_ok=True)
            self._sync()

    def _sync(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _told(name: str, path: Path, change: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotStored(f"the record of vGPU {name} could not be {change}", seen=str(error), where=str(path)) from error
