"""Two toy tenants on one software GPU behind the real firmware backend: the freeze test, stuck invalidates, halts, a late answer.

Order is asserted on a virtual clock, which stands still unless a test moves it. What it costs in milliseconds is measured by tests/bench.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nvcore.api.errors import FirmwareDead, OutOfResources
from nvcore.api.events import Rung
from nvcore.locks import LOCKDEP, LockLike
from nvcore.testing.clock import VirtualClock
from nvcore.testing.freeze import Adversary
from tests.boots.rig import HALTS, Slot, SlotHost, Unfinished, differences, halt, leftovers, slot, until

LIMIT = 2.0  # T, of one invalidate


class Pair:
    """Two tenants on a running GPU, and the clock that both the host and the model live by."""

    def __init__(self, card: Slot, clock: VirtualClock, host: SlotHost) -> None:
        self.card, self.clock, self.host = card, clock, host
        self.inspector = card.inspector

    @property
    def a(self) -> Any:
        return self.host.a.tenant

    @property
    def b(self) -> Any:
        return self.host.b.tenant

    @property
    def session(self) -> Any:
        assert self.host.gpu.hardware is not None
        return self.host.gpu.hardware.session

    def moving(self, call: Callable[[], object], limit: float = 120.0) -> None:
        """Run `call` in a thread while the clock moves on."""
        moving(self.clock, call, limit)

    def running(self, generation: int) -> None:
        """Let the clock run until the GPU is up in `generation`."""
        end = self.clock.now() + 60.0
        while not (self.host.gpu.state.name == "running" and self.host.gpu.generation >= generation):
            assert self.clock.now() < end and self.host.gpu.state.name != "lost", f"{self.host.gpu.state.name}: {self.host.gpu.state.cause}"
            self.clock.advance(0.01)

    def halt_reaches_both(self) -> None:
        until(lambda: bool(self.a.faults and self.b.faults), "both are told")

    def works(self) -> None:
        """Both bind again, and host and device agree."""
        fences = [tenant.bind(4, 4) for tenant in (self.a, self.b)]
        until(lambda: all(fence.signalled for fence in fences), "both work again")
        assert all(fence.error is None for fence in fences)
        found: list[str] = []
        self.moving(lambda: found.extend(differences(self.host)))
        assert found == []


def moving(clock: VirtualClock, call: Callable[[], object], limit: float = 120.0, step: float = 0.01) -> None:
    """Run `call` in a thread while the clock moves on in steps of `step`."""
    problems: list[BaseException] = []

    def body() -> None:
        try:
            call()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=body, name="moving")
    thread.start()
    end = clock.now() + limit
    while thread.is_alive():
        assert clock.now() < end, "it does not end"
        clock.advance(step)
    if problems:
        raise problems[0]


@contextmanager
def two_tenants(folder: Path, clock: VirtualClock) -> Iterator[Pair]:
    with slot("ga100", "570.144", clock=clock) as card:
        host = card.host(folder, card.settings(invalidate=LIMIT, quiesce=5.0))
        moving(clock, host.host.start)
        try:
            assert host.gpu.state.name == "running", host.gpu.state.cause
            yield Pair(card, clock, host)
        finally:
            moving(clock, host.stop)
        assert host.gpu.unload_report is None or host.gpu.state.name == "released"
        assert leftovers(card.inspector.view()) == []


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with two_tenants(tmp_path, VirtualClock(100.0, limit=30.0)) as made:
        yield made


def fault_of(pair: Pair, tenant: Any) -> None:
    """The device stops the tenant's channel, as its host engine would for a bad address."""
    number = tenant.channel.channel
    with pair.card.card.lock:
        gsp = pair.card.card.model.gsp
        runlist = next(channel["runlist"] for channel in gsp.view()["channels"] if channel["chid"] == number)
        gsp.channel_fault(runlist, number, "mmu-fault", 0x1000)


class Starved:
    """No DMA memory and no toy table can be had."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._saved: list[tuple[Any, str, Any]] = []

    def __call__(self, on: bool) -> None:
        if not on:
            while self._saved:
                owner, name, value = self._saved.pop()
                setattr(owner, name, value)
            return

        def fail(*args: object, **kwargs: object) -> object:
            raise OutOfResources("the adversary has it all")

        device = self._pair.host.gpu.device
        for owner, name, value in [
            (device, "allocate_dma", fail),
            *((tenant.table, "_free", []) for tenant in (self._pair.a, self._pair.b)),
        ]:
            self._saved.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)


@pytest.mark.skipif(not LOCKDEP, reason="by design: publications are observed by the lock validator, which is off")
def test_every_published_fence_signals_while_an_adversary_holds_all_locks_and_memory(pair: Pair) -> None:
    def locks() -> Sequence[LockLike]:
        return [pair.a.lock, pair.b.lock, pair.session.port._command]

    fences = []
    with Adversary(locks, Starved(pair)) as adversary:
        for number in range(10):
            fences.append((pair.a if number % 2 else pair.b).bind(number, number))
            until(lambda: fences[-1].signalled, "a fence signals")
            adversary.thaw()
    assert adversary.stuck == [] and len(adversary.frozen) == 10
    assert all(fence.error is None for fence in fences)
    pair.works()


@pytest.mark.skipif(not LOCKDEP, reason="by design: publications are observed by the lock validator, which is off")
def test_a_fence_gets_its_error_while_the_adversary_holds_the_command_lock_and_the_channel_dies(pair: Pair) -> None:
    pair.host.a.hooks["quiesce"] = lambda: pair.inspector.disarm("stuck-invalidate")  # what a reset mends
    pair.inspector.arm("stuck-invalidate")
    with Adversary(lambda: [pair.a.lock, pair.b.lock, pair.session.port._command], Starved(pair)) as adversary:
        fence = pair.b.bind(0, 1)  # stuck in hardware: the fault alone can signal it
        fault_of(pair, pair.b)
        until(lambda: fence.signalled, "the fence signals")
        assert "mmu-fault" in str(fence.error)
        adversary.thaw()
    assert adversary.stuck == []
    pair.clock.advance(LIMIT + 0.1)  # the unit itself is still stuck
    pair.running(2)
    pair.works()


def test_a_stuck_invalidate_gives_both_tenants_errors_within_twice_its_limit(pair: Pair) -> None:
    a, b, clock = pair.a, pair.b, pair.clock
    pair.host.a.hooks["quiesce"] = lambda: pair.inspector.disarm("stuck-invalidate")  # what a reset mends
    started = clock.now()
    pair.inspector.arm("stuck-invalidate")
    fences = [a.bind(0, 1)]
    invalidator = pair.host.gpu.hardware.invalidator  # type: ignore[union-attr]
    until(lambda: invalidator.busy, "the first one is stuck")
    clock.advance(LIMIT * 0.75)
    fences.append(b.bind(0, 1))
    until(lambda: len(invalidator._pending) == 1, "the second one waits behind it")
    assert not any(fence.signalled for fence in fences)
    ends: dict[str, float] = {}
    for fence in fences:
        fence.add_callback(lambda done: ends.setdefault(done.name, clock.now()))
    clock.advance(LIMIT * 0.3)
    until(lambda: all(fence.signalled for fence in fences), "both signal")
    until(lambda: len(ends) == 2, "both callbacks")
    assert all(isinstance(fence.error, FirmwareDead) and "invalidate-timeout" in str(fence.error) for fence in fences)
    assert all(LIMIT <= end - started <= 2 * LIMIT for end in ends.values())
    pair.halt_reaches_both()
    told = [tenant.journal[0] for tenant in (a, b)]
    assert all(what == "on_fault" and when - started <= 2 * LIMIT for what, when in told)
    assert {tenant.faults[0].cause for tenant in (a, b)} == {"invalidate-timeout"}
    pair.running(2)
    pair.works()


@pytest.mark.parametrize("place", HALTS)
def test_a_firmware_that_halts_at_a_moment_of_an_update_leaves_no_fence_open(pair: Pair, place: str) -> None:
    clock = pair.clock
    work, started = Unfinished(pair.host), clock.now()
    halt(pair.host, place)
    until(lambda: len(work.ends) == 3, "all fences signal")
    assert all(isinstance(fence.error, FirmwareDead) for fence in work.fences)
    assert max(work.ends.values()) - started <= 2 * LIMIT
    assert work.stuck.poll() and (work.stuck.error is None) == (place == "invalidate")
    pair.halt_reaches_both()
    for tenant in (pair.a, pair.b):
        assert tenant.faults[0].rung is Rung.GPU
        assert tenant.journal[0][0] == "on_fault" and tenant.journal[0][1] - started <= 2 * LIMIT
    assert f"gsp-halt@{place}" in pair.inspector.faults_acted()
    pair.running(2)
    pair.works()


def test_one_answer_delayed_by_ten_seconds_delays_no_other_channels_fault(pair: Pair) -> None:
    a, b, clock = pair.a, pair.b, pair.clock
    pair.inspector.arm("rpc-delay:10")
    started = clock.now()
    ended: list[float] = []

    def slow() -> None:
        a.context.run(lambda: a.grant.create_space(), timeout=60.0)
        ended.append(clock.now())

    thread = threading.Thread(target=slow)
    thread.start()
    until(lambda: pair.session.waiting == 1, "the slow call waits")
    fault_of(pair, b)
    until(lambda: bool(b.journal), "told while the call waits")
    assert b.journal[0] == ("on_fault", started), "told at once"
    assert pair.session.waiting == 1 and ended == [], "and the call still waits"
    assert b.faults[0].rung is Rung.CHANNEL and b.faults[0].owner == "toy-b" and not a.faults
    assert not b.channel.alive and a.channel.alive and a.submit()
    clock.advance(9.9)
    assert ended == []
    clock.advance(0.2)
    thread.join(5.0)
    assert ended and started + 10.0 <= ended[0] <= started + 10.2
    until(lambda: any(event.kind == "recovery" for event in pair.host.host.events.since()), "b recovers")
    pair.works()
