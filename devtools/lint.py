"""`dev.py lint`: ruff, mypy strict, import-linter, the API snapshot, the structure rules.

Runs each over the sources, all of them even where one fails, and prints what they found. Nothing is installed from the checkout: the
plugins' folders stand on the path of the tools that import.
"""

from __future__ import annotations

import difflib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from devtools import snapshot, structure
from devtools.environments import environment, python_of, runtime_requirements, wheelhouse
from devtools.layout import DISTRIBUTIONS, ROOT, STATE, extra
from devtools.say import clean_environment, say

__all__ = ["main", "tools"]

_PATH = os.pathsep.join(str(d.folder) for d in DISTRIBUTIONS)
_CHECKED = ("dev.py", "devtools")


def tools() -> Path:
    """The environment with everything from outside that test and lint use."""
    return environment("test", sorted({*runtime_requirements(), *extra("dev")}), house=wheelhouse("dev"))


def _tool(python: Path, *words: str, **more: str) -> str:
    """Run one tool over the checkout; its output where it found something, else nothing."""
    cache = STATE / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    env = clean_environment(MYPY_CACHE_DIR=str(cache / "mypy"), RUFF_CACHE_DIR=str(cache / "ruff"), NO_COLOR="1", **more)
    done = subprocess.run([str(python), *words], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip() or f"ended with {done.returncode}" if done.returncode else ""


def _ruff(python: Path) -> str:
    return _tool(python, "-m", "ruff", "check", "--quiet", "--output-format=concise", ".")


def _mypy(python: Path) -> str:
    packages = [word for d in DISTRIBUTIONS for word in ("-p", d.module)]
    first = _tool(python, "-m", "mypy", "--no-error-summary", *packages, MYPYPATH=_PATH)
    return "\n".join(filter(None, (first, _tool(python, "-m", "mypy", "--no-error-summary", *_CHECKED))))


def _import_linter(python: Path) -> str:
    found = _tool(python, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache", PYTHONPATH=_PATH)
    return "\n".join(line for line in found.splitlines() if line.strip() and not set(line) & set("╔╚╣╩║╝"))  # without its banner


def _snapshot(_: Path) -> str:
    try:
        new, place = snapshot.render(ROOT / "nvcore/api"), snapshot.PLACE
    except SyntaxError as error:
        return str(error)
    old = place.read_text() if place.exists() else ""
    if new == old:
        return ""
    changed = difflib.unified_diff(old.splitlines(), new.splitlines(), "nvcore/api/SNAPSHOT", "the sources", lineterm="", n=1)
    return "\n".join([*changed, "the API changed: if that is meant, `python3 dev.py snapshot`, and say so in the change's message"])


def main(argv: list[str]) -> int:
    """Run all checks; 1 if any found something."""
    python = python_of(tools())
    numbers = ""

    def shape(_: Path) -> str:
        nonlocal numbers
        beside = [ROOT / folder for folder in ("tests", "devtools", "examples")]
        found, numbers = structure.check([d.package for d in DISTRIBUTIONS], ROOT / "nvcore", beside)
        return "\n".join(found)

    checks: dict[str, Callable[[Path], str]] = {
        "ruff": _ruff, "mypy --strict": _mypy, "import-linter": _import_linter, "API snapshot": _snapshot, "structure": shape,
    }
    failed = []
    for name, check in checks.items():
        start = time.monotonic()
        found = check(python)
        say(f"  {'✗' if found else '✓'} {name}  {time.monotonic() - start:.1f} s")
        if found:
            failed.append(name)
            say("\n".join(f"    {line}" for line in found.splitlines()))
    say(f"  {numbers}")
    if failed:
        say(f"lint: {', '.join(failed)} found something")
    return int(bool(failed))
