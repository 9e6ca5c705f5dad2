"""`dev.py demo`: the bare vGPU-host set and two software GPUs, from wheels, in an environment of their own.

Does all the set-up, then runs `nvcore` commands as an operator would and prints each of them. `--report FILE` writes what was run, with
status and seconds, as JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devtools import wheels
from devtools.environments import environment, python_of, wheelhouse
from devtools.layout import STATE
from devtools.say import Failed, clean_environment, say

__all__ = ["Demo", "install", "main"]


@dataclass
class Demo:
    """One run of the demo: where it is installed, where it keeps its state, and what it has run so far."""

    folder: Path
    home: Path
    ran: list[dict[str, Any]] = field(default_factory=list)

    def nvcore(self, *words: str, accept: tuple[int, ...] = (0,), timeout: float = 120) -> str:
        """Run one nvcore command in the demo's environment, showing it and what it prints; its standard output."""
        say(f"\n$ nvcore {' '.join(words)}")
        start = time.monotonic()
        command = [str(python_of(self.folder)), "-I", "-m", "nvcore", *words]
        done = subprocess.run(
            command, cwd=self.home, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
            check=False,
        )
        self.ran.append({"command": ["nvcore", *words], "status": done.returncode, "seconds": round(time.monotonic() - start, 3)})
        print(done.stdout, end="", flush=True)
        print(done.stderr, end="", flush=True)
        if done.returncode not in accept:
            raise Failed(f"nvcore {' '.join(words)} ended with {done.returncode}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """The environment of the demo's commands: state and socket in the demo's own folder, never the machine's."""
        return clean_environment(RUNTIME_DIRECTORY=str(self.home / "run"), STATE_DIRECTORY=str(self.home / "state"))


def install() -> Path:
    """The environment with the set, made from wheels; its folder."""
    own = wheels.build()
    return environment("demo", ["nvcore[demo]"], house=wheelhouse(), own=own)


def main(argv: list[str]) -> int:
    """Set up and run."""
    parser = argparse.ArgumentParser(prog="dev.py demo")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what was run, as JSON")
    arguments = parser.parse_args(argv)
    start = time.monotonic()
    say("set-up")
    folder = install()
    home = STATE / "demo"
    for name in ("run", "state"):
        (home / name).mkdir(parents=True, exist_ok=True)
    demo = Demo(folder, home)
    demo.nvcore("--version")
    demo.nvcore("plugins", "list")
    say("\nnot here yet: starting the daemon on two software GPUs, creating vGPUs and the status screen")
    seconds = time.monotonic() - start
    if arguments.report:
        report = {"schema": "nvcore-demo-1", "seconds": round(seconds, 1), "environment": str(folder), "commands": demo.ran}
        arguments.report.write_text(json.dumps(report, indent=2) + "\n")
    say(f"\ndone in {seconds:.1f} s; look around with {folder}/bin/nvcore")
    return 0
