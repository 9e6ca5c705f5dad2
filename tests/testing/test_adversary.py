"""The freeze test's adversary says where it was none."""

from __future__ import annotations

import pytest

from nvcore.locks import LOCKDEP, Fence, Lock
from nvcore.testing.freeze import Adversary


@pytest.mark.skipif(not LOCKDEP, reason="by design: publications are observed by the lock validator, which is off")
@pytest.mark.parametrize("kept", [False, True])
def test_a_lock_that_the_publisher_keeps_is_told_because_nothing_was_proved_of_it(kept: bool) -> None:
    lock, fence = Lock("kept by the publisher"), Fence("published")
    with Adversary(lambda: [lock], lambda on: None, limit=0.3) as adversary:
        if kept:
            with lock:
                fence.publish()
                fence.signal()
        else:
            fence.publish()
            fence.signal()
    assert adversary.frozen == ["published"]
    assert adversary.stuck == (["published: its publisher holds a lock that the adversary was to take"] if kept else [])
