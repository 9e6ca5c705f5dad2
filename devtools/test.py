"""`dev.py test`: lint, then every test that needs no whole system, against installed wheels.

Arguments go to pytest (`python3 dev.py test -k ledger tests/core`); with arguments, lint is left out. What runs is what was installed:
Python's safe path keeps the checkout's own packages out of the tests and of every program that they start.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from devtools import lint, wheels
from devtools.environments import python_of, refreshed, wheelhouse
from devtools.layout import ROOT, STATE, locked
from devtools.pips import pip
from devtools.say import beside, clean_environment, say, supervised

__all__ = ["installed", "main", "pytest"]

_APART = ("tests/system", "tests/bench")
_INSIDE = ("api", "boots", "config", "core", "fw_gsp", "hw", "locks", "plugins", "softgpu", "vfio_user", "vmm")
"""Folders whose tests do their work in their own process: as much work as all others have, which mostly wait for programs."""


def installed() -> tuple[Path, Path]:
    """The environment of the tests with our wheels as the sources are now, and the folder of those wheels."""
    built = wheels.build()
    folder = lint.tools()
    refreshed(folder, built)
    return folder, built


def pytest(arguments: list[str], **more: str) -> int:
    """Run pytest on installed wheels, with what the install tests need told in the environment; its status."""
    with _ready(more) as (command, env):
        return supervised([*command, *_cache("pytest"), *arguments], cwd=ROOT, env=env)


def _cache(name: str) -> list[str]:
    return ["-o", f"cache_dir={STATE / 'cache' / name}"]


@contextmanager
def _ready(more: Mapping[str, str]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """pytest's command and environment; meanwhile nothing that it uses is changed."""
    folder, built = installed()
    env = clean_environment(
        NVCORE_LOCKDEP="1", PYTHONSAFEPATH="1", NVCORE_TEST_WHEELS=str(built),
        NVCORE_TEST_WHEELHOUSE=str(wheelhouse("dev")), NVCORE_TEST_PIP=str(pip()),
        HYPOTHESIS_STORAGE_DIRECTORY=str(STATE / "cache/hypothesis"), **more,
    )
    env["PATH"] = os.pathsep.join([str(folder / "bin"), env.get("PATH", "/usr/bin:/bin")])
    sys.stdout.flush()
    # a shell ignores SIGINT for what it starts in the background, and the programs that tests interrupt would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with locked("the tests", "tests", shared=True):
        yield [str(python_of(folder)), "-P", "-m", "pytest", "--durations=8", "--durations-min=3"], env


def _everything() -> int:
    """All tests but those apart, by two processes at once: those that work inside theirs, and those that start others."""
    inside, log = [f"tests/{name}" for name in _INSIDE], STATE / "log/tests-inside.txt"
    rest = ["tests", *(f"--ignore={folder}" for folder in [*_APART, *inside])]
    with (
        _ready({}) as (command, env),
        beside([*command, *_cache("pytest-inside"), "-q", *inside], cwd=ROOT, env=env, log=log) as ended,
    ):
        status = supervised([*command, *_cache("pytest"), "-q", *rest], cwd=ROOT, env=env)
        other = ended()
    say(f"tests that work inside their process, run beside those ({log}):")
    say(log.read_text("utf-8", "replace").rstrip())
    return status or other


def main(argv: list[str]) -> int:
    """Lint and test; with arguments only the tests that they name."""
    if argv:
        return pytest(argv)
    start = time.monotonic()
    say("lint, and the wheels meanwhile")
    lint.tools()
    with ThreadPoolExecutor(1) as beside_it:
        linted = beside_it.submit(lint.main, [])
        installed()
    found = linted.result()
    say("tests, on installed wheels")
    status = _everything()
    if found:
        say(f"lint found something{', the tests passed' if status == 0 else ''}")
    elif status == 0:
        say(f"  lint and tests passed in {time.monotonic() - start:.0f} s")
    return status or found
