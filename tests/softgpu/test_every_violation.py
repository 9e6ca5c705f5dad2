"""This wrong step gives this violation: for every name that the model can report, and every name in its sources is in the table."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import nvcore_softgpu
from nvcore_softgpu.violations import VIOLATIONS
from tests.softgpu import wrong_boots, wrong_messages, wrong_work

CASES = [*wrong_boots.CASES, *wrong_messages.CASES, *wrong_work.CASES]
REPORTERS = {"violation", "report", "_violation", "outside", "BootRefusal"}
"""What the model's code calls to say that something is wrong, with the name of the violation among the first two arguments."""
SPELT = {"{self.name}-fault": ("bar1-fault", "bar2-fault"), "{refusal}": ()}
"""Names that are put together: how, and what they can be. The second repeats a refusal by its own name."""


@pytest.mark.parametrize(("name", "hint", "run"), CASES, ids=[f"{name}-{hint}".replace(" ", "_") for name, hint, _ in CASES])
def test_a_wrong_step_gives_its_violation(name, hint, run):
    said = run()
    assert any(text.startswith(f"{name}: ") and hint in text for text in said), said


def names_in(tree: ast.AST) -> Iterator[str]:
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        called = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""
        if called not in REPORTERS:
            continue
        for argument in call.args[:2]:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value
                break
            if isinstance(argument, ast.JoinedStr):
                text = ast.unparse(argument)
                yield from next(names for spelling, names in SPELT.items() if spelling in text)
                break


def test_every_name_in_the_sources_is_in_the_table():
    folder = Path(nvcore_softgpu.__file__).parent
    found = {name for path in folder.rglob("*.py") for name in names_in(ast.parse(path.read_text("utf-8")))}
    assert len(found) > 150
    assert found == {name for name, _, _ in CASES}


def test_every_name_is_listed_once_with_its_meaning():
    listed = [rule.name for rule in VIOLATIONS]
    assert sorted(listed) == sorted({name for name, _, _ in CASES})
    assert all(rule.meaning and rule.place for rule in VIOLATIONS)
