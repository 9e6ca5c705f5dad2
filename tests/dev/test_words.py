"""What the README says can be typed: its commands exist, its sets are extras."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text()


def dev(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(CHECKOUT / "dev.py"), *words], capture_output=True, text=True, check=False, timeout=30)


def commands() -> set[str]:
    return set(re.findall(r"^  (\w+) ", dev("--help").stdout, re.MULTILINE))


def test_every_command_of_the_readme_exists() -> None:
    said = set(re.findall(r"python3 dev\.py (\w+)", README))
    assert {"demo", "test", "wheels"} <= said <= commands()


def test_every_set_of_the_readme_is_an_extra_and_every_extra_has_its_line() -> None:
    extras = set(tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]) - {"dev"}
    assert set(re.findall(r"(?:`nvcore|, `)\[([\w-]+)\]", README)) == extras


def test_make_is_an_alias_for_every_command() -> None:
    targets = re.search(r"^([a-z ]+):\n", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    assert set(targets.group(1).split()) == commands()


def test_an_unknown_command_is_a_usage_error() -> None:
    done = dev("nonsense")
    assert done.returncode == 2
    assert "no command 'nonsense'" in done.stderr and "demo" in done.stderr
