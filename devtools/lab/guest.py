"""Running a guest: one QEMU process, its console line by line, and an end that says what was seen last.

Owns the process and kills it with its context. The console is read by the caller's thread with a time limit; nothing here knows what
runs inside.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from devtools.lab.build import Lab

__all__ = ["Guest", "GuestTimeout"]


class GuestTimeout(Exception):
    """The guest did not say in time what was waited for; the text holds the last lines of its console."""


class Guest:
    """A virtual machine that boots straight into a kernel and an initial root file system. `arguments`: machine, memory and devices."""

    def __init__(self, lab: Lab, initrd: Path, *, arguments: Sequence[str], append: str = "", log: Path | None = None) -> None:
        self.lines: list[str] = []
        self._log = log
        kernel = ["-kernel", str(lab.modules / "vmlinuz"), "-initrd", str(initrd)]
        processor = ["-accel", "tcg", "-cpu", "max", "-smp", "1"]
        console = ["-nodefaults", "-nographic", "-serial", "stdio", "-no-reboot"]
        line = f"console=ttyS0 panic=-1 {append}".strip()
        command = [*lab.qemu(), *arguments, *processor, *console, *kernel, "-append", line]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._process.stdout is not None
        self._fd = self._process.stdout.fileno()
        os.set_blocking(self._fd, False)
        self._rest = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._fd, selectors.EVENT_READ)
        self._open = True

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        if self._log is not None:
            self._log.write_text("\n".join(self.lines) + "\n")

    def _pump(self, seconds: float) -> None:
        if not self._selector.select(max(0.0, seconds)):
            return
        data = os.read(self._fd, 65536)
        if not data:
            self._open = False
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.lines += [line.decode("utf-8", "replace").rstrip("\r") for line in lines]

    def wait(self, what: str | Callable[[str], bool], timeout: float) -> str:
        """The first line of the console (from its beginning) that contains `what`; GuestTimeout after `timeout` seconds or when QEMU
        ended."""
        matches: Callable[[str], bool] = (lambda line: what in line) if isinstance(what, str) else what
        deadline, seen = time.monotonic() + timeout, 0
        while True:
            for line in self.lines[seen:]:
                if matches(line):
                    return line
            seen = len(self.lines)
            left = deadline - time.monotonic()
            if left <= 0 or not self._open:
                reason = f"not within {timeout:g} s" if self._open else "and QEMU ended"
                raise GuestTimeout(f"the guest did not print {what!r}, {reason}; last lines:\n  " + "\n  ".join(self.lines[-25:]))
            self._pump(left)

    def finish(self, timeout: float) -> int:
        """Wait for QEMU to end by itself; its exit status."""
        deadline = time.monotonic() + timeout
        while self._open:
            if time.monotonic() > deadline:
                raise GuestTimeout(f"QEMU did not end within {timeout:g} s; last lines:\n  " + "\n  ".join(self.lines[-25:]))
            self._pump(deadline - time.monotonic())
        return self._process.wait(10)

    def kill(self) -> None:
        """End it now."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)
        self._selector.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
