"""Properties of the virtual clock: order, completeness, and time that never runs back, for any set of sleepers, timers and moves."""

from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from nvcore.testing import VirtualClock

STEPS = st.integers(1, 8)


@settings(max_examples=40, deadline=None)
@given(
    sleepers=st.lists(st.lists(STEPS, min_size=1, max_size=3), min_size=1, max_size=3),
    timers=st.lists(STEPS, max_size=3),
    moves=st.lists(STEPS, min_size=1, max_size=5),
)
def test_everything_due_is_served_at_its_time_and_nothing_else(sleepers: list[list[int]], timers: list[int], moves: list[int]) -> None:
    clock = VirtualClock()
    served: list[float] = []
    guard = threading.Lock()
    stop = threading.Event()

    def note(when: float) -> None:
        with guard:
            assert clock.now() == when
            served.append(when)

    def body(steps: list[int]) -> None:
        due = 0
        for step in steps:
            due += step
            if clock.wait(stop, step):
                return
            note(due)

    expected = [float(when) for when in timers] + [float(sum(steps[: n + 1])) for steps in sleepers for n in range(len(steps))]
    for when in timers:
        clock.call_at(when, lambda when=when: note(when))  # type: ignore[misc]
    threads = [threading.Thread(target=body, args=(steps,)) for steps in sleepers]
    for thread in threads:
        thread.start()
    clock.wait_blocked(len(threads))
    try:
        for move in moves:
            clock.advance(move)
            assert served == sorted(when for when in expected if when <= clock.now())
        assert clock.now() == sum(moves)
    finally:
        stop.set()
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()
