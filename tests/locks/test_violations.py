"""Each way to break a lock rule is detected under its name; its correct twin stays silent."""

from __future__ import annotations

import pytest

from nvcore.api.errors import LockRuleError
from nvcore.api.marks import LOCKDEP
from nvcore.testing import expect_violation
from nvcore.testing.lockdep.graph import isolated_graph
from nvcore.testing.lockdep.rules import RULES, violations
from nvcore.testing.lockdep.stack import task_stack

from . import violations_order, violations_section
from .violations import TABLE, Row

pytestmark = pytest.mark.skipif(not LOCKDEP, reason="by design: the validator is off")


@pytest.mark.parametrize(("name", "rule", "violation"), [row[:3] for row in TABLE], ids=[row[0] for row in TABLE])
def test_detected(name: str, rule: str, violation: Row) -> None:
    with isolated_graph(), task_stack(name) as stack, expect_violation(rule), pytest.raises(LockRuleError, match=f"^{rule}: ") as caught:
        violation(f"bad.{name}")
    assert caught.value.code == "NVC-6001"
    assert violation.__code__.co_filename.rpartition("/")[2] + ":" in str(caught.value)  # the place, as file and line
    assert (stack.held, stack.signalling, stack.atomic, stack.reserve, stack.context) == ([], 0, 0, None, None)


@pytest.mark.parametrize(("name", "twin"), [(row[0], row[3]) for row in TABLE], ids=[row[0] for row in TABLE])
def test_twin_is_silent(name: str, twin: Row) -> None:
    before = violations()
    with isolated_graph(), task_stack(name) as stack:
        twin(f"good.{name}")
    assert violations() == before
    assert (stack.held, stack.signalling, stack.atomic, stack.reserve, stack.context) == ([], 0, 0, None, None)


def test_every_rule_has_a_row() -> None:
    assert {row[1] for row in TABLE} == set(RULES)
    assert {row[2].__module__ for row in TABLE} == {violations_order.__name__, violations_section.__name__}
