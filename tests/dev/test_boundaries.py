"""The import rules catch what they are for: each one is broken once, in a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PLUGINS = {"fw_gsp": "nvcore_fw_gsp", "vfio": "nvcore_vfio", "softgpu": "nvcore_softgpu"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boundaries")
    shutil.copy(CHECKOUT / "pyproject.toml", folder)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "nvcore", folder / "nvcore", ignore=ignore)
    for name, module in PLUGINS.items():
        shutil.copytree(CHECKOUT / "plugins" / name / module, folder / module, ignore=ignore)
    return folder


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    env = {**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "200"}
    command = [sys.executable, "-c", program, "--no-cache"]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def test_the_sources_keep_the_rules(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("place", "line", "rule"),
    [
        ("nvcore/plugins", "import nvcore_vfio", "the host imports no plugin"),
        ("nvcore/testing", "from nvcore_softgpu import chips", "the host imports no plugin"),
        ("nvcore/api", "from nvcore.plugins import index", "api stands alone"),
        ("nvcore/api", "from nvcore.hw import chips", "api stands alone"),
        ("nvcore/hw", "from nvcore.locks import Lock", "api stands alone"),
        ("nvcore/vfio_user", "from nvcore.locks import Lock", "api stands alone"),
        ("nvcore/locks", "from nvcore.events import EventLog", "api stands alone"),
        ("nvcore_fw_gsp", "from nvcore.events import EventLog", "fw_gsp imports the public rooms"),
        ("nvcore_fw_gsp", "import nvcore_vfio", "fw_gsp imports the public rooms"),
        ("nvcore_vfio", "from nvcore.plugins import index", "vfio imports the public rooms"),
        ("nvcore_vfio", "from nvcore_fw_gsp import abi", "vfio imports the public rooms"),
        ("nvcore_softgpu", "import nvcore_vfio", "softgpu imports the public rooms"),
        ("nvcore_softgpu", "from nvcore_fw_gsp import boot", "softgpu imports the public rooms"),
        ("nvcore_softgpu", "from nvcore.hw import pte", "softgpu imports the public rooms"),
        ("nvcore_softgpu", "from nvcore import vmm", "softgpu imports the public rooms"),
        ("nvcore_fw_gsp/abi", "from nvcore.locks import Lock", "the firmware's ABI is data"),
    ],
)
def test_a_broken_rule_is_caught(copy: Path, place: str, line: str, rule: str) -> None:
    made: list[Path] = []
    for package in ("nvcore/hw/pte.py", "nvcore/vmm/__init__.py", f"{place}/injected.py"):
        path = copy / package
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text("")
            made.append(path)
    (copy / place / "injected.py").write_text(f"{line}\n")
    try:
        done = lint(copy)
    finally:
        for path in made:
            path.unlink()
    assert done.returncode == 1, done.stdout
    broken = [text for text in done.stdout.splitlines() if "BROKEN" in text]
    assert any(rule in text for text in broken), done.stdout
