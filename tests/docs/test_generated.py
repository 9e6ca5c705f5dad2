"""Parts of the documents that are made from code say what the code says; links lead somewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from nvcore_softgpu.conventions import CONVENTIONS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(r"(<!-- conventions: [^\n]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)


def conventions() -> str:
    rows = [f"| {row.what} | {row.value} | {row.why} |" for row in CONVENTIONS]
    return "\n".join(["| what | value | why |", "|---|---|---|", *rows]) + "\n"


def test_the_table_of_model_conventions_is_the_code_s() -> None:
    path = ROOT / "docs" / "status.md"
    text = path.read_text()
    found = _BLOCK.search(text)
    assert found
    if os.environ.get("NVCORE_UPDATE_GOLDEN"):
        path.write_text(_BLOCK.sub(lambda match: match[1] + conventions() + match[3], text))
        return
    assert found[2] == conventions()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_of_the_repository(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_named_in_backquotes_exist(path: Path) -> None:
    for name in re.findall(r"`((?:tests|nvcore|plugins|devtools|docs)/[\w./]+)`", path.read_text()):
        assert (ROOT / name).exists(), f"{path.name} names {name}"
