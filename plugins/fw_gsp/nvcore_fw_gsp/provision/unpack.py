"""Takes the GSP images out of a Debian package, and nothing else.

Owns the folder that it fills. Reads the package as a stream (`dpkg-deb --fsys-tarfile`), accepts only files and links under
`usr/lib/firmware/nvidia/<chip>/gsp`, `…/acr/bl.bin`, the chip folders' own links, and the copyright file. A link that leads out of the
tree is refused, and nothing is written through a link. Command line only, main thread.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from typing import IO, Final

from nvcore_fw_gsp.images.chips import CHIPS
from nvcore_fw_gsp.provision.errors import PackageDamaged, PlaceNotWritable

__all__ = ["LICENCE", "unpack"]

LICENCE: Final = "copyright"
"""Name of the licence beside the images."""

_ROOT: Final = "usr/lib/firmware/nvidia/"
_COPYRIGHT: Final = re.compile(r"^usr/share/doc/[^/]+/copyright$")
_FOLDERS: Final = frozenset(chip.folder for chip in CHIPS) | {"gp102"}  # gp102 holds the acr/bl.bin that others link to
_PIECE: Final = 1 << 20
_MAX_FILE: Final = 256 << 20


def unpack(package: str, folder: str, environ: Mapping[str, str], say: Callable[[str], None]) -> dict[str, str]:
    """Fill `folder` from the package; SHA-256 of each file by its path below `folder`. Raises PackageDamaged, PlaceNotWritable."""
    child = subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", package],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**environ, "LC_ALL": "C"},
    )
    assert child.stdout is not None
    try:
        sums = _take(child.stdout, folder, say)
    except tarfile.TarError as error:
        raise PackageDamaged("the package cannot be unpacked", seen=str(error), where=package, remedy="fetch it again") from error
    except OSError as error:
        raise PlaceNotWritable.of("the images cannot be written", folder, error) from error
    finally:
        child.stdout.close()
        if child.poll() is None:
            child.kill()
        child.wait()
    if not any("/gsp/gsp-" in name for name in sums):
        raise PackageDamaged(
            "the package holds no GSP image", expected=f"{_ROOT}<chip>/gsp/gsp-*.bin", seen=f"{len(sums)} files", where=package
        )
    return sums


def _take(stream: IO[bytes], folder: str, say: Callable[[str], None]) -> dict[str, str]:
    sums: dict[str, str] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = posixpath.normpath(member.name)
            if _COPYRIGHT.match(name) and member.isfile():
                target = LICENCE
            elif _wanted(name):
                target = name[len(_ROOT) :]
            else:
                continue
            if member.issym():
                _link(folder, target, member.linkname)
            elif member.isfile():
                content = archive.extractfile(member)
                if content is None or member.size > _MAX_FILE:
                    raise PackageDamaged("a file in the package is implausible", seen=f"{name}, {member.size} bytes")
                sums[target] = _write(_place(folder, target), content)
                if member.size > _PIECE:
                    say(f"  {target}  {member.size / 1e6:.1f} MB")
    return sums


def _wanted(name: str) -> bool:
    """Whether a member is one of ours: a chip's own link, its gsp folder's content or link, its acr/bl.bin."""
    if not name.startswith(_ROOT):
        return False
    parts = name[len(_ROOT) :].split("/")
    return parts[0] in _FOLDERS and (len(parts) == 1 or parts[1:] == ["acr", "bl.bin"] or (parts[1] == "gsp" and len(parts) <= 3))


def _place(folder: str, target: str) -> str:
    """The path of a member, its folders made. Raises PackageDamaged where one of them is a link, or something lies there already."""
    path = folder
    for part in posixpath.dirname(target).split("/"):
        path = os.path.join(path, part)
        if os.path.islink(path):
            raise PackageDamaged("the package has a file behind a link of its own", seen=target)
    os.makedirs(path, exist_ok=True)
    path = os.path.join(folder, target)
    if os.path.lexists(path):
        raise PackageDamaged("the package has two files of one name", seen=target)
    return path


def _link(folder: str, target: str, to: str) -> None:
    """Make a link that stays inside the tree, through whatever other links: it climbs first and only descends then. Others are refused."""
    path = _place(folder, target)
    steps = to.split("/")
    climbed = steps.count("..")
    if to.startswith("/") or steps[:climbed] != [".."] * climbed or climbed > target.count("/"):
        raise PackageDamaged("a link in the package leads out of it", seen=f"{target} → {to}")
    os.symlink(to, path)


def _write(path: str, content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "wb") as file:
        while piece := content.read(_PIECE):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()
