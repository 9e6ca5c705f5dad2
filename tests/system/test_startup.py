"""What starting costs, in instructions and memory, stays within its bars: figures that a busy machine does not change."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "bench/startup.py"


@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind on this machine")
def test_command_line_and_daemon_start_within_their_bars() -> None:
    done = subprocess.run([sys.executable, "-P", str(SCRIPT)], capture_output=True, text=True, timeout=500, check=False)
    print(done.stdout)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert set(report["bars"]) == {"plugins list", "plugins doctor", "run to READY", "MiB at READY"} <= set(report["ratios"])
    assert report["broken"] == {} and done.returncode == 0
