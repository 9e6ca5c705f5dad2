"""`nvcore firmware fetch`: from nothing to usable images beside a note of where they came from.

Owns the target folder: images are unpacked beside it and put in place by one rename, so that a reader sees the old ones or the new ones.
One fetch at a time a folder (a lock file). Command line only, main thread.
Source of the package: Debian, firmware-nvidia-graphics of trixie-backports (linux-firmware 20260916: 570.144 and 535.113.01).
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, Final

from nvcore.api.clock import SYSTEM, Clock
from nvcore_fw_gsp.provision.apt import PrivateApt
from nvcore_fw_gsp.provision.errors import PlaceNotWritable
from nvcore_fw_gsp.provision.unpack import LICENCE, unpack

__all__ = ["NOTE", "fetch", "image_count", "read_note"]

PACKAGE: Final = "firmware-nvidia-graphics"
SUITE: Final = "trixie-backports"
COMPONENTS: Final = "non-free-firmware"
NOTE: Final = "provenance.json"
"""Name of the note beside fetched images: where they came from."""

SCHEMA: Final = "nvcore.firmware.provenance/1"


def read_note(folder: str) -> dict[str, Any] | None:
    """What `fetch` noted about the images in a folder: package, version, sha256, files {path: SHA-256}; None without a readable note."""
    try:
        with open(os.path.join(folder, NOTE), encoding="utf-8") as file:
            note = json.load(file)
    except (OSError, ValueError):
        return None
    sound = isinstance(note, dict) and note.get("schema") == SCHEMA and isinstance(note.get("files"), dict)
    return note if sound else None


def image_count(note: Mapping[str, Any]) -> int:
    """How many images a note names: each is a file of its own, and the licence beside them is none."""
    return sum(name != LICENCE for name in note["files"])


def fetch(
    folder: str, say: Callable[[str], None], *, environ: Mapping[str, str] = os.environ, clock: Clock = SYSTEM, force: bool = False
) -> dict[str, Any]:
    """Fill `folder` with the images of all chips; the note that lies beside them. With images there already, only `force` fetches again.

    say: told one line a step. Raises FetchError and its kinds; the folder is then as before.
    """
    note = read_note(folder)
    if note is not None and not force and all(os.path.isfile(os.path.join(folder, name)) for name in note["files"]):
        say(f"already there: {note['package']} {note['version']} in {folder} (--force fetches again)")
        return note
    parent = os.path.dirname(os.path.abspath(folder))
    try:
        os.makedirs(parent, exist_ok=True)
        lock = os.open(os.path.join(parent, ".fetch.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PlaceNotWritable(
            "the folder for images cannot be made", seen=str(error), where=parent, remedy="choose another with --to"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PlaceNotWritable("another fetch fills this folder now", where=parent, remedy="wait for it to end") from error
        try:
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=parent) as work:
                note = _fetch(work, folder, say, environ, clock)
        except OSError as error:
            raise PlaceNotWritable.of("images cannot be fetched", parent, error) from error
    finally:
        os.close(lock)
    say(f"{image_count(note)} images in {folder}; licence: {folder}/{LICENCE}")
    return note


def _fetch(work: str, folder: str, say: Callable[[str], None], environ: Mapping[str, str], clock: Clock) -> dict[str, Any]:
    start = clock.now()
    apt = PrivateApt(os.path.join(work, "apt"), environ, clock)
    say(f"reading the lists of {SUITE} (private state, nothing is installed)")
    apt.use(apt.mirror(), SUITE, COMPONENTS)
    shown = [-1]

    def progress(done: int, total: int) -> None:
        step = min(done * 4 // max(total, 1), 4)
        if step > shown[0]:
            shown[0] = step
            say(f"downloading {PACKAGE}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    path, _size, digest = apt.download(PACKAGE, progress)
    version = os.path.basename(path).split("_")[1].replace("%3a", ":")
    new = os.path.join(work, "nvidia")
    os.mkdir(new, 0o755)
    say(f"unpacking {version}")
    sums = unpack(path, new, environ, say)
    note = {"schema": SCHEMA, "package": PACKAGE, "suite": SUITE, "version": version, "sha256": digest, "files": dict(sorted(sums.items()))}
    with open(os.path.join(new, NOTE), "w", encoding="utf-8") as file:
        json.dump(note, file, indent=1)
        file.write("\n")
    _replace(new, folder, work)
    say(f"took {clock.now() - start:.1f} s")
    return note


def _replace(new: str, folder: str, work: str) -> None:
    """Put `new` where `folder` is; what was there goes to the work folder, and back when that fails.

    A folder that fetch did not fill is not replaced.
    """
    old = os.path.join(work, "old")
    try:
        if os.path.isdir(folder) and os.listdir(folder) and read_note(folder) is None:
            raise PlaceNotWritable("the folder holds something else", where=folder, remedy="choose an empty one with --to")
        if os.path.lexists(folder):
            os.rename(folder, old)
        try:
            os.rename(new, folder)
        except OSError:
            if os.path.lexists(old):
                os.rename(old, folder)
            raise
    except OSError as error:
        raise PlaceNotWritable.of("the images cannot be put in place", folder, error) from error
