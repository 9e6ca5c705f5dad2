"""A private apt: reads the machine's list of mirrors, fetches one package of one suite, and leaves the machine's own state alone.

Owns one folder (lists, cache, a sources file). Runs apt-get as the caller, also as an ordinary user; never installs. Command line only,
main thread. Every run has a time limit.
Source: apt.conf(5), apt-get(8) of apt 2.6 and 3.0.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from typing import Final

from nvcore.api.clock import SYSTEM, Clock
from nvcore_fw_gsp.provision.errors import (
    AptFailed,
    AptMissing,
    FetchError,
    KeyringMissing,
    MirrorRefused,
    NetworkUnreachable,
    PackageAbsent,
    PlaceNotWritable,
)

__all__ = ["PrivateApt", "classify", "debian_mirrors"]

_KEYRINGS: Final = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp")
_TRUSTED: Final = "/etc/apt/trusted.gpg.d"
_LIMIT: Final = 600.0
_ROOM: Final = 1 << 16  # bytes that apt-get may print of a machine's sources
_REASONS: Final[tuple[tuple[str, type[FetchError], str, str], ...]] = (
    (
        r"NO_PUBKEY|not signed|GPG error|OpenPGP|EXPKEYSIG|keyring .* not",
        KeyringMissing,
        "the mirror's signature cannot be checked",
        "install or update debian-archive-keyring",
    ),
    (r"\b40[137]\b|Forbidden|Unauthorized|Proxy Authentication", MirrorRefused, "the mirror refuses", "check apt's proxy and credentials"),
    (
        r"\b404\b|does not have a Release file|Unable to locate package|no installation candidate|No packages found",
        PackageAbsent,
        "the mirror has no such suite or package",
        "use a mirror that carries trixie-backports with non-free-firmware",
    ),
    (
        r"Permission denied|Read-only file system|No space left|not writable",
        PlaceNotWritable,
        "the folder cannot be written",
        "choose another one with --to",
    ),
    (
        r"resolv|[Cc]ould not connect|unreachable|timed out|Connection (refused|failed|reset)|Cannot initiate",
        NetworkUnreachable,
        "the mirror cannot be reached",
        "check the network, then try again; or copy the images from another machine",
    ),
)


def classify(output: str, what: str) -> FetchError:
    """The error behind a failed run of apt-get, from what it printed (in the C locale)."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("E:", "W:", "Err:", "Error:", "Warning:"))] or lines  # apt 3 writes the words out
    for group in (told, lines):  # the reason may stand on an indented line of its own, behind "Err:"
        for pattern, kind, text, remedy in _REASONS:
            for line in group:
                if re.search(pattern, line):
                    return kind(f"{what}: {text}", seen=line[:200], remedy=remedy)
    return AptFailed(
        f"{what}: apt-get failed", seen=(told or ["no output"])[-1][:200], remedy="run apt-get update to see what is wrong with apt"
    )


def debian_mirrors(uris: str) -> list[str]:
    """Base addresses of Debian mirrors in the output of `apt-get --print-uris update`, those named `debian` first; no security archives."""
    named: list[str] = []
    others: list[str] = []
    for base, suite in re.findall(r"'([^']+?)/+dists/([^/']+)", uris):
        known = re.match(r"(bullseye|bookworm|trixie|forky|sid)(-updates|-backports)?$", suite)
        if known and "security" not in base and base not in named + others:
            (named if re.search(r"/debian(\.list)?$", base) else others).append(base)
    return named + others


class PrivateApt:
    """An apt state of its own in `folder`, for one suite and its components."""

    def __init__(self, folder: str, environ: Mapping[str, str], clock: Clock = SYSTEM) -> None:
        self._folder = folder
        self._environ = {**environ, "LC_ALL": "C", "LANGUAGE": "C"}
        self._clock = clock
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool, path=environ.get("PATH")) is None:
                raise AptMissing(
                    f"this machine has no {tool}", remedy="copy the images from a Debian package by hand, see nvcore firmware list"
                )
        try:
            for name in ("state/lists/partial", "cache/archives/partial", "down"):
                os.makedirs(os.path.join(folder, name), exist_ok=True)
            with open(os.path.join(folder, "status"), "w", encoding="ascii"):
                pass
        except OSError as error:
            raise PlaceNotWritable.of("no private apt state", folder, error) from error

    def _options(self) -> list[str]:
        values = {
            "Dir::State": f"{self._folder}/state",
            "Dir::State::status": f"{self._folder}/status",
            "Dir::Cache": f"{self._folder}/cache",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "APT::Update::Error-Mode": "any",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "20",
        }
        return [word for key, value in values.items() for word in ("-o", f"{key}={value}")]

    def _own(self) -> list[str]:
        values = {
            "Dir::Etc::sourcelist": f"{self._folder}/sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferences": "-",
            "Dir::Etc::preferencesparts": "-",
        }
        return self._options() + [word for key, value in values.items() for word in ("-o", f"{key}={value}")]

    def mirror(self) -> str:
        """The first Debian mirror of the machine's own configuration. Raises AptMissing."""
        printed = self._run([*self._options(), "--print-uris", "update"], "reading apt's configuration")
        found = debian_mirrors(printed)
        if not found:
            self._check_room()
            raise AptMissing(
                "apt's configuration names no Debian mirror",
                seen=f"{len(printed.splitlines())} other addresses",
                remedy="add a Debian mirror to apt's sources, or copy the images by hand",
            )
        return found[0]

    def _check_room(self) -> None:
        """Raise PlaceNotWritable when what apt-get printed may have been lost: it does not tell that its output goes to a full disk."""
        path = os.path.join(self._folder, "room")
        try:
            with open(path, "wb") as file:
                file.write(bytes(_ROOM))
                file.flush()
                os.fsync(file.fileno())
            os.unlink(path)
        except OSError as error:
            raise PlaceNotWritable.of("apt's configuration cannot be read", self._folder, error) from error

    def use(self, mirror: str, suite: str, components: str) -> None:
        """Write the only source and read its lists."""
        keyring = next((path for path in _KEYRINGS if os.path.exists(path)), None)
        if keyring is None and not any("debian-archive" in name for name in _listed(_TRUSTED)):
            raise KeyringMissing(
                "this machine has no keyring of Debian's archive", expected=_KEYRINGS[0], remedy="install debian-archive-keyring"
            )
        signed = f"[signed-by={keyring}] " if keyring else ""
        with open(os.path.join(self._folder, "sources.list"), "w", encoding="utf-8") as file:
            file.write(f"deb {signed}{mirror} {suite} {components}\n")
        self._run([*self._own(), "update"], f"reading the lists of {suite}")

    def download(self, package: str, progress: Callable[[int, int], None]) -> tuple[str, int, str]:
        """Fetch one package: (path, bytes, SHA-256 as the signed list says, which apt has compared). progress: told (done, total) bytes."""
        told = self._run([*self._own(), "--print-uris", "download", package], f"looking for {package}")
        match = re.search(r"^'[^']+' (\S+) (\d+) SHA256:([0-9a-f]{64})\s*$", told, re.MULTILINE)
        if match is None:
            raise PackageAbsent(
                f"{package} is not there", seen=told.strip()[-200:] or "no address", remedy="use a mirror with trixie-backports"
            )
        total = int(match[2])
        self._run([*self._own(), "download", package], f"downloading {package}", lambda: progress(self._fetched(), total))
        path = os.path.join(self._folder, "down", match[1])
        if not os.path.isfile(path):
            names = [name for name in _listed(os.path.join(self._folder, "down")) if name.endswith(".deb")]
            if not names:
                raise PackageAbsent(f"{package} was not written", expected=path)
            path = os.path.join(self._folder, "down", names[0])
        return path, total, match[3]

    def _fetched(self) -> int:
        """Bytes of the package that lie in our folders now."""
        places = (os.path.join(self._folder, "down"), os.path.join(self._folder, "cache/archives/partial"))
        sizes = [0]
        for place in places:
            for name in _listed(place):
                try:
                    sizes.append(os.stat(os.path.join(place, name)).st_size)
                except OSError:  # renamed meanwhile
                    continue
        return max(sizes)

    def _run(self, words: list[str], what: str, tick: Callable[[], None] | None = None) -> str:
        """Run apt-get, standard output returned; both streams go to files, so that nothing can block on a full pipe."""
        out, err = os.path.join(self._folder, "out"), os.path.join(self._folder, "err")
        deadline = self._clock.now() + _LIMIT
        with open(out, "w+", encoding="utf-8", errors="replace") as stdout, open(err, "w+", encoding="utf-8", errors="replace") as stderr:
            child = subprocess.Popen(
                ["apt-get", *words], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=f"{self._folder}/down", env=self._environ
            )
            while child.poll() is None:
                if self._clock.now() > deadline:
                    child.kill()
                    child.wait()
                    raise NetworkUnreachable(f"{what}: no end", expected=f"within {_LIMIT:g} s", remedy="check the network, then try again")
                self._clock.sleep(0.05)
                if tick is not None:
                    tick()
            stdout.seek(0)
            stderr.seek(0)
            text, errors = stdout.read(), stderr.read()
        if child.returncode != 0:
            raise classify(text + "\n" + errors, what)
        return text


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
