"""The validator against a model of it: it speaks up exactly when an acquisition closes a cycle."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from nvcore.api.marks import LOCKDEP
from nvcore.locks import Lock, LockLike, might_wait, signalling
from nvcore.testing.lockdep.graph import isolated_graph
from nvcore.testing.lockdep.rules import RuleBroken, forget, violations
from nvcore.testing.lockdep.stack import task_stack

CLASSES = ("a", "b", "c", "d", "e")
PRIMED = {("user_copy", "reservation"), ("mmap", "reservation"), ("reservation", "reclaim"), ("reclaim", "fence")}
_numbers = itertools.count()


class Orders(RuleBasedStateMachine):
    """Locks of five classes, signalling sections and waits, by one task; the model keeps its own edges.

    The task is switched in for a step and out again behind it: between two steps hypothesis is at work on this thread, and whatever it
    opens or imports then is nothing that the task does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tag = f"model{next(_numbers)}"
        self.isolated = isolated_graph()
        self.isolated.__enter__()
        self.task = task_stack(self.tag)
        self.locks: dict[str, LockLike] = {name: Lock(f"{self.tag}.{name}") for name in CLASSES}
        self.held: list[str] = []
        self.edges: set[tuple[str, str]] = set()
        self.path = 0

    @initialize()
    def prime(self) -> None:
        self.edges = set(PRIMED)

    def teardown(self) -> None:
        self.isolated.__exit__(None, None, None)

    def reaches(self, start: str, goal: str) -> bool:
        seen, todo = {start}, [start]
        while todo:
            here = todo.pop()
            if here == goal:
                return True
            for a, b in self.edges:
                if a == here and b not in seen:
                    seen.add(b)
                    todo.append(b)
        return False

    def expect(self, wanted: str) -> bool:
        """Add the model's edges up to the first that closes a cycle; whether there is one."""
        for held in self.held:
            if (held, wanted) not in self.edges:
                if self.reaches(wanted, held):
                    return True
                self.edges.add((held, wanted))
        return False

    @rule(name=st.sampled_from(CLASSES))
    def acquire(self, name: str) -> None:
        if name in self.held:
            return
        with self.task:
            if self.expect(name):
                self.must_break("L3.cycle", lambda: self.locks[name].acquire())
            else:
                assert self.locks[name].acquire()
                self.held.append(name)

    @rule(name=st.sampled_from(CLASSES))
    def try_acquire(self, name: str) -> None:
        if name in self.held:
            return
        with self.task:
            assert self.locks[name].acquire(blocking=False)  # whatever the order: it cannot deadlock
            self.held.append(name)

    @precondition(lambda self: any(name != "fence" for name in self.held))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name in self.held if name != "fence"]))
        with self.task:
            self.locks[name].release()
        self.held.remove(name)

    @rule()
    def enter_path(self) -> None:
        with self.task:
            signalling().__enter__()
        self.path += 1
        if self.path == 1:
            self.held.append("fence")

    @precondition(lambda self: self.path > 0)
    @rule()
    def leave_path(self) -> None:
        with self.task:
            signalling().__exit__(None, None, None)
        self.path -= 1
        if self.path == 0:
            self.held.remove("fence")

    @rule()
    def wait(self) -> None:
        with self.task:
            if self.path:
                self.must_break("L6.wait-in-path", might_wait)
            elif self.expect("fence"):
                self.must_break("L3.cycle", might_wait)
            else:
                might_wait()

    def must_break(self, name: str, call: object) -> None:
        with pytest.raises(RuleBroken) as caught:
            call()  # type: ignore[operator]
        forget(caught.value)
        assert caught.value.rule == name


Orders.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestOrders = pytest.mark.skipif(not LOCKDEP, reason="by design: the validator is off")(Orders.TestCase)


@pytest.mark.skipif(not LOCKDEP, reason="by design: the validator is off")
def test_what_the_test_library_opens_between_two_steps_is_not_the_tasks_doing() -> None:
    orders, known = Orders(), violations()
    try:
        orders.prime()
        orders.enter_path()
        assert orders.held == ["fence"]
        with open(__file__, encoding="utf-8"):
            pass
        orders.leave_path()
        assert orders.held == [] and violations() == known
    finally:
        orders.teardown()
