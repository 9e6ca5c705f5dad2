"""Marks hold methods to their word while the validator is on, and are plain attributes while it is off."""

from __future__ import annotations

from typing import Protocol

import pytest

from nvcore.api.marks import LOCKDEP, follows, interrupt_safe, mark_of, may_sleep, signalling_safe
from nvcore.locks import Lock, allocate, might_wait
from nvcore.testing import expect_violation
from nvcore.testing.lockdep.rules import violations

on = pytest.mark.skipif(not LOCKDEP, reason="by design: the validator is off")


class Contract(Protocol):
    @may_sleep
    def prepare(self) -> None: ...

    @signalling_safe
    def commit(self) -> None: ...

    @interrupt_safe
    def wake(self) -> None: ...


@follows(Contract)
class Good:
    def __init__(self) -> None:
        self.lock = Lock("test.marks.leaf", leaf=True)

    def prepare(self) -> None:
        allocate("a table")

    def commit(self) -> None:
        with self.lock:
            pass

    def wake(self) -> None:
        with self.lock:
            pass


@follows(Contract)
class Bad:
    def __init__(self) -> None:
        self.lock = Lock("test.marks.sender")
        self.good = Good()

    def commit(self) -> None:
        allocate("a table")

    def wake(self) -> None:
        with self.lock:
            pass

    @signalling_safe
    def prepare(self) -> None:
        might_wait()

    @signalling_safe
    def calls_what_sleeps(self) -> None:
        self.good.prepare()


def test_an_implementation_has_the_marks_of_its_contract_unless_it_has_its_own() -> None:
    marks = [mark_of(method) for method in (Good.prepare, Good.commit, Good.wake, Bad.prepare, Good.__init__)]
    assert marks == ["may_sleep", "signalling_safe", "interrupt_safe", "signalling_safe", None]


@may_sleep
class AllOfIt(Protocol):
    @property
    def state(self) -> str: ...

    def prepare(self) -> None: ...

    @signalling_safe
    def commit(self) -> None: ...

    def _inner(self) -> None: ...


def test_the_mark_of_a_class_is_that_of_each_public_method_without_its_own() -> None:
    marks = [mark_of(value) for value in (AllOfIt.prepare, AllOfIt.commit, AllOfIt._inner, AllOfIt.state, AllOfIt)]
    assert marks == ["may_sleep", "signalling_safe", None, None, None]


def test_what_keeps_its_word_is_silent() -> None:
    good, known = Good(), violations()
    good.prepare()
    good.commit()
    good.wake()
    assert violations() == known


@on
@pytest.mark.parametrize(
    ("method", "rule"),
    [("commit", "L8.allocation"), ("wake", "L7.sleep"), ("prepare", "L6.wait-in-path"), ("calls_what_sleeps", "L7.sleep")],
)
def test_what_breaks_it_is_detected(method: str, rule: str) -> None:
    with expect_violation(rule):
        getattr(Bad(), method)()
