"""The index: which plugins are installed, read from the metadata of distributions without importing any of them.

Owns the scan of `sys.path`. Runs on the caller's thread, keeps nothing. Never imports a plugin, `importlib.metadata` (3.5 bare starts) or a
package that the scan finds. It sees plain folders on `sys.path` only, no zip archives; the first place of a distribution on the path wins.
What cannot be read is named as a `Problem` and skipped.
Source: PyPA entry points and recording installed projects specifications; the same answer as `importlib.metadata` (tests/plugins).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator

from nvcore.plugins.names import normalise

_METADATA_LIMIT = 1 << 20  # headers come first; a longer file is damaged or hostile


class EntryPoint:
    """One line of `entry_points.txt` in a group `nvcore.FAMILY.vGENERATION`. `value` is `module` or `module:attribute`, extras cut off."""

    __slots__ = ("family", "generation", "name", "value")

    def __init__(self, family: str, generation: int, name: str, value: str) -> None:
        self.family, self.generation, self.name, self.value = family, generation, name, value


class Distribution:
    """One installed distribution, at its first place on the path.

    name: normalised; spelled: as its metadata or folder spells it; metadata: its dist-info or egg-info; location: the folder on `sys.path`.
    shadowed: further copies, later on the path. hidden: why `python -I` does not see it ("" when it does).
    requires: its `Requires-Dist` lines, read only where it has entry points of ours.
    """

    __slots__ = ("entry_points", "hidden", "location", "metadata", "name", "requires", "shadowed", "spelled", "version")

    def __init__(self, spelled: str, version: str, metadata: str, location: str, hidden: str) -> None:
        self.spelled, self.version, self.metadata, self.location, self.hidden = spelled, version, metadata, location, hidden
        self.name = normalise(spelled)
        self.shadowed: list[Distribution] = []
        self.entry_points: list[EntryPoint] = []
        self.requires: list[str] = []


class Problem:
    """Something the scan could not use: `where` is a path, `what` says why it was skipped, `remedy` what to do."""

    def __init__(self, where: str, what: str, remedy: str, code: str = "NVC-1110") -> None:
        self.code, self.where, self.what, self.remedy = code, where, what, remedy

    def as_dict(self) -> dict[str, str]:
        """The problem as JSON views carry it."""
        return dict(vars(self))


class _Damaged(Exception):
    """Metadata that cannot be used, with what is wrong with it."""


class Index:
    """The result of a scan: `folders` of the path with the names in them, `distributions` by normalised name (all of them), `problems`, and
    `leftovers` of pip (`~name`)."""

    def __init__(self) -> None:
        self.folders: dict[str, list[str]] = {}
        self.distributions: dict[str, Distribution] = {}
        self.problems: list[Problem] = []
        self.leftovers: list[str] = []

    def copies(self) -> Iterator[Distribution]:
        """Every place of every distribution, the shadowed ones too."""
        for first in self.distributions.values():
            yield from (first, *first.shadowed)

    def plugins(self) -> list[Distribution]:
        """Distributions with entry points of ours, by name."""
        return sorted((dist for dist in self.distributions.values() if dist.entry_points), key=lambda dist: dist.name)


def scan(path: Iterable[str] | None = None) -> Index:
    """Scan `path` (default `sys.path`). Raises nothing: what cannot be read becomes a problem."""
    index = Index()
    hidden = _hidden_places() if path is None else {}
    seen: set[str] = set()
    for entry in sys.path if path is None else path:
        folder = entry or "."
        try:
            real = os.path.realpath(folder)
            if real in seen:  # the same folder under two names (lib64 beside lib)
                continue
            seen.add(real)
            names = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue  # normal on a path; archives are not scanned
        except (OSError, ValueError) as error:
            what = f"this folder on the path cannot be read: {getattr(error, 'strerror', None) or error}"
            index.problems.append(Problem(folder, what, "give the user read access or take it off the path"))
            continue
        index.folders[os.path.abspath(folder)] = names
        _folder(index, os.path.abspath(folder), names, hidden.get(real, ""))
    return index


def _hidden_places() -> dict[str, str]:
    """Real paths of folders that an isolated interpreter (`-I`, which the daemon is) does not have on its path, and why."""
    places: dict[str, str] = {}
    if not sys.flags.safe_path and sys.path:
        places[sys.path[0] or "."] = "only in the folder of the command or the current folder"
    if not sys.flags.ignore_environment:
        entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        places |= dict.fromkeys(filter(None, entries), "only on PYTHONPATH")
    site = sys.modules.get("site")
    if site is not None and site.ENABLE_USER_SITE and site.USER_SITE:
        places[site.USER_SITE] = "only in the user's own site directory"
    return {os.path.realpath(place): why for place, why in places.items()}


def _folder(index: Index, folder: str, names: list[str], hidden: str) -> None:
    here: dict[str, Distribution] = {}
    for name in names:
        if name[0] == "~":
            index.leftovers.append(os.path.join(folder, name))
            continue
        if name != "EGG-INFO" and not name.endswith((".dist-info", ".egg-info")):
            continue
        metadata = os.path.join(folder, name)
        try:
            dist = _distribution(folder, name, hidden)
        except _Damaged as error:
            what = f"damaged metadata: {error}; this distribution is skipped"
            index.problems.append(Problem(metadata, what, "reinstall the distribution, or remove this folder"))
            continue
        twin = here.get(dist.name)
        here[dist.name] = dist if twin is None else _two_here(index, twin, dist)
    for dist in here.values():
        first = index.distributions.setdefault(dist.name, dist)
        if first is not dist:
            first.shadowed += [dist, *dist.shadowed]


def _two_here(index: Index, one: Distribution, other: Distribution) -> Distribution:
    """Two metadata folders of one distribution in one folder: the newer one is shown, both are reported."""
    from nvcore.plugins.versions import Version, VersionSyntax

    try:
        newer, older = (other, one) if Version(other.version).key >= Version(one.version).key else (one, other)
    except VersionSyntax:
        newer, older = one, other
    newer.shadowed += [older, *older.shadowed]
    what = f"two versions of {newer.spelled} in one folder: {older.version or '?'} and {newer.version or '?'}"
    remedy = f"pip install --force-reinstall '{newer.spelled}=={newer.version}', then remove the older metadata"
    index.problems.append(Problem(older.metadata, what, remedy, "NVC-1111"))
    return newer


def _distribution(folder: str, name: str, hidden: str) -> Distribution:
    """Read one metadata folder; METADATA itself only where there are entry points of ours. Raises _Damaged."""
    metadata = os.path.join(folder, name)
    stem, _, kind = name.rpartition(".")
    if kind != "dist-info":  # an egg's own folder has neither: "EGG-INFO"
        spelled, _, version = stem.partition("-py")[0].partition("-")
    else:  # a version holds no dash; a name does where an old tool wrote the folder
        spelled, _, version = stem.rpartition("-") if "-" in stem else (stem, "", "")
    text = _read(metadata, "entry_points.txt")
    dist = Distribution(spelled, version, metadata, folder, hidden)
    dist.entry_points = _entry_points(text) if text and "nvcore." in text else []
    if name == "EGG-INFO" and not folder.endswith(".egg"):
        raise _Damaged("an EGG-INFO counts in a folder *.egg only")
    if spelled and not dist.entry_points and (version or kind == "dist-info"):
        return dist
    text = _read(metadata, "METADATA" if kind == "dist-info" else "PKG-INFO")
    if text is None and kind != "dist-info":
        text = _read(metadata, "")  # Debian ships egg-info as one file
    headers = _fields(text or "")
    dist.spelled = headers.get("name", [""])[0]
    if not dist.spelled:
        raise _Damaged("its metadata has no Name" if text is not None else "it has no METADATA file")
    dist.name, dist.version = normalise(dist.spelled), headers.get("version", [version])[0]
    dist.requires = headers.get("requires-dist", [])
    if kind != "dist-info" and dist.entry_points and not dist.requires:  # sections `[extra:marker]`; what no extra asks for counts
        sections = ((section.partition(":"), line) for section, line in _lines(_read(metadata, "requires.txt") or ""))
        dist.requires = [f"{line}; {marker}" if marker else line for (extra, _, marker), line in sections if not extra]
    return dist


def _read(metadata: str, name: str) -> str | None:
    """The text of a file in a metadata folder, or of the "folder" itself (no name); None when there is none. Raises _Damaged."""
    try:
        descriptor = os.open(os.path.join(metadata, name) if name else metadata, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.read(descriptor, _METADATA_LIMIT).decode("utf-8")
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _Damaged(f"{name or 'it'} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """The lines of a file with sections, each behind the `[name]` of its section ("" in front of the first)."""
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif line and line[0] not in "#;":
            yield section, line


def _entry_points(text: str) -> list[EntryPoint]:
    """The lines of groups `nvcore.FAMILY.vN`; other groups are not looked at."""
    found: list[EntryPoint] = []
    for group, line in _lines(text):
        ours, _, generation = group.rpartition(".v")
        family = ours.removeprefix("nvcore.")
        name, _, value = (half.strip() for half in line.partition("="))
        value = value.partition("[")[0].strip()
        numbered = generation.isascii() and generation.isdigit() and len(generation) < 9
        if family not in ("", ours) and "." not in family and numbered and name and value:
            found.append(EntryPoint(family, int(generation), name, value))
    return found


def _fields(text: str) -> dict[str, list[str]]:
    """Headers of an e-mail like file up to the first empty line, keys lower case."""
    fields: dict[str, list[str]] = {}
    head = f"\n{text}".replace("\r\n", "\n").partition("\n\n")[0]
    for line in head.replace("\n\t", " ").replace("\n ", " ").split("\n"):  # a long line goes on behind a space or a tab
        key, colon, value = line.partition(":")
        if colon and key.strip():
            fields.setdefault(key.strip().lower(), []).append(" ".join(value.split()))
    return fields
