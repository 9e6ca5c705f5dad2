"""`dev.py bench`: the measurements of tests/bench, each a script that prints one JSON object.

Scripts are run without arguments and exit with 1 where a bar is missed; one after another, on installed wheels (never two at once: they
measure). Prints one object, keyed by script. Arguments choose scripts by name. What a script writes to standard error is shown as it comes.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from devtools import machine
from devtools.environments import python_of
from devtools.layout import ROOT, locked
from devtools.say import Failed, clean_environment
from devtools.test import installed

__all__ = ["main"]

_LIMIT = 900.0  # seconds for one script


def main(argv: list[str]) -> int:
    """Run the chosen scripts, or all; 1 if any failed or found a bar missed (its exit status)."""
    folder = ROOT / "tests/bench"
    scripts = {p.stem: p for p in sorted(folder.glob("*.py")) if not p.stem.startswith(("_", "test_", "conftest"))}
    unknown = set(argv) - set(scripts)
    if unknown:
        raise Failed(f"no such measurement: {', '.join(sorted(unknown))}; there are: {', '.join(scripts) or 'none'}")
    machine.ensure("valgrind")
    environment, _ = installed()
    env = clean_environment(PYTHONSAFEPATH="1", PYTHONHASHSEED="0")
    env["PATH"] = os.pathsep.join([str(environment / "bin"), env.get("PATH", "/usr/bin:/bin")])
    with locked("the measurements", "tests", shared=True):
        results = {name: _measure([str(python_of(environment)), "-P", str(scripts[name])], env) for name in argv or scripts}
    print(json.dumps({name: found for name, (found, _) in results.items()}, indent=2))
    if failed := [name for name, (_, good) in results.items() if not good]:
        raise Failed(f"bench: {', '.join(failed)}")
    return 0


def _measure(command: list[str], env: dict[str, str]) -> tuple[Any, bool]:
    """What a script printed, and whether that is within its bars; one that hangs or prints no JSON costs no other its figures."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=_LIMIT, check=False
        )
        return json.loads(done.stdout), done.returncode == 0
    except subprocess.TimeoutExpired:
        return {"error": f"did not end within {_LIMIT:g} s"}, False
    except ValueError:
        return {"error": f"ended with {done.returncode} and printed no JSON"}, False
