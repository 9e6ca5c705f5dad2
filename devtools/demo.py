"""`dev.py demo`: the bare vGPU-host set and two software GPUs, from wheels, in an environment of their own.

Does all the set-up, then runs `nvcore` commands as an operator would and prints each of them: firmware (real images, or synthetic ones
where none can be had, and it says which), the daemon on two software GPUs, two vGPUs, the status screen, doctor; then down, and up again.
`--report FILE` writes what was run and seen as JSON, and boots the second firmware version too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from devtools import wheels
from devtools.environments import environment, python_of, wheelhouse
from devtools.layout import STATE, locked
from devtools.say import Failed, clean_environment, say

__all__ = ["Demo", "emptied", "install", "main"]

FETCHED = Path("state/plugins/fw_gsp/firmware")  # in the demo's home: where `nvcore firmware fetch` puts images
VERSION, OLDER = "570.144", "535.113.01"
READY_LIMIT = 120.0  # seconds


@dataclass
class Demo:
    """One run of the demo: where it is installed, where it keeps its state, and what it has run so far."""

    folder: Path
    home: Path
    socket: Path
    ran: list[dict[str, Any]] = field(default_factory=list)

    def nvcore(self, *words: str, accept: tuple[int, ...] = (0,), timeout: float = 120, show: bool = True, live: bool = False) -> str:
        """Run one nvcore command in the demo's environment, showing it and what it prints; its standard output.

        live: what it prints is shown as it comes, because it tells of its progress; nothing is returned then.
        """
        if show:
            say(f"\n$ nvcore {' '.join(words)}")
        start = time.monotonic()
        try:
            done = subprocess.run(
                self.command(*words),
                cwd=self.home,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=not live,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"nvcore {' '.join(words)} did not end within {timeout:g} s") from None
        if show:
            self.ran.append({"command": ["nvcore", *words], "status": done.returncode, "seconds": round(time.monotonic() - start, 3)})
            print(done.stdout or "", done.stderr or "", sep="", end="", flush=True)
        if done.returncode not in accept:
            raise Failed(f"nvcore {' '.join(words)} ended with {done.returncode}: {(done.stderr or '').strip() or 'see above'}")
        return done.stdout or ""

    def command(self, *words: str) -> list[str]:
        """How to start nvcore out of the demo's environment."""
        return [str(python_of(self.folder)), "-I", "-m", "nvcore", *words]

    def environment(self) -> dict[str, str]:
        """The environment of the demo's commands: state and socket of the demo's own, never the machine's."""
        return clean_environment(NVCORE_SOCKET=str(self.socket), STATE_DIRECTORY=str(self.home / "state"))

    def asked(self, *words: str, accept: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """A command's JSON, for the report; the command is shown, its answer is not."""
        say(f"$ nvcore {' '.join(words)} -o json  (checked, not shown)")
        return json.loads(self.nvcore(*words, "-o", "json", show=False, accept=accept))  # type: ignore[no-any-return]


class Daemon:
    """`nvcore run` in the background, started and stopped as a service manager would."""

    def __init__(self, demo: Demo, config: Path) -> None:
        self._demo = demo
        self.log = demo.home / "daemon.log"
        words = ("run", "--config", str(config))
        say(f"\n$ nvcore {' '.join(words)} &")
        start = time.monotonic()
        with open(self.log, "w") as log:
            self._process = subprocess.Popen(
                demo.command(*words), cwd=demo.home, env=demo.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            while "nvcore: ready" not in self.log.read_text():
                if self._process.poll() is not None or time.monotonic() - start > READY_LIMIT:
                    raise Failed(f"the daemon did not get ready:\n{self.log.read_text()}")
                time.sleep(0.02)
        except BaseException:  # an interrupt as well
            self.kill()
            raise
        self.seconds = round(time.monotonic() - start, 3)
        say(next(line for line in self.log.read_text().splitlines() if "nvcore: ready" in line) + f"  ({self.seconds} s)")

    def stop(self) -> int:
        """Stop it by its own command; its exit status."""
        self._demo.nvcore("stop")
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            raise Failed(f"the daemon did not end:\n{self.log.read_text()}") from None

    def kill(self) -> None:
        """Make sure that nothing stays behind."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)


def install() -> Path:
    """The environment with the set, made from wheels; its folder."""
    own = wheels.build()
    return environment("demo", ["nvcore[demo]"], house=wheelhouse(), own=own)


def firmware(demo: Demo) -> tuple[str, Path]:
    """("vendor", folder) of published images, fetched once; ("synthetic", folder) where there is no way to them."""
    say("\n(published images: about 100 MB out of a package of Debian's, once)")
    try:
        demo.nvcore("firmware", "fetch", timeout=900, live=True)
    except Failed as problem:
        say(str(problem))
    else:
        return "vendor", demo.home / FETCHED / "nvidia"
    say("\nNO PUBLISHED FIRMWARE can be had here: going on with SYNTHETIC images (seeded bytes in the real containers).")
    place = demo.home / "synthetic"
    shutil.rmtree(place, ignore_errors=True)
    demo.nvcore("softgpu", "firmware", str(place))
    return "synthetic", place


def configuration(demo: Demo, images: Path, version: str, *, second: bool) -> Path:
    """The daemon's configuration file: two GPUs (or the first alone), drm denied."""
    gpus = [("softgpu:ga100?vram=40G&address=0000:41:00.0", version)]
    if second:
        gpus.append(("softgpu:gh100?vram=80G&address=0000:c1:00.0", version))
    lines = ["[plugins]", 'deny = ["drm*"]', "", "[plugins.fw_gsp]", f"firmware_dir = [{json.dumps(str(images))}]", ""]
    for source, wanted in gpus:
        lines += ["[[gpu]]", f'source = "{source}&firmware={quote(str(images))}"', f'firmware = "{wanted}"', ""]
    path = demo.home / "demo.toml"
    path.write_text("\n".join(lines))
    return path


def seen(demo: Demo, daemon: Daemon) -> dict[str, Any]:
    """What a running daemon says of itself, for the report."""
    gpus = []
    for row in demo.asked("gpus", "list", accept=(0, 7))["gpus"]:
        gpu = demo.asked("gpus", "show", row["address"] or row["source"], accept=(0, 7))["gpu"]
        boot = gpu["boot"]
        gpus.append(
            {
                "address": gpu["address"],
                "chip": gpu["chip"],
                "state": gpu["state"],
                "cause": gpu["cause"],
                "memory_bytes": gpu["inventory"]["memory_size"] if gpu["inventory"] else None,
                "firmware": {"version": boot["image"]["version"], "kind": boot["image"]["kind"]} if boot else None,
                "boot_seconds": boot["seconds"] if boot else None,
                "stages": [{key: stage[key] for key in ("name", "seconds", "outcome")} for stage in boot["stages"]] if boot else [],
                "functions": gpu["functions"],
            }
        )
    findings = demo.asked("doctor")["findings"]
    vgpus = demo.asked("vgpu", "list")["vgpus"]
    clean = all(finding["severity"] == "ok" for finding in findings)
    return {"ready_seconds": daemon.seconds, "gpus": gpus, "vgpus": vgpus, "doctor": {"clean": clean, "findings": findings}}


def scenes(demo: Demo, with_older: bool) -> dict[str, Any]:
    """Everything that is shown; what the report says of it."""
    kind, images = firmware(demo)
    demo.nvcore("plugins", "list")
    demo.nvcore("plugins", "footprint", "--deny", "drm*")
    config = configuration(demo, images, VERSION, second=True)
    daemon = Daemon(demo, config)
    try:
        demo.nvcore("gpus")
        for name in ("web-01", "web-02"):
            demo.nvcore("vgpu", "create", "--type", "A100-4C", "--name", name, "--vm", name)
        demo.nvcore("status", live=True)  # in colour where this is a terminal
        demo.nvcore("doctor")
        first = seen(demo, daemon)
        first["exit"] = daemon.stop()
        say("\nand again: the same GPUs boot anew, the declared vGPUs are made again")
        daemon = Daemon(demo, config)
        demo.nvcore("vgpu", "list")
        second = seen(demo, daemon)
        for name in ("web-01", "web-02"):
            demo.nvcore("vgpu", "destroy", name)
        second["exit"] = daemon.stop()
        runs = {"first": first, "again": second}
        if with_older:
            config = configuration(demo, images, OLDER, second=False)
            for name in ("older", "older_again"):
                say(f"\nGA100 on the older firmware, {OLDER}" + ("" if name == "older" else ": again"))
                daemon = Daemon(demo, config)
                demo.nvcore("gpus")
                runs[name] = seen(demo, daemon)
                runs[name]["exit"] = daemon.stop()
    finally:
        daemon.kill()
    return {"firmware": {"kind": kind, "version": VERSION}, "runs": runs}


def emptied(home: Path) -> Path:
    """The demo's home without what an earlier demo left, an interrupted one too; fetched images stay. Its lock stays as well: a daemon that
    outlived its demo holds it."""
    keep = home / FETCHED
    for path in [*home.glob("*"), *home.glob("state/*"), *home.glob("state/plugins/*")]:
        if path not in (keep, *keep.parents) and path.name != "lock":
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    (home / "state").mkdir(parents=True, exist_ok=True)
    return home


def main(argv: list[str]) -> int:
    """Set up and run."""
    parser = argparse.ArgumentParser(prog="dev.py demo")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what was run and seen, as JSON; boots the older firmware too")
    arguments = parser.parse_args(argv)
    start = time.monotonic()
    say("set-up")
    folder = install()
    # a socket's path may have 107 bytes, this checkout's may be longer
    with locked("the demo", "demo"), tempfile.TemporaryDirectory(prefix="nvcore-demo-", ignore_cleanup_errors=True) as runtime:
        demo = Demo(folder, emptied(STATE / "demo"), Path(runtime) / "nvcore.sock")
        demo.nvcore("--version")
        shown = scenes(demo, with_older=arguments.report is not None)
    seconds = round(time.monotonic() - start, 1)
    bad = [gpu for run in shown["runs"].values() for gpu in run["gpus"] if gpu["state"] != "running"]
    lost = [name for name in ("first", "again") if [vgpu["state"] for vgpu in shown["runs"][name]["vgpus"]] != ["running"] * 2]
    dirty = [name for name, run in shown["runs"].items() if not run["doctor"]["clean"] or run["exit"] != 0]
    if arguments.report:
        report = {"schema": "nvcore.demo/1", "seconds": seconds, "environment": str(folder), **shown, "commands": demo.ran}
        arguments.report.write_text(json.dumps(report, indent=2) + "\n")
    if bad or dirty or lost:
        raise Failed(f"the demo ran and not all is well: GPUs {[gpu['address'] for gpu in bad]}, doctor of {dirty}, vGPUs of {lost}")
    what = "published" if shown["firmware"]["kind"] == "vendor" else "SYNTHETIC"
    say(f"\ndone in {seconds} s, on {what} firmware images; look around with {folder}/bin/nvcore")
    return 0
