"""Initial root file systems for guests: busybox, kernel modules in load order, firmware, and an init script.

Written as an uncompressed cpio archive ("newc", Linux Documentation/driver-api/early-userspace/buffer-format.rst) without root.
"""

from __future__ import annotations

import lzma
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from devtools.lab.build import Lab

__all__ = ["Archive", "module_closure"]

APPLETS = ("sh", "mount", "insmod", "rmmod", "cat", "echo", "ls", "dmesg", "poweroff", "sleep", "mkdir", "grep", "lspci", "devmem", "sync")


class Archive:
    """A cpio archive under construction."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 1
        self._folders: set[str] = set()

    def _entry(self, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        numbers = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        header = b"070701" + b"".join(f"{number:08x}".encode() for number in numbers)
        self._inode += 1
        self._parts.append(_padded(header + name.encode() + b"\0") + _padded(data))

    def folder(self, name: str) -> None:
        """A folder and those above it."""
        if name in ("", ".") or name in self._folders:
            return
        self.folder(str(Path(name).parent))
        self._folders.add(name)
        self._entry(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, data: bytes, mode: int = 0o755) -> None:
        """A regular file."""
        self.folder(str(Path(name).parent))
        self._entry(name, stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        self.folder(str(Path(name).parent))
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def base(self, lab: Lab, init: str) -> None:
        """Busybox, its applets, mount points, the console, and /init."""
        self.file("bin/busybox", lab.busybox.read_bytes())
        for applet in APPLETS:
            self.link(f"bin/{applet}", "busybox")
        for name in ("proc", "sys", "dev", "tmp"):
            self.folder(name)
        self._entry("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1))
        self.file("init", init.encode())

    def modules(self, lab: Lab, name: str) -> list[str]:
        """The module `name` and all it needs, unpacked; their paths in load order."""
        paths = []
        for path in module_closure(lab, name):
            place = f"lib/modules/{_module_name(path)}.ko"
            self.file(place, _module_bytes(path), 0o644)
            paths.append("/" + place)
        return paths

    def tree(self, source: Path, place: str, keep: Sequence[str]) -> None:
        """Files below `source` whose relative path matches one of the regular expressions `keep`; links are resolved."""
        for path in sorted(source.rglob("*")):
            relative = path.relative_to(source).as_posix()
            if path.is_file() and any(re.fullmatch(pattern, relative) for pattern in keep):
                self.file(f"{place}/{relative}", path.read_bytes(), 0o644)

    def write(self, path: Path) -> None:
        """Finish and store."""
        self._entry("TRAILER!!!", 0, b"")
        path.write_bytes(b"".join(self._parts))


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _module_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def _needs(data: bytes) -> list[str]:
    """Names in the module's `depends=` line (section .modinfo: NUL-separated assignments)."""
    match = re.search(rb"\0depends=([\w,-]*)\0", data)
    return [name.replace("-", "_") for name in match[1].decode().split(",") if name] if match else []


def module_closure(lab: Lab, name: str) -> Iterator[Path]:
    """Files of module `name` and its dependencies, dependencies first. Raises KeyError for one that is not in the lab."""
    index = {_module_name(path): path for path in lab.modules.rglob("*.ko*")}
    done: set[str] = set()

    def walk(module: str) -> Iterator[Path]:
        if module in done:
            return
        done.add(module)
        for need in _needs(_module_bytes(index[module])):
            yield from walk(need)
        yield index[module]

    yield from walk(name)
