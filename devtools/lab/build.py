"""Building the lab: which packages, and what of them; cached by the text of this recipe and the packages' versions.

Owns `.nvcore/lab` (STATE). A lab is built beside the old one and renamed into place. Sources: reference page lab.md, sections 1 and 2.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from devtools.lab.aptstate import AptError, AptState
from devtools.layout import STATE

__all__ = ["Lab", "LabUnavailable", "build", "find"]

HOME = STATE / "lab"
RELEASE, BACKPORTS = "trixie", "trixie-backports"
PROGRAMS = ("qemu-system-x86", "busybox-static", "systemd")
KERNEL = "linux-image-amd64"
FIRMWARE = "firmware-nvidia-graphics"
_DRIVERS = ("gpu/drm", "media", "platform", "acpi", "i2c/algos")
_NO_MATCH = (": Not found in archive", ": Exiting with failure status due to previous errors")  # GNU tar
KERNEL_PARTS = ("*/vmlinuz", "*/modules.*", *(f"*/drivers/{folder}/*" for folder in _DRIVERS))
FIRMWARE_PARTS = (*(f"*/nvidia/{chip}/*" for chip in ("tu102", "ga100", "ga102", "gh100")), "*/nvidia/gp102/acr/*", "*/copyright")


class LabUnavailable(Exception):
    """Why there is no lab, in one line."""


class Lab:
    """A built lab: where its programs, kernel and firmware are."""

    def __init__(self, root: Path) -> None:
        self.root = root
        manifest = json.loads((root / "manifest.json").read_text())
        self.versions: dict[str, str] = manifest["versions"]
        self.kernel_release: str = manifest["kernel_release"]
        self.files = root / "files"

    @property
    def firmware(self) -> Path:
        """The folder that holds <chip>/gsp/…"""
        return self.files / "usr/lib/firmware/nvidia"

    @property
    def modules(self) -> Path:
        """The kernel's module folder; vmlinuz lies in it."""
        return self.files / "usr/lib/modules" / self.kernel_release

    @property
    def busybox(self) -> Path:
        """A static busybox."""
        return self.files / "usr/bin/busybox"

    def command(self, program: str) -> list[str]:
        """How to run a program of the lab: through its own loader and libraries."""
        library = self.files / "usr/lib/x86_64-linux-gnu"
        loader = library / "ld-linux-x86-64.so.2"
        return [str(loader), "--library-path", f"{library}:{library}/systemd", str(self.files / "usr/bin" / program)]

    def qemu(self) -> list[str]:
        """QEMU with its data folders."""
        share = self.files / "usr/share"
        return [*self.command("qemu-system-x86_64"), "-L", str(share / "qemu"), "-L", str(share / "seabios")]


def _recipe() -> str:
    parts = (RELEASE, BACKPORTS, PROGRAMS, KERNEL, FIRMWARE, KERNEL_PARTS, FIRMWARE_PARTS, "layout 3")
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def find() -> Lab | None:
    """The lab of this recipe, if it has been built."""
    root = HOME / _recipe()
    return Lab(root) if (root / "manifest.json").exists() else None


def build(*, refresh: bool = False) -> Lab:
    """The lab of this recipe, built when it is not there. Raises LabUnavailable with the reason."""
    if os.uname().machine != "x86_64":
        raise LabUnavailable(f"its programs are for x86-64 and run as they are; this machine is {os.uname().machine}")
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once: the second waits and finds the first one's lab
        lab = find()
        if lab is not None and not refresh:
            return lab
        try:
            return _build()
        except AptError as problem:
            raise LabUnavailable(str(problem)) from None
        except subprocess.CalledProcessError as problem:
            said = problem.stderr.decode(errors="replace").strip()
            raise LabUnavailable(f"{problem.cmd[0]} failed with {problem.returncode}: {said}") from None
        except subprocess.TimeoutExpired as problem:
            raise LabUnavailable(f"{problem.cmd[0]} did not end within {problem.timeout:g} s") from None


def _build() -> Lab:
    started = time.monotonic()
    work = HOME / "building"
    shutil.rmtree(work, ignore_errors=True)
    files = work / "files"
    files.mkdir(parents=True)

    def step(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] lab: {text}", flush=True)

    step("package lists of Debian 13 and its backports")
    apt = AptState(work / "apt", (RELEASE, BACKPORTS), "main non-free-firmware")
    apt.update()
    image = apt.depends(KERNEL, BACKPORTS, r"linux-image-\d\S+")
    release = image.removeprefix("linux-image-")
    versions = {"qemu-system-x86": apt.candidate("qemu-system-x86", BACKPORTS), FIRMWARE: apt.candidate(FIRMWARE, BACKPORTS)}
    versions |= {name: apt.candidate(name, RELEASE) for name in ("busybox-static", "systemd")}
    versions["linux"] = f"{release} ({apt.candidate(KERNEL, BACKPORTS)})"
    step(f"QEMU {versions['qemu-system-x86']} and what it needs")
    apt.download_with_dependencies(PROGRAMS, BACKPORTS)
    for package in sorted(apt.archives.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, files], check=True, capture_output=True, timeout=300)
        package.unlink()
    step(f"Linux {release}")
    for name in (f"linux-binary-{release}", f"linux-modules-{release}"):
        _unpack(apt.download(name, BACKPORTS), files, KERNEL_PARTS)
    step(f"firmware {versions[FIRMWARE]} (104 MB)")
    _unpack(apt.download(FIRMWARE, BACKPORTS), files, FIRMWARE_PARTS)
    shutil.rmtree(work / "apt")
    (work / "manifest.json").write_text(json.dumps({"versions": versions, "kernel_release": release}, indent=1, sort_keys=True))
    place = HOME / _recipe()
    shutil.rmtree(place, ignore_errors=True)
    work.rename(place)
    for old in HOME.iterdir():  # one lab is enough: 360 MB each
        if old.is_dir() and old != place:
            shutil.rmtree(old, ignore_errors=True)
    step("ready")
    return Lab(place)


def _unpack(package: Path, files: Path, patterns: Sequence[str]) -> None:
    """Unpack what matches; links stay links inside the folder. Raises AptError for anything that could not be written or read."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as source:
        tar = subprocess.run(
            ["tar", "-x", "-C", str(files), "--wildcards", *patterns],
            stdin=source.stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=600,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        if source.stdout is not None:
            while source.stdout.read(1 << 20):  # tar may stop early: drain, so that dpkg-deb ends by itself
                pass
        # tar exits 2 also when one of the patterns matches nothing: not every package holds every part
        wrong = [line for line in tar.stderr.splitlines() if not line.endswith(_NO_MATCH)]
        if source.wait(timeout=60) or wrong:
            raise AptError(f"{package.name} cannot be unpacked: {wrong[0] if wrong else 'dpkg-deb failed'}")
    package.unlink()
