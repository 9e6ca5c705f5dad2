"""Fresh Debian roots: a machine on which nobody has installed anything, for one command at a time.

A root is minbase + python3 + ca-certificates, made once with mmdebstrap and kept; every use works on an overlay over it, so the second
use is as fresh as the first. Into it go: the machine's apt and pip configuration and certificates (how this machine reaches its package
registries), name resolution, and a copy of the checkout. The environment is cleared; the network is the machine's own, so that what
else it reaches is not cut off. Needs root; changes nothing outside its folder.
"""

from __future__ import annotations

import ast
import fcntl
import os
import re
import shutil
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_LEFT_OUT = shutil.ignore_patterns(".git", ".nvcore", "__pycache__", ".*_cache", "*.egg-info", ".hypothesis")
_USERS = {"root": (0, "/root"), "user": (1000, "/home/user")}


def why_not() -> str | None:
    """Why no fresh root can be had here, or None."""
    if os.geteuid() != 0:
        return "fresh roots need root (mmdebstrap, mounts, chroot)"
    for program in ("mmdebstrap", "unshare", "chroot", "apt-get"):
        if shutil.which(program) is None:
            return f"no {program} on this machine"
    if mirror() is None:
        return "the machine's apt configuration names no Debian archive"
    return None


def mirror() -> str | None:
    """The Debian archive that this machine's own apt configuration uses."""
    listed = subprocess.run(["apt-get", "--print-uris", "update"], capture_output=True, text=True, check=False).stdout
    found = re.findall(r"'(\S+?/debian)/dists/[\w.-]+/InRelease'", listed)
    return found[0] if found else None


def _apt_configuration() -> str:
    """How apt reaches the network here: proxies and certificates, nothing else of the machine."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    lines = [line for line in dump.splitlines() if re.match(r"Acquire::(http|https)::\S*(Proxy|Ca|Verify)\S* \"[^\"]", line)]
    lines += [f'Acquire::{name}::Proxy "{os.environ[name + "_proxy"]}";' for name in ("http", "https") if os.environ.get(f"{name}_proxy")]
    return "".join(f"{line}\n" for line in [*lines, 'Acquire::Retries "3";'])


def _pip_configuration() -> dict[str, str]:
    """The machine's pip configuration, files and environment merged, as the options of one [global] section."""
    pip = os.environ["NVCORE_TEST_PIP"]
    listed = subprocess.run([sys.executable, pip, "config", "list"], capture_output=True, text=True, check=True).stdout
    options: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):  # the environment wins
        name, _, value = line.partition("=")
        options[name.rpartition(".")[2]] = ast.literal_eval(value)
    for name in ("user", "no-input", "disable-pip-version-check"):  # dev.py's own, from the environment of this test
        options.pop(name, None)
    return options


def _local_folders(options: dict[str, str]) -> list[Path]:
    """What of the pip configuration lies on this machine's disk: it is shown inside at the same place, read-only."""
    words = [word.removeprefix("file://") for value in options.values() for word in value.split()]
    paths = {Path(word) for word in words if word.startswith("/") and Path(word).exists()} - {BUNDLE}
    return sorted({p.parent if p.name == "simple" else p for p in paths})


def base(state: Path, suite: str) -> Path:
    """The untouched root of one suite."""
    folder = state / "roots" / f"{suite}-1"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once: the second waits and finds the first one's root
        _forget_dead(folder.parent)
        if not (folder.parent / f"{folder.name}.ready").exists():
            _make(folder, suite)
    return folder


def _forget_dead(roots: Path) -> None:
    """What runs that were killed left of their machines: the name says which process used it."""
    for work in roots.glob("use-*-*"):
        if not Path(f"/proc/{work.name.split('-')[1]}").exists():
            shutil.rmtree(work, ignore_errors=True)


def _make(folder: Path, suite: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    handed = folder.parent / "apt.conf"
    handed.write_text(_apt_configuration())
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--include=python3,ca-certificates"]
    aptopts = [f"--aptopt={line.rstrip(';')}" for line in handed.read_text().splitlines()]
    source = f"deb {mirror()} {suite} main"
    done = subprocess.run([*command, *aptopts, suite, str(folder), source], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"mmdebstrap {suite} ended with {done.returncode}: {done.stderr[-2000:]}")
    (folder.parent / f"{folder.name}.ready").touch()


class Machine:
    """One fresh machine: runs commands as root or as an ordinary user, in the copy of the checkout."""

    def __init__(self, lower: Path, work: Path, who: str) -> None:
        self.lower, self.work = lower, work
        self.uid, self.home = _USERS[who]
        self.upper = work / "upper"
        self.checkout = f"{self.home}/nvcore"
        for name in ("upper", "scratch", "root"):
            (work / name).mkdir(parents=True)
        self._options = _pip_configuration()
        self._fill()

    def _write(self, path: str, text: str) -> None:
        target = self.upper / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def _fill(self) -> None:
        self._write("/etc/apt/apt.conf.d/80handed-in", _apt_configuration())
        self._write("/etc/pip.conf", "[global]\n" + "".join(f"{k} = {' '.join(v.split())}\n" for k, v in self._options.items()))
        self._write("/etc/resolv.conf", Path("/etc/resolv.conf").read_text())
        self._write("/etc/hosts", Path("/etc/hosts").read_text())
        if BUNDLE.exists():
            self._write(str(BUNDLE), BUNDLE.read_text())
        users = (self.lower / "etc/passwd").read_text()
        self._write("/etc/passwd", f"{users}user:x:1000:1000::/home/user:/bin/sh\n")
        self._write("/etc/group", (self.lower / "etc/group").read_text() + "user:x:1000:\n")
        inside = self.upper / self.checkout.lstrip("/")
        shutil.copytree(CHECKOUT, inside, symlinks=True, ignore=_LEFT_OUT)
        os.chmod(inside.parent, 0o755 if self.uid else 0o700)
        for path in [inside.parent, *inside.parent.rglob("*")]:
            os.chown(path, self.uid, self.uid, follow_symlinks=False)

    def run(self, command: str, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a shell command inside, in the checkout, with a cleared environment; output and errors together."""
        root = self.work / "root"
        binds = []
        for path in _local_folders(self._options):
            kind = f"mkdir -p '{root}{path}'" if path.is_dir() else f"mkdir -p '{root}{path.parent}'; touch '{root}{path}'"
            binds.append(f"{kind}; mount --bind -o ro '{path}' '{root}{path}'")
        newline = "\n"
        script = (
            textwrap.dedent(f"""\
            set -e
            mount -t overlay overlay -o lowerdir='{self.lower}',upperdir='{self.upper}',workdir='{self.work}/scratch' '{root}'
            mount -t proc proc '{root}/proc'
            mount --rbind /dev '{root}/dev'
            mount -t tmpfs tmpfs '{root}/tmp'
            chmod 1777 '{root}/tmp'
            """)
            + newline.join(binds)
            + textwrap.dedent(f"""
            cd '{root}'
            exec chroot --userspec={self.uid}:{self.uid} '{root}' /usr/bin/env -i HOME={self.home} \\
                PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb \\
                /bin/sh -c 'cd {self.checkout} && {command}'
            """)
        )
        inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", script]
        return subprocess.run(
            inside, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False
        )

    def read(self, path: str) -> str:
        """A file below the checkout, as it is inside now."""
        return (self.upper / self.checkout.lstrip("/") / path).read_text()


@contextmanager
def machine(state: Path, suite: str, who: str) -> Iterator[Machine]:
    """A fresh machine of one suite, gone afterwards."""
    lower = base(state, suite)
    work = state / "roots" / f"use-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        yield Machine(lower, work, who)
    finally:
        shutil.rmtree(work, ignore_errors=True)
