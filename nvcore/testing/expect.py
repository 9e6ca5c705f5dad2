"""Expecting a broken lock rule in a test. Owns nothing; runs in the test's thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nvcore.locks import LOCKDEP
from nvcore.testing.lockdep.rules import RuleBroken, forget, violations

__all__ = ["expect_violation"]


@contextmanager
def expect_violation(rule: str) -> Iterator[None]:
    """The block must break `rule` (a name of `lockdep.rules.RULES`), in any thread, even if the error is caught there; nothing else.

    Raises AssertionError when it does not. Expected violations are taken off the record that fails a test at its end.
    """
    if not LOCKDEP:
        raise AssertionError(f"{rule} cannot be detected: the validator is off (NVCORE_LOCKDEP)")
    known = {id(error) for error in violations()}
    caught: RuleBroken | None = None
    try:
        yield
    except RuleBroken as error:
        caught = error
    new = [seen for seen in violations() if id(seen) not in known]
    for seen in new:
        if seen.rule == rule:
            forget(seen)
    rules = [seen.rule for seen in new]
    if rule not in rules:
        raise AssertionError(f"{rule} was not detected; seen: {rules or 'nothing'}") from caught
    if caught is not None and caught.rule != rule:
        raise caught
