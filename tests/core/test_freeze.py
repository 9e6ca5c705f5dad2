"""The freeze test: whoever holds whatever when a fence is published, the fence signals. And proof that the test can fail."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nvcore.api.errors import OutOfResources
from nvcore.api.events import ChannelFault
from nvcore.locks import LOCKDEP, Fence, Lock, LockLike
from nvcore.testing.freeze import Adversary
from tests.core.conftest import Rig, until

pytestmark = pytest.mark.skipif(not LOCKDEP, reason="publications are observed by the lock validator")


class Starved:
    """Makes the ledger, the device's DMA memory and the toys' tables fail."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.saved: list[tuple[object, str, object]] = []

    def __call__(self, on: bool) -> None:
        if not on:
            for owner, name, value in self.saved:
                setattr(owner, name, value)
            self.saved.clear()
            return

        def fail(*args: object, **kwargs: object) -> object:
            raise OutOfResources("the adversary has it all")

        for tenant in (self.rig.a.tenant, self.rig.b.tenant):
            self.saved.append((tenant.table, "_free", tenant.table._free))
            tenant.table._free = []
            self.saved.append((tenant.table, "prepare", tenant.table.prepare))
            tenant.table.prepare = fail  # type: ignore[assignment]
        self.saved.append((self.rig.fake, "allocate_dma", self.rig.fake.allocate_dma))
        self.rig.fake.allocate_dma = fail  # type: ignore[assignment]


def locks(rig: Rig) -> Sequence[LockLike]:
    return [rig.a.tenant.lock, rig.b.tenant.lock, rig.session.rpc_lock]


def test_every_published_fence_signals_while_an_adversary_holds_all_locks_and_memory(rig: Rig) -> None:
    rig.start()
    fences = []
    with Adversary(lambda: locks(rig), Starved(rig)) as adversary:
        for number in range(12):
            fences.append((rig.a if number % 2 else rig.b).tenant.bind(number, number))
            assert fences[-1].wait(5.0)
            adversary.thaw()
    assert adversary.stuck == [] and len(adversary.frozen) == 12
    assert all(fence.error is None for fence in fences)
    rig.doctor_ok()


def test_fences_get_their_error_while_the_adversary_holds_the_rpc_lock_and_the_channel_dies(rig: Rig) -> None:
    rig.settings.invalidate = 3.0
    rig.start()
    a, b = rig.a.tenant, rig.b.tenant
    rig.fake.faults.arm("stuck-invalidate")
    with Adversary(lambda: locks(rig), Starved(rig)) as adversary:
        fence = b.bind(0, 1)  # stuck in hardware: signalled by the fault alone
        rig.session.emit(ChannelFault(b.channel.channel, b.channel.engine, "mmu-fault", None, None))
        assert fence.wait(2.0) and fence.error is not None and "mmu-fault" in str(fence.error)
    assert adversary.stuck == []
    rig.running(2)
    until(lambda: a.bind(1, 1).wait(5.0), "works again")


def test_the_adversary_catches_a_job_that_takes_a_lock_it_holds(rig: Rig) -> None:
    rig.start()
    lock, fence = Lock("a-careless-job"), Fence("careless")
    with Adversary(lambda: [lock], lambda on: None, limit=0.2) as adversary:
        fence.publish()
        with lock:  # waits until the adversary gives up
            fence.signal()
    assert adversary.stuck == ["careless"]
