"""Declared vGPUs: what the operator asked for, on disk, so that it is made again after a restart.

Owns the folder of one GPU's records: one JSON file each, replaced whole (write, sync, rename). A file that cannot be read is reported and
left alone, never guessed at. The vGPU's name, type, slot, function, machine type and firmware version are fixed when it is declared.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from nvcore.api.errors import FormatError, UsageError

__all__ = ["Claim", "Declared", "Store", "check_name", "living"]

SCHEMA: Final = "nvcore.vgpu-declared/1"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_FIELDS: Final[dict[str, type | tuple[type, ...]]] = {
    "name": str,
    "uuid": str,
    "type": str,
    "slot": int,
    "function": int,
    "machine": str,
    "firmware": str,
    "vm": (str, type(None)),
    "autostart": bool,
}


def check_name(name: str) -> str:
    """A name that is safe as a file name, in logs and on screens. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            "not a name for a vGPU", expected="1 to 63 letters, digits, '.', '_' and '-', first a letter or digit", seen=ascii(name)
        )
    return name


class Claim:
    """A process that holds a vGPU: `pid` and the time it was started, so that a number used again is not taken for it."""

    __slots__ = ("pid", "started")

    def __init__(self, pid: int, started: int) -> None:
        self.pid, self.started = pid, started

    @classmethod
    def of(cls, pid: int) -> Claim:
        """The claim of a living process. Raises UsageError."""
        started = _start_time(pid)
        if started is None:
            raise UsageError(f"no process {pid}", remedy="name the process of the virtual machine that will hold the vGPU")
        return cls(pid, started)

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return _start_time(self.pid) == self.started


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, in clock ticks since boot (proc(5)); None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (OSError, ValueError):
        return None
    return int(text.rpartition(")")[2].split()[19])


def living(claim: Claim | None) -> bool:
    """Whether a claim is held by somebody."""
    return claim is not None and claim.alive


class Declared:
    """One declared vGPU."""

    __slots__ = ("autostart", "claim", "firmware", "function", "machine", "name", "slot", "type", "uuid", "vm")

    def __init__(
        self,
        *,
        name: str,
        uuid: str,
        type: str,
        slot: int,
        function: int,
        machine: str,
        firmware: str,
        vm: str | None = None,
        autostart: bool = True,
        claim: Claim | None = None,
    ) -> None:
        self.name, self.uuid, self.type, self.slot, self.function = check_name(name), uuid, type, slot, function
        self.machine, self.firmware, self.vm, self.autostart, self.claim = machine, firmware, vm, autostart, claim

    def as_dict(self) -> dict[str, Any]:
        """The record as stored."""
        record: dict[str, Any] = {"schema": SCHEMA, **{key: getattr(self, key) for key in _FIELDS}}
        if self.claim is not None:
            record["claim"] = {"pid": self.claim.pid, "started": self.claim.started}
        return record

    @classmethod
    def parse(cls, text: str, where: str) -> Declared:
        """A stored record. Raises FormatError naming the field."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError("a vGPU record is no JSON", seen=str(error), where=where, remedy="restore the file, or remove it") from None
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            seen = document.get("schema") if isinstance(document, dict) else type(document).__name__
            raise FormatError("a vGPU record of another kind", expected=SCHEMA, seen=seen, where=where)
        values: dict[str, Any] = {}
        for key, kind in _FIELDS.items():
            value = document.get(key)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise FormatError(f"a vGPU record with a bad {key}", seen=ascii(value), where=where)
            values[key] = value
        claim = document.get("claim")
        if claim is not None:
            if not isinstance(claim, dict) or not all(type(claim.get(key)) is int for key in ("pid", "started")):
                raise FormatError("a vGPU record with a bad claim", seen=ascii(claim), where=where)
            values["claim"] = Claim(claim["pid"], claim["started"])
        try:
            return cls(**values)
        except UsageError as error:
            raise FormatError("a vGPU record with a bad name", seen=error.seen, where=where) from None


class Store:
    """The records of one GPU, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def load(self) -> Iterator[Declared | FormatError]:
        """Every record in name order; for a file that cannot be used, its error. Files of other names are not looked at (F15)."""
        for path in sorted(self.folder.glob("*.json")):
            if not path.is_file() or not _NAME.fullmatch(path.stem):
                continue
            try:
                record = Declared.parse(path.read_text("utf-8"), str(path))
                if record.name != path.stem:
                    raise FormatError("a vGPU record under another name", expected=path.stem, seen=record.name, where=str(path))
                yield record
            except (OSError, UnicodeDecodeError) as error:
                yield FormatError("a vGPU record cannot be read", seen=str(error), where=str(path))
            except FormatError as error:
                yield error

    def save(self, record: Declared) -> None:
        """Store it: after this returns it survives a power cut."""
        path = self.folder / f"{record.name}.json"
        scratch = path.with_suffix(".new")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(record.as_dict(), file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        self._sync()

    def remove(self, name: str) -> None:
        """Forget it. Nothing happens when it is not there."""
        (self.folder / f"{name}.json").unlink(missing_ok=True)
        self._sync()

    def _sync(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
