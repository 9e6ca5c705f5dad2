#!/usr/bin/env python3
"""The one starting point for working on nvcore: `python3 dev.py COMMAND`. Needs Python 3.11 and nothing else.

Every command makes what it needs under .nvcore/ (safe to delete), says what it does, and works as root and as an ordinary user.
What the commands do lives in devtools/, one module a command; this file only finds the module.
"""

import errno
import signal
import sys

COMMANDS = {
    "demo": "install the bare vGPU-host set and two software GPUs from wheels, and show them running",
    "test": "lint, then all tests against installed wheels",
    "lint": "ruff, mypy, import-linter, the API snapshot and the structure rules",
    "bench": "the measurements of tests/bench, as JSON",
    "wheels": "build the wheels and print where they are",
    "lab": "make the Debian 13 root with QEMU, a recent kernel and firmware",
    "system": "the tests that need a whole system: fresh Debian roots, QEMU, real drivers",
    "snapshot": "write nvcore/api/SNAPSHOT anew from the sources",
}


USAGE = {
    "test": "  [PYTEST ARGUMENT…]: only the tests that they name, without lint\n",
    "bench": "  [NAME…]: only these of tests/bench\n",
    "wheels": "  [FOLDER]: copy them there\n",
    "lab": "  [--refresh]: make it anew\n",
    "system": "  [PYTEST ARGUMENT…]: only the tests that they name\n",
    "snapshot": "  [--check]: only compare\n",
}


_NO_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


class Terminated(BaseException):
    """SIGTERM came: everything unwinds, so that nothing that was started keeps running."""


def _terminated(*_: object) -> None:
    raise Terminated


def usage() -> str:
    """What `dev.py --help` prints."""
    return "usage: python3 dev.py COMMAND [ARGUMENT...]\n\n" + "".join(f"  {name:<9} {text}\n" for name, text in COMMANDS.items())


def main(argv: list[str]) -> int:
    """Run one command; its exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036 (said here, because an older Python gets this far)
        sys.stderr.write("error: nvcore needs Python 3.11 or newer, this is %s\n" % sys.version.split()[0])  # noqa: UP031
        return 2
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        sys.stderr.write(f"error: no command {argv[0]!r}\n\n{usage()}")
        return 2
    if argv[0] != "demo" and {"-h", "--help"} & set(argv[1:]):  # the demo has options of its own and says so itself
        sys.stdout.write(f"python3 dev.py {argv[0]}: {COMMANDS[argv[0]]}\n{USAGE.get(argv[0], '')}")
        return 0
    from importlib import import_module

    from devtools.say import Failed

    signal.signal(signal.SIGTERM, _terminated)
    try:
        command = import_module(f"devtools.{argv[0]}")
        status: int = command.main(argv[1:])
    except Failed as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        sys.stderr.write(f"error: {error}\n  where .nvcore cannot be written to or has no room: NVCORE_DEV_STATE=FOLDER\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except Terminated:
        sys.stderr.write("terminated\n")
        return 143
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
