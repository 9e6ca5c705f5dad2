"""A real daemon for the tests: `nvcore run` as a service manager starts it, told READY by a datagram, never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GPU0 = "softgpu:ga100?vram=40G&address=0000:41:00.0"
GPU1 = "softgpu:gh100?vram=80G&address=0000:c1:00.0"
BARE = ("--only", "fw_gsp,vfio")
SET = ("--only", "fw_gsp,vfio,softgpu")
NVCORE = (sys.executable, "-I", "-m", "nvcore")


def images(folder: Path) -> Path:
    """Synthetic firmware images below `folder`."""
    subprocess.run([*NVCORE, "softgpu", "firmware", str(folder)], check=True, capture_output=True, timeout=60)
    return folder / "nvidia"


def clean(**more: str) -> dict[str, str]:
    """An environment without anything of the machine's nvcore."""
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "NVCORE_LOCKDEP")}
    return {**kept, "TZ": "UTC", **more}


class Manager:
    """Stands for the service manager: the socket behind NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def wait(self, word: str, process: subprocess.Popen[str], seconds: float = 60.0) -> bool:
        """Until the daemon said `word`; False when it ended without."""
        deadline = time.monotonic() + seconds
        while not any(word in message.split("\n") for message in self.said):
            self._socket.settimeout(0.05)
            try:
                self.said.append(self._socket.recv(4096).decode())
            except TimeoutError:
                if process.poll() is not None:
                    return False
                assert time.monotonic() < deadline, f"no {word} within {seconds} s; said: {self.said}"
        return True

    def close(self) -> None:
        self._socket.close()


class Running:
    """One `nvcore run` and its folder (short, because a socket's path may have 107 bytes)."""

    def __init__(self, *words: str, firmware: Path | None = None, command: tuple[str, ...] = NVCORE, config: str = "", **env: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="nvd-"))
        self.socket = self.home / "run" / "nvcore.sock"
        self.state = self.home / "state"
        self.words = list(words)
        self.command = command
        if config:
            (self.home / "x.toml").write_text(config)
            self.words += ["--config", str(self.home / "x.toml")]
        places = {"NVCORE_SOCKET": str(self.socket), "STATE_DIRECTORY": str(self.state), "HOME": str(self.home)}
        if firmware is not None:
            places["NVCORE_FIRMWARE"] = str(firmware)
        self.env = clean(**places, **env)
        self.manager: Manager
        self.process: subprocess.Popen[str]
        self.log = self.home / "log"

    def start(self, *, ready: bool = True) -> Running:
        """Start it and wait until it said READY (or ended)."""
        (self.home / "notify").unlink(missing_ok=True)
        self.manager = Manager(self.home / "notify")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*self.command, "run", *self.words], cwd=self.home, env={**self.env, "NOTIFY_SOCKET": str(self.home / "notify")},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True, start_new_session=True,
            )
        if ready:
            assert self.manager.wait("READY=1", self.process), f"it ended with {self.process.poll()}:\n{self.log.read_text()}"
        return self

    def run(self, *words: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """One command against it; checks the exit code unless that is None."""
        done = subprocess.run(
            [*NVCORE, *words], cwd=self.home, env={**self.env, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            encoding="utf-8", timeout=60,
        )
        assert code is None or done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log.read_text()}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *words: str, code: int | None = 0) -> Any:
        """The document that a command prints."""
        return json.loads(self.run(*words, "-o", "json", code=code).stdout)

    def wait(self, seconds: float = 30.0) -> int:
        """Its exit status."""
        return self.process.wait(seconds)

    def signal(self, number: int) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.wait()

    def close(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "process"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
            self.manager.close()
        shutil.rmtree(self.home, ignore_errors=True)
