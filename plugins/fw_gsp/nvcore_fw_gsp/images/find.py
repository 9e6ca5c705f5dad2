"""Finding image sets: which versions of which chip lie in which folder, and why a set cannot be used.

Owns nothing; looks at folders, and at the GSP image's headers of a complete set. Runs on the life-cycle thread or a command line, never on
a receiver. What is missing is told with everything that was looked for, where, and which versions are there (an installed package of
another version is not "missing").
Source of the file names: linux-firmware 20260916, nvidia/<chip>/{gsp,acr}.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from nvcore.api.errors import NvcoreError
from nvcore_fw_gsp.images.chips import GENERIC_BOOTLOADERS, ImageChip, image_chip
from nvcore_fw_gsp.images.errors import FirmwareMissing, ReleaseMismatch, VersionNotSupported
from nvcore_fw_gsp.images.gsp import GspImage
from nvcore_fw_gsp.images.source import FileSource

__all__ = ["VERSIONS", "ImageSet", "absent", "choose", "find", "search_roots", "taken", "unreadable"]

VERSIONS: Final = ("570.144", "535.113.01")
"""Versions that this backend boots, best first: those with images, layouts and behaviour. Others are listed and refused."""

_FILE: Final = re.compile(r"^(?P<role>[a-z_]+)-(?P<version>\d+(?:\.\d+)+)\.bin(?P<packed>\.(?:xz|zst|gz))?$")
_SYSTEM: Final = ("/lib/firmware/nvidia", "/usr/lib/firmware/nvidia")


class ImageSet:
    """The files of one version for one chip in one folder.

    files: role → path of those that are there. problem: why it cannot be used, or None. looked_for: "path: ok" or "path: missing" per file.
    kind: "vendor" or "synthetic" (told by the build id).
    """

    __slots__ = ("build_id", "chip", "files", "folder", "kind", "looked_for", "problem", "version")

    def __init__(self, chip: ImageChip, folder: str, version: str) -> None:
        self.chip, self.folder, self.version = chip, folder, version
        self.files: dict[str, str] = {}
        self.looked_for: list[str] = []
        self.problem: str | None = None
        self.kind: Literal["vendor", "synthetic"] = "vendor"
        self.build_id = ""

    def __repr__(self) -> str:
        return f"ImageSet({self.chip.name} {self.version} in {self.folder}: {self.problem or 'ok'})"

    def open(self, role: str) -> FileSource:
        """Open the file of a role ("gsp", "bootloader", "booter_load", "booter_unload", "generic", "scrubber", "fmc").

        Raises FirmwareMissing, FirmwareUnreadable.
        """
        path = self.files.get(role)
        if path is None:
            raise FirmwareMissing(f"{self.chip.name} {self.version} has no {role} file", seen="; ".join(self.looked_for), where=self.folder)
        return FileSource(path)

    def open_gsp(self) -> GspImage:
        """Open the GSP image. Raises ReleaseMismatch when it names another release than its file, FirmwareFormatError, ChipNotSupported."""
        source = self.open("gsp")
        try:
            image = GspImage(source)
            if image.version != self.version:
                raise ReleaseMismatch(
                    "the image is of another release than its name says", expected=self.version, seen=image.version, where=source.name
                )
            image.signature(self.chip.signature)
        except NvcoreError:
            source.close()
            raise
        return image


def search_roots(
    configured: Sequence[str] = (), environ: Mapping[str, str] = os.environ, state_dir: str | None = None
) -> tuple[str, ...]:
    """Folders to look in, in order: the configured ones, `$NVCORE_FIRMWARE`, where `nvcore firmware fetch` puts images, the system's two.

    state_dir: the plugin's state folder, None = the default of `nvcore firmware fetch`. A folder that contains `nvidia` stands for that
    one.
    """
    from nvcore_fw_gsp.provision.place import default_folder

    wanted = [
        *configured,
        environ.get("NVCORE_FIRMWARE"),
        os.path.join(state_dir, "firmware") if state_dir else None,
        default_folder(environ),
        *_SYSTEM,
    ]
    found: list[str] = []
    seen: set[str] = set()
    for root in wanted:
        if not root:
            continue
        inner = os.path.join(root, "nvidia")
        root = inner if os.path.isdir(inner) else root
        real = os.path.realpath(root)
        if real not in seen:
            seen.add(real)
            found.append(root)
    return tuple(found)


def absent(configured: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> list[str]:
    """Folders that somebody named, in the configuration or by `$NVCORE_FIRMWARE`, and that are not there: each with who named it."""
    named = [("firmware_dir", folder) for folder in configured] + [("NVCORE_FIRMWARE", environ.get("NVCORE_FIRMWARE") or "")]
    return [f"{folder}, named by {who}, is no folder" for who, folder in named if folder and not os.path.isdir(folder)]


def find(chip: str, roots: Sequence[str]) -> list[ImageSet]:
    """All sets of a chip, usable or not: by folder as in `roots`, in each the preferred version first. Raises ChipNotSupported."""
    row = image_chip(chip)
    found: list[ImageSet] = []
    for root in roots:
        folder = os.path.join(root, row.folder)
        present, _why = _list(os.path.join(folder, "gsp"))
        for version in _ordered({version for _, version, _ in present}):
            found.append(_examine(row, folder, version, {role: packed for role, other, packed in present if other == version}))
    return found


def choose(chip: str, roots: Sequence[str], version: str | None = None) -> ImageSet:
    """The set to boot: of `version`, or the preferred one of the first folder that has a usable one.

    Raises FirmwareMissing with everything that was looked for, VersionNotSupported, ChipNotSupported.
    """
    if version is not None and version not in VERSIONS:
        raise VersionNotSupported(
            f"firmware version {version} is not supported by this backend",
            expected=" or ".join(VERSIONS),
            remedy="a folder of files is named by firmware_dir in [plugins.fw_gsp] or by NVCORE_FIRMWARE; a version by its number"
            if os.sep in version
            else "ask for one of these by name",
        )
    sets = find(chip, roots)
    found = taken(sets, version)
    if found is not None:
        return found
    row = image_chip(chip)
    names = ", ".join(
        [f"{role}-{version or VERSIONS[0]}.bin" for role in row.required] + (["gen_bootloader or acr/bl.bin"] if row.generic else [])
    )
    there = [f"{s.version} in {s.folder}: {s.problem or 'complete'}" for s in sets]
    there += unreadable(chip, roots)
    raise FirmwareMissing(
        f"no usable firmware for {chip}" + (f" of version {version}" if version else ""),
        expected=f"{names} under {row.folder}/gsp",
        seen="; ".join(there) or f"no version in {', '.join(roots) or 'any folder: none is looked in'}",
        remedy="nvcore firmware fetch gets them without root; nvcore firmware list shows the sets that there are, -o json each file",
    )


def taken(sets: Iterable[ImageSet], version: str | None = None) -> ImageSet | None:
    """The one of a chip's sets, in the order of `find`, that is booted: the first usable one, of `version` where that is asked for."""
    return next((one for one in sets if one.problem is None and version in (None, one.version)), None)


def unreadable(chip: str, roots: Sequence[str]) -> list[str]:
    """Folders of a chip that are there and cannot be read, each with the system's reason. Raises ChipNotSupported."""
    inner = os.path.join(image_chip(chip).folder, "gsp")
    return [why for root in roots if (why := _list(os.path.join(root, inner))[1])]


def _list(folder: str) -> tuple[list[tuple[str, str, str]], str | None]:
    """(role, version, packing) of the files in a folder; why it cannot be read, where it is there."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return [], None
    except OSError as error:
        return [], f"{folder} cannot be read: {error.strerror}"
    return [(m["role"], m["version"], m["packed"] or "") for m in map(_FILE.match, names) if m], None


def _ordered(versions: Iterable[str]) -> list[str]:
    """Preferred versions first, then the others from new to old."""
    known = {version: index for index, version in enumerate(VERSIONS)}
    return sorted(versions, key=lambda v: (known.get(v, len(known)), [-int(part) for part in v.split(".")]))


def _examine(row: ImageChip, folder: str, version: str, present: Mapping[str, str]) -> ImageSet:
    result = ImageSet(row, folder, version)
    missing: list[str] = []
    for role in (*row.required, *row.optional):
        path = os.path.join(folder, "gsp", f"{role}-{version}.bin")
        if _look(result, role, path, present.get(role, "")) or role in row.optional:
            continue
        missing.append(os.path.basename(path) + (f" (only as {present[role]}, compressed)" if present.get(role) else ""))
    if row.generic and not any(
        _look(result, "generic", os.path.join(folder, name.format(version=version)), "") for name in GENERIC_BOOTLOADERS
    ):
        missing.append("gen_bootloader or acr/bl.bin")
    if version not in VERSIONS:
        result.problem = f"version {version} is not supported by this backend (it boots {' and '.join(VERSIONS)})"
    elif missing:
        result.problem = "missing: " + ", ".join(missing)
    if "gsp" in result.files and version in VERSIONS:
        _identify(result)
    return result


def _look(result: ImageSet, role: str, path: str, packed: str) -> bool:
    if os.path.isfile(path) and not packed:
        state = "ok" if os.access(path, os.R_OK) else "not readable"
    elif packed:
        state = f"compressed ({packed})"
    else:
        state = "a broken link" if os.path.islink(path) else "missing"
    result.looked_for.append(f"{path}: {state}")
    if state == "ok":
        result.files[role] = path
    return state == "ok"


def _identify(result: ImageSet) -> None:
    """Ask the image itself who it is; a problem found here does not hide an earlier one."""
    try:
        image = result.open_gsp()
    except NvcoreError as error:
        result.problem = result.problem or str(error)
        return
    result.kind, result.build_id = image.kind, image.build_id
    image.close()
