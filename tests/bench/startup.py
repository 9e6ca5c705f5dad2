"""What the command line and the daemon cost to start, in instructions, against `python -c pass`: prints JSON.

Runs callgrind on each stage of an exec by itself, with hash seed 0 and warm byte code. The three plugins are throwaway distributions in a
temporary folder; nothing else of the environment's plugins is selected. `nvcore run` is the only command that re-executes itself: its
first stage ends where it would exec, its second, the bare vGPU host (fw_gsp and vfio, no GPU), where it tells the service manager READY,
so that neither the stop nor the interpreter's end is counted; resident memory is read there, in a run of its own.

    python tests/bench/startup.py              # exits 1 when a bar is broken
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PLUGIN = """
from nvcore.api import hookimpl

@hookimpl
def nvcore_doctor_checks(host):
    return []
"""
SCRIPT = "import re\nimport sys\nfrom nvcore.cli.main import main\nsys.exit(main())\n"
"""As pip writes console scripts, its import of `re` included."""

BEFORE_EXEC = "import os\nos.execv = lambda *words: os._exit(0)\n" + SCRIPT
UNTIL_READY = """
import os
import runpy
import sys

from nvcore.daemon import run


def told(*lines):
    if "READY=1" in lines:
        if not {"nvcore_fw_gsp", "nvcore_vfio"} <= set(sys.modules):
            os._exit(3)  # a host without its plugins is not what is measured
        if len(sys.argv) > 5:
            status = open("/proc/self/status").read()
            print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")), flush=True)
        os._exit(0)


run.notify = told
os.execv = lambda *words: None  # as if it were the second stage, which could not be given a hash seed
runpy.run_module("nvcore", run_name="__main__", alter_sys=True)
"""

BARS = {"plugins list": 2.5, "plugins doctor": 7.5, "run to READY": 15.0, "MiB at READY": 24.0}


def environment(folder: Path) -> dict[str, str]:
    """A clean environment with hash seed 0 and the toy plugins on the path."""
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
    places = {"NVCORE_SOCKET": str(folder / "no.sock"), "STATE_DIRECTORY": str(folder / "state")}
    return {**kept, **places, "PYTHONHASHSEED": "0", "PYTHONPATH": str(folder)}


def make_plugins(folder: Path, host_version: str) -> None:
    """Three trivial plugins, as pip would leave them."""
    for name in ("one", "two", "three"):
        info = folder / f"bench_{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: bench-{name}\nVersion: 1\nRequires-Dist: nvcore=={host_version}\n")
        (info / "entry_points.txt").write_text(f"[nvcore.operator.v1]\n{name} = bench_{name}\n")
        (folder / f"bench_{name}.py").write_text(PLUGIN)


def instructions(command: list[str], env: dict[str, str], shows: str = "") -> int:
    """Instructions of one command, the second of two runs (the first warms the byte code). shows: what it says of each of three plugins."""
    warm = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=120)
    if shows and warm.stdout.count(f" {shows} ") != 3:
        raise SystemExit(f"{' '.join(command)} does not show three plugins as {shows}:\n{warm.stdout}{warm.stderr}")
    measured = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command]
    done = subprocess.run(measured, env=env, capture_output=True, text=True, timeout=300, check=False)
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if found is None or done.returncode:
        raise SystemExit(f"callgrind failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return int(found[1])


def daemon(folder: Path, env: dict[str, str]) -> tuple[dict[str, int], float]:
    """Instructions of both stages of `nvcore run` of the bare vGPU host, and its resident memory at READY in MiB."""
    env = {key: value for key, value in env.items() if key != "PYTHONPATH"}
    words = ["run", "--only", "fw_gsp,vfio"]
    stages = {"run, before exec": BEFORE_EXEC, "run, isolated, to READY": UNTIL_READY}
    counts = {}
    for number, (name, source) in enumerate(stages.items()):
        script = folder / f"stage{number}.py"
        script.write_text(source)
        counts[name] = instructions([sys.executable, *["-s", "-P"][: 2 * number], str(script), *words], env)
    command = [sys.executable, "-s", "-P", str(folder / "stage1.py"), *words, "--socket", str(folder / "own.sock")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    return counts, round(int(done.stdout) / 1024, 1)


def main() -> int:
    """Measure and print."""
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed")
    from nvcore import __version__

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_plugins(folder, __version__)
        script = folder / "nvcore-script.py"
        script.write_text(SCRIPT)
        env = environment(folder)
        run = [sys.executable, str(script), "--only", "one,two,three"]
        bare = instructions([sys.executable, "-c", "pass"], env)
        counts = {
            "plugins list": instructions([*run, "plugins", "list"], env, "selected"),
            "plugins doctor": instructions([*run, "plugins", "doctor"], env, "registered"),
            "--version": instructions([*run, "--version"], env),
        }
        stages, memory = daemon(folder, env)
    counts["run to READY"] = sum(stages.values())
    ratios = {what: round(count / bare, 2) for what, count in {**counts, **stages}.items()} | {"MiB at READY": memory}
    broken = {what: bar for what, bar in BARS.items() if ratios[what] > bar}
    report = {
        "schema": "nvcore.bench/1",
        "bench": "startup",
        "python": sys.version.split()[0],
        "bare_instructions": bare,
        "instructions": {**counts, **stages},
        "ratios": ratios,
        "bars": BARS,
        "broken": broken,
    }
    print(json.dumps(report, indent=2))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
