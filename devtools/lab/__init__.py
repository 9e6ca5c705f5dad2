"""The lab: programs that nobody here wrote, taken from Debian's packages, to judge nvcore by.

`dev.py lab` builds it once: QEMU with `vfio-user-pci`, a Linux kernel with nouveau, busybox and the published GSP firmware, unpacked into
one folder and run from there by the folder's own dynamic loader: no root, no chroot, nothing installed. Standard library only.
"""

from __future__ import annotations

from devtools.lab.build import Lab, LabUnavailable, build, find

__all__ = ["Lab", "LabUnavailable", "build", "find", "main"]


def main(argv: list[str]) -> int:
    """`dev.py lab`: build it (or say what is there) and print versions."""
    try:
        lab = build(refresh="--refresh" in argv)
    except LabUnavailable as problem:
        print(f"lab: {problem}")
        return 1
    for name, version in sorted(lab.versions.items()):
        print(f"  {name:28} {version}")
    print(f"lab: {lab.root}")
    return 0
