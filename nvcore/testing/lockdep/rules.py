"""The rules of the lock validator by name, and the one place where a broken rule is reported.

Owns the table of rules (L1 to L9), the record of violations of this process and the choice between raising (tests) and logging once
(production, `NVCORE_LOCKDEP=log`). Must never take a validated lock. Runs in the thread that broke the rule.
Source: the rules follow Linux's lockdep and dma-fence annotations (lib: kernel/locking/lockdep.c, drivers/dma-buf/dma-fence.c, 7.3).
"""

from __future__ import annotations

import os
from typing import Final

from nvcore.api.errors import LockRuleError

__all__ = ["RAISE", "RULES", "RuleBroken", "broken", "forget", "violations"]

RAISE: Final = os.environ.get("NVCORE_LOCKDEP", "") != "log"
"""Whether a broken rule raises at once; otherwise it is logged once per rule and place."""

RULES: Final[dict[str, str]] = {
    "L1.self": "a lock is taken again by its holder",
    "L1.nesting": "two locks of one class are held together without a subclass",
    "L1.leaf": "a lock is taken under a leaf lock",
    "L1.ww-context": "reservation locks are held together without one acquire context",
    "L1.ww-two-contexts": "two acquire contexts are open in one thread or task",
    "L2.owner": "a lock is released by a thread or task that does not hold it",
    "L3.cycle": "two orders of locks contradict each other",
    "L4.pseudo": "a copy from or to client memory, or its memory-map lock, in a place that must not fault",
    "L5.reservation-in-path": "a reservation lock is taken between a fence's publication and its signal",
    "L6.wait-in-path": "a fence is waited for between a fence's publication and its signal",
    "L6.unbalanced": "a section is left by a thread or task that did not enter it",
    "L7.sleep": "something that may sleep runs in a section that must not",
    "L7.not-held": "a lock that must be held is not",
    "L7.held": "a lock is held where none may be",
    "L8.allocation": "an allocation in a section that must not allocate, without a reserve",
    "L8.import": "a module is imported in a section that must not allocate",
    "L8.open": "a file or socket is opened in a section that must not allocate",
    "L8.count": "descriptors or threads grew in number over a signalling section",
    "L8.over-use": "more was drawn from a reserve than it holds",
    "L8.under-use": "a reserve that had to be used up was not",
    "L9.never-signalled": "a published fence was never signalled",
    "L9.twice": "a fence is signalled or published twice",
    "L9.can-fail": "a fence is published whose job can still fail",
    "L9.cycle": "fences wait for each other",
}
"""Name of a rule to what breaks it."""


class RuleBroken(LockRuleError):
    """One broken rule. `rule` is its name in RULES; `seen` and `expected` hold the two places as text."""

    def __init__(self, rule: str, detail: str, *, now: str, before: str | None = None) -> None:
        super().__init__(f"{rule}: {RULES[rule]}: {detail}", expected=before, seen=now)
        self.rule = rule


_violations: list[RuleBroken] = []
_logged: set[str] = set()


def violations() -> list[RuleBroken]:
    """What was broken in this process so far, oldest first (also what a caller's `except` has swallowed)."""
    return list(_violations)


def forget(error: RuleBroken) -> None:
    """Take an expected violation off the record."""
    if error in _violations:
        _violations.remove(error)


def broken(rule: str, detail: str, *, now: str, before: str | None = None) -> None:
    """Report a broken rule: raises RuleBroken in tests; in production logs it once and returns."""
    error = RuleBroken(rule, detail, now=now, before=before)
    if RAISE:
        _violations.append(error)
        raise error
    key = f"{rule} {detail}"
    if key not in _logged:
        _logged.add(key)
        _violations.append(error)
        _LOG.error("%s", error)


if not RAISE:
    from logging import getLogger  # here, because a report may come from a section in which nothing may be imported

    _LOG = getLogger("nvcore.locks")
