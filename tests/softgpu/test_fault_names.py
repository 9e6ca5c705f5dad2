"""Every fault that `nvcore softgpu faults` lists is armed by name in a test, and the tests arm no name that it does not list.

Read from the tests' sources: a name counts where it stands in code that calls `arm`, or in the source of a device (`&fault=NAME`), or in a
table of cases beside such code; words in docstrings and comments do not count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from nvcore_softgpu.faults import FAULTS

TESTS = Path(__file__).resolve().parents[1]
ARMS = re.compile(r"\.arm\(|&fault=|faults=")


def texts(tree: ast.AST) -> Iterator[str]:
    """String constants outside docstrings; of an f-string its beginning, continued by each constant of the function around it."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value
        if isinstance(node, ast.FunctionDef):
            inside = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            for joined in (one for one in ast.walk(node) if isinstance(one, ast.JoinedStr)):
                first = joined.values[0]
                if isinstance(first, ast.Constant) and str(first.value).endswith("@"):
                    yield from (f"{first.value}{word}" for word in inside)


@cache
def armed() -> dict[str, set[str]]:
    """Fault name to the files of tests in which it stands."""
    found: dict[str, set[str]] = {row.name: set() for row in FAULTS}
    for path in TESTS.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if path == Path(__file__).resolve() or not ARMS.search(source):
            continue
        for text in texts(ast.parse(source)):
            for one in re.split(r"&fault=", text):
                name = one.partition(":")[0].partition("&")[0]
                if name in found:
                    found[name].add(str(path.relative_to(TESTS)))
    return found


@pytest.mark.parametrize("name", [row.name for row in FAULTS])
def test_a_fault_appears_in_a_test(name: str) -> None:
    assert armed()[name], f"no test arms {name}"


def test_the_search_finds_code_and_no_words() -> None:
    code = ['def f(place="boot"):', '    """rpc-delay"""', '    gpu.arm("mmu-fault")', '    gpu.arm(f"gsp-halt@{place}")']
    tree = ast.parse("\n".join(['"""gsp-halt"""', *code]))
    found = set(texts(tree))
    assert {"mmu-fault", "gsp-halt@boot"} <= found and not {"gsp-halt", "rpc-delay"} & found
