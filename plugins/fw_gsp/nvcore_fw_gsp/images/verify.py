"""Whether images are whole: each file is read by its own format, and compared with its own sums and with those noted at the fetch.

Owns nothing. Command line only, main thread: hashing 64 MB has no place on the boot path.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Any, Final

from nvcore.api.errors import NvcoreError
from nvcore_fw_gsp.images.find import ImageSet
from nvcore_fw_gsp.images.source import FileSource

__all__ = ["verify_sets"]

_PIECE: Final = 1 << 20


def verify_sets(sets: Iterable[ImageSet]) -> list[dict[str, Any]]:
    """One row a file (links are followed, each file is checked once): file, kind, ok, state, checked. Sets with a problem add a row of
    their own."""
    rows: list[dict[str, Any]] = []
    done: dict[str, dict[str, Any]] = {}
    for one in sets:
        if one.problem is not None:
            rows.append({"file": f"{one.folder} ({one.version})", "kind": "set", "ok": False, "state": one.problem, "checked": ""})
        for role, path in one.files.items():
            real = os.path.realpath(path)
            if real not in done:
                done[real] = _verify(role, real)
                rows.append(done[real])
    return rows


def _verify(role: str, path: str) -> dict[str, Any]:
    row: dict[str, Any] = {"file": path, "kind": role, "ok": True, "state": "ok", "checked": ""}
    checked: list[str] = []
    try:
        with FileSource(path) as source:
            _read(role, source, checked)
            noted = _noted(path)
            if noted is not None:
                checked.append("sha256")
                seen = _sha256(source)
                if seen != noted:
                    row.update(ok=False, state=f"damaged: SHA-256 {seen[:16]}… instead of {noted[:16]}…")
    except NvcoreError as error:
        row.update(ok=False, state=str(error))
    row["checked"] = ", ".join(checked)
    return row


def _read(role: str, source: FileSource, checked: list[str]) -> None:
    """Read a file as what it is said to be."""
    from nvcore_fw_gsp.images.container import GenericBootloader, HsUcode, RiscvUcode
    from nvcore_fw_gsp.images.fmc import Fmc
    from nvcore_fw_gsp.images.gsp import GspImage

    checked.append("format")
    match role:
        case "gsp":
            image = GspImage(source)
            for family in image.signatures:
                image.signature(family)
        case "bootloader":
            RiscvUcode(source)
        case "generic":
            GenericBootloader(source)
        case "fmc":
            checked += ["crc32", "sha384"]
            Fmc(source).verify()
        case _:
            HsUcode(source)


def _noted(path: str) -> str | None:
    """The SHA-256 that fetch noted for a file, looked up in the folders above it."""
    from nvcore_fw_gsp.provision.fetch import read_note

    folder, name = os.path.split(path)
    for _ in range(3):
        note = read_note(folder)
        if note is not None:
            noted = note["files"].get(name)
            return noted if isinstance(noted, str) else None
        folder, part = os.path.split(folder)
        name = f"{part}/{name}"
    return None


def _sha256(source: FileSource) -> str:
    digest = hashlib.sha256()
    piece = memoryview(bytearray(_PIECE))
    for at in range(0, source.size, _PIECE):
        view = piece[: min(_PIECE, source.size - at)]
        source.read_into(at, view, "content")
        digest.update(view)
    return digest.hexdigest()
