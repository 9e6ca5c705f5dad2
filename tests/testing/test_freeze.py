"""The freeze test finds jobs that need the world to move, and passes those that brought all they need."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from nvcore.api.errors import ContractError
from nvcore.api.marks import LOCKDEP
from nvcore.locks import AcquireContext, Fence, Lock, Reserve, WwLock, allocate, signalling
from nvcore.locks.reserve import starved
from nvcore.testing.freeze import Freeze

on = pytest.mark.skipif(not LOCKDEP, reason="by design: the validator is off")


def submit(fence: Fence, reservation: WwLock, job: Callable[[], object]) -> threading.Thread:
    """Publish under the reservation lock, as a client does; the job runs in a thread made before."""
    go = threading.Event()

    def run() -> None:
        assert go.wait(5)
        try:
            job()
        except MemoryError:
            return
        if not fence.signalled:
            fence.signal()

    thread = threading.Thread(target=run)
    thread.start()
    with AcquireContext() as context:
        context.lock(reservation)
        fence.publish()
    threading.Event().wait(0.01)  # the adversaries have the locks by now
    go.set()
    return thread


@on
def test_a_job_with_its_own_reserve_and_leaf_lock_signals() -> None:
    reservation, leaf, fence, reserve = WwLock("bo"), Lock("freeze.leaf", leaf=True), Fence("bind"), Reserve(1)

    def job() -> None:
        with signalling(), leaf:
            reserve.draw("a table")

    with Freeze([reservation, Lock("freeze.rpc")]) as freeze:
        thread = submit(fence, reservation, job)
        thread.join(5)
    assert freeze.published == ["bind"]
    assert fence.signalled
    assert not reservation.locked()
    assert starved == []


@on
@pytest.mark.parametrize("need", ["rpc lock", "memory"])
def test_a_job_that_needs_a_lock_or_memory_is_named(need: str) -> None:
    reservation, rpc, fence = WwLock("bo"), Lock("freeze.rpc2"), Fence("bind")

    def job() -> None:  # not annotated: nothing but the freeze can find it
        if need == "memory":
            allocate("a table")
        else:
            with rpc:
                pass

    with pytest.raises(AssertionError, match="not signalled while frozen: bind"), Freeze([reservation, rpc], limit=0.2):
        thread = submit(fence, reservation, job)
    thread.join(5)
    assert starved == []
    if not fence.signalled:
        fence.signal()


@pytest.mark.skipif(LOCKDEP, reason="by design: the validator is on")
def test_without_the_validator_it_says_what_it_needs() -> None:
    with pytest.raises(ContractError, match="NVCORE_LOCKDEP"):
        Freeze([])
