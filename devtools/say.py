"""What dev.py says while it works: one line a step with its seconds, details into a log file that a failure names.

Owns standard output's progress lines and the folder of logs. A ticker thread lives for the length of one step and only prints.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from devtools.layout import STATE

__all__ = ["Failed", "Step", "beside", "clean_environment", "say", "step", "supervised"]

_LEAKS = (
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "VIRTUAL_ENV",
    "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV",
)
_TAKE_DOWN = 60.0  # seconds that a program has to take down what it started, when it is interrupted
_TELL_EVERY = 15.0  # seconds between signs of life where the output is no terminal


class Failed(Exception):
    """A step failed: what, and where to read more. dev.py prints it and ends with 1."""


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would leak another Python's modules into a child, plus `more`.

    A child that uses devtools finds the same STATE from wherever it runs.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _LEAKS} | {"NVCORE_DEV_STATE": str(STATE)}
    return {**kept, "PYTHONNOUSERSITE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_USER": "0", **more}


def supervised(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str]) -> int:
    """Run a program that starts others; its exit status. An interrupt of this process goes to it, which gets time to take down its own."""
    with _child(command, cwd, env, None) as child:
        return child.wait()


@contextmanager
def beside(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], log: Path) -> Iterator[Callable[[], int]]:
    """Run such a program during the block, with what it prints in `log`; gives what waits for its exit status."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output, _child(command, cwd, env, output) as child:
        yield child.wait


@contextmanager
def _child(command: Sequence[str | Path], cwd: Path, env: Mapping[str, str], output: IO[bytes] | None) -> Iterator[subprocess.Popen[bytes]]:
    merged = None if output is None else subprocess.STDOUT
    words = [str(word) for word in command]
    with subprocess.Popen(words, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=merged) as child:
        try:
            yield child
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt) or not sys.stdin.isatty():  # a terminal has told both
                child.send_signal(signal.SIGINT)
            try:
                child.wait(_TAKE_DOWN)
            except BaseException:
                child.kill()
            raise


class Step:
    """One step in progress: runs commands whose output goes to the step's log. `note` stands in its line, `remedy` in its failure."""

    def __init__(self, what: str, log: Path) -> None:
        self.what = what
        self.log = log
        self.note = ""
        self.remedy = ""

    def run(
        self, command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 1800
    ) -> str:
        """Run a command to its end; its standard output. Raises Failed with the last lines and the log's path."""
        with open(self.log, "a") as log:
            log.write(f"$ {' '.join(str(c) for c in command)}\n")
            log.flush()
            try:
                done = subprocess.run(
                    [str(c) for c in command], cwd=cwd, env=dict(env or clean_environment()), stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=log, text=True, timeout=timeout, check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise self.failed(str(error)) from error
            log.write(done.stdout)
        if done.returncode:
            raise self.failed(f"{Path(command[0]).name} ended with {done.returncode}")
        return done.stdout

    def failed(self, why: str) -> Failed:
        """The error that tells of this step, with the end of its log."""
        tail = self.log.read_text(errors="replace").splitlines()[-15:] if self.log.exists() else []
        remedy = [f"  {self.remedy}"] if self.remedy else []
        return Failed("\n".join([f"{self.what}: {why}", *(f"  | {line}" for line in tail), *remedy, f"  the whole log: {self.log}"]))


def _tick(what: str, start: float, done: threading.Event, terminal: bool) -> None:
    last = start
    while not done.wait(0.5 if terminal else 1.0):
        now = time.monotonic()
        if terminal:
            sys.stdout.write(f"\r  … {what} {now - start:.0f} s")
            sys.stdout.flush()
        elif now - last >= _TELL_EVERY:
            last = now
            say(f"  … {what}: {now - start:.0f} s so far")


@contextmanager
def step(what: str) -> Iterator[Step]:
    """Show one step: a sign of life while it runs, then its line with the seconds it took."""
    logs = STATE / "log"
    logs.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "-" for c in what)[:60]
    log = logs / f"{name}.log"
    log.unlink(missing_ok=True)
    this = Step(what, log)
    start, done, terminal = time.monotonic(), threading.Event(), sys.stdout.isatty()
    ticker = threading.Thread(target=_tick, args=(what, start, done, terminal), daemon=True)
    ticker.start()
    mark = "✗"
    try:
        yield this
        mark = "✓"
    finally:
        done.set()
        ticker.join()
        clear = "\r\x1b[K" if terminal else ""
        say(f"{clear}  {mark} {what}{f' ({this.note})' if this.note else ''}  {time.monotonic() - start:.1f} s")
