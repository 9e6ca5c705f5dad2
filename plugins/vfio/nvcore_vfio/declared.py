"""One declared vGPU: what the operator asked for, as a record with a schema.

Name, type, slot, function, machine type and firmware version are fixed when it is declared. Pure. A record's values are checked here,
against what any GPU could have; whether they fit this GPU is its manager's business.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from nvcore.api.errors import FormatError, UsageError
from nvcore_vfio.claims import Claim

__all__ = ["Declared", "check_name", "is_name"]

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
_RANGES: Final = {"slot": range(0x10000), "function": range(1, 0x10000)}
"""TotalVFs of SR-IOV is a number of 16 bits."""


def is_name(name: str) -> bool:
    """Whether it is safe as a file name, in logs and on screens."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """A name that is. Raises UsageError."""
    if not is_name(name):
        raise UsageError(
            "not a name for a vGPU", expected="1 to 63 letters, digits, '.', '_' and '-', first a letter or digit", seen=ascii(name)
        )
    return name


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
            if key in _RANGES and value not in _RANGES[key]:
                allowed = _RANGES[key]
                raise FormatError(f"a vGPU record with a bad {key}", expected=f"{allowed.start} to {allowed[-1]}", seen=value, where=where)
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
