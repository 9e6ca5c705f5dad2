"""Every problem code that anything of ours can show has a page for `nvcore explain`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [ROOT / "nvcore", *sorted(ROOT.glob("plugins/*/nvcore_*"))]
_CODE = re.compile(r"NVC-\d{4}")


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_code_in_a_package_has_a_page_there_or_in_the_core(package: Path) -> None:
    used = {code for path in package.rglob("*.py") for code in _CODE.findall(path.read_text("utf-8"))}
    assert used, "a package without any code would prove nothing"
    pages = {path.stem for folder in {package, PACKAGES[0]} for path in (folder / "explain").glob("*.md")}
    assert used <= pages, f"without a page: {sorted(used - pages)}"


@pytest.mark.parametrize("page", [p for package in PACKAGES for p in sorted((package / "explain").glob("*.md"))], ids=lambda p: p.stem)
def test_a_page_names_its_code_and_says_cause_and_remedy(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text.startswith(f"# {page.stem}: ")
    assert "## Cause" in text and "## What to do" in text
