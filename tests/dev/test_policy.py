"""In CI a skipped test is a failure, unless it is skipped by design; elsewhere it is only said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SKIPS = "import pytest\n\ndef test_judge():\n    pytest.skip('no judge here')\n"
BY_DESIGN = "import pytest\n\ndef test_other():\n    pytest.skip('by design: not for this chip')\n"
MODULE = "import pytest\n\npytest.importorskip('a_judge_that_is_not_there')\n"
PASSES = "def test_fine():\n    pass\n"  # beside each: a run that does something


@pytest.mark.parametrize(
    ("body", "ci", "status"),
    [(SKIPS, "true", 1), (SKIPS, "", 0), (BY_DESIGN, "true", 0), (MODULE, "true", 1)],
    ids=["skip in CI", "skip elsewhere", "by design", "whole module in CI"],
)
def test_a_missing_judge_fails_ci(tmp_path: Path, body: str, ci: str, status: int) -> None:
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(body)
    (tmp_path / "test_fine.py").write_text(PASSES)
    env = {k: v for k, v in os.environ.items() if not k.startswith("NVCORE_")} | {"CI": ci}
    without = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    command = [sys.executable, "-P", "-m", "pytest", "-ra", *without, "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stdout
    assert ("must not be skipped" in done.stdout) == bool(status)
    assert "SKIPPED" in done.stdout and "1 passed" in done.stdout
