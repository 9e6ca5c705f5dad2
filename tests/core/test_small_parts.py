"""Events, the interrupt tree, the invalidate unit and workers, each alone."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from queue import SimpleQueue

import pytest

from nvcore.api.clock import SYSTEM
from nvcore.api.errors import ContractError, DeviceGone, UsageError, WaitTimeout
from nvcore.events import EventLog
from nvcore.gpu import threads
from nvcore.gpu.interrupts import InterruptTree
from nvcore.gpu.invalidate import Gate, Invalidator, TicketRing
from nvcore.gpu.threads import Worker
from nvcore.hw import interrupts as hw
from nvcore.hw.mmu import INVALIDATE, INVALIDATE_PDB, INVALIDATE_PDB_HIGH
from nvcore.hw.register import Field, Register
from nvcore.testing.clock import VirtualClock
from tests.core.conftest import Rig, until

ENDS = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()]
ENDINGS = pytest.mark.parametrize("raised", ENDS, ids=lambda error: type(error).__name__)


class Registers:
    """Registers that remember; INVALIDATE is busy for as long as `busy`."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}
        self.writes: list[tuple[int, int]] = []
        self.busy = False
        self.gone = False

    def read32(self, offset: int) -> int:
        if self.gone:
            return 0xFFFFFFFF
        value = self.values.get(offset, 0)
        return value & ~(1 << 31) | (self.busy << 31) if offset == INVALIDATE.OFFSET else value

    def write32(self, offset: int, value: int) -> None:
        self.values[offset] = value
        self.writes.append((offset, value))


# events


def test_events_are_numbered_without_holes_and_kept_in_a_ring() -> None:
    log = EventLog(VirtualClock(5.0), ring=4, wall=lambda: 7.0)
    for number in range(6):
        log.publish("state", f"event {number}", gpu="g")
    assert [event.sequence for event in log.since()] == [3, 4, 5, 6] and log.since(5)[0].text == "event 5"
    assert (log.since()[0].time, log.since()[0].wall, log.last) == (5.0, 7.0, 6)


def test_a_slow_subscriber_loses_its_own_oldest_and_is_told_how_many() -> None:
    log = EventLog()
    slow, fast = log.subscribe(limit=3), log.subscribe()
    for number in range(10):
        log.publish("state", str(number))
    assert [event.text for event in fast.drain()] == [str(n) for n in range(10)]
    events = slow.drain()
    assert events[0].kind == "lost-events" and events[0].text.startswith("7 events lost") and events[0].sequence == 7
    assert [event.text for event in events[1:]] == ["7", "8", "9"]
    log.publish("state", "next")
    assert [event.text for event in slow.drain()] == ["next"]
    slow.close()
    log.publish("state", "after")
    assert slow.drain() == [] and [event.text for event in fast.wait(1.0)] == ["next", "after"]


def test_subscribers_are_filtered_by_kind_and_owner() -> None:
    log = EventLog()
    faults = log.subscribe(kinds=["fault"], owners=["toy-a"])
    log.publish("fault", "theirs", owner="toy-b")
    log.publish("state", "no", owner="toy-a")
    log.publish("fault", "mine", owner="toy-a")
    log.publish("fault", "mine too", owner="toy-a")
    assert [event.text for event in faults.drain()] == ["mine", "mine too"]
    assert faults.wait(0.01) == []


def test_many_threads_publish_in_one_order() -> None:
    log = EventLog()
    seen = log.subscribe(limit=10_000)
    threads = [threading.Thread(target=lambda: [log.publish("state", "x") for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.sequence for event in seen.drain()] == list(range(1, 801))


# interrupts


def test_a_vector_is_counted_to_each_of_its_owners_and_no_one_else(rig: Rig) -> None:
    rig.start()
    a, b = rig.a.tenant.grant, rig.b.tenant.grant
    one, two, other = a.interrupt("COPY0"), b.interrupt("COPY0"), b.interrupt("COPY1")
    rig.fake.raise_vector(1)

    def count(line: object) -> int:
        try:
            return os.eventfd_read(line.fd)  # type: ignore[attr-defined]
        except BlockingIOError:
            return 0

    totals = [0, 0]

    def both() -> bool:
        totals[0], totals[1] = totals[0] + count(one), totals[1] + count(two)
        return totals == [1, 1]

    until(both, "both owners of the vector")
    assert count(other) == 0
    one.close()
    rig.fake.raise_vector(1)
    until(lambda: count(two) == 1, "the other owner goes on")
    with pytest.raises(UsageError):
        rig.gpu.hardware.tree.route(8 * 32)


def test_a_storm_of_a_vector_that_nobody_asked_for_never_reaches_the_host(rig: Rig) -> None:
    rig.start()
    rig.fake.raise_vector(40)
    assert not rig.fake._message_due()


def test_a_vector_is_enabled_for_its_owners_alone_but_the_firmwares_always() -> None:
    registers = Registers()
    tree = InterruptTree(registers, 8)

    def written(since: str) -> list[tuple[int, int]]:
        """Writes to enables since the last look."""
        seen, registers.writes = registers.writes, []
        return [write for write in seen if hw.LEAF_ENABLE_SET.OFFSET <= write[0] < hw.TOP.OFFSET]

    leaf_0, leaf_1 = hw.LEAF_ENABLE_SET.OFFSET, hw.LEAF_ENABLE_SET.OFFSET + hw.LEAF_ENABLE_SET.STRIDE
    clear_0 = hw.LEAF_ENABLE_CLEAR.OFFSET
    one = tree.route(5)
    assert written("before the first opening") == []
    tree.open(firmware=33)
    assert [write for write in written("opening") if write[0] < clear_0] == [(leaf_0, 1 << 5), (leaf_1, 1 << 1)]
    two = tree.route(5)
    tree.drop(5, one)
    assert not any(offset >= clear_0 for offset, _ in written("one of two owners left"))
    tree.drop(5, two)
    assert written("the last one left") == [(clear_0, 1 << 5)]
    tree.drop(33, tree.route(33))
    assert not any(offset >= clear_0 for offset, _ in written("a client of the firmware's vector left"))
    tree.mask_all()
    tree.drop(5, tree.route(5))
    assert written("held back") == []
    tree.open(firmware=33)
    assert [write for write in written("opening again") if write[0] < clear_0] == [(leaf_1, 1 << 1)]
    with pytest.raises(UsageError):
        tree.route(8 * 32)


def test_a_tree_that_reads_as_error_pattern_says_that_the_device_is_gone() -> None:
    registers = Registers()
    tree = InterruptTree(registers, 8)
    tree.open()
    registers.gone = True
    with pytest.raises(DeviceGone):
        tree.service()


# invalidate


class Unit:
    """An invalidate unit whose first fault closes the gate of its generation."""

    def __init__(self, clock: VirtualClock, registers: Registers) -> None:
        self.causes: list[str] = []
        self.gate = Gate(1)
        self.invalidator = Invalidator(registers, clock, self._meet, 2.0, lambda: None)

    def _meet(self, cause: str) -> None:
        self.causes.append(cause)
        self.gate.close(cause)

    def ring(self) -> TicketRing:
        return TicketRing(self.invalidator, self.gate)


def test_an_idle_unit_finishes_an_invalidate_of_one_directory_at_once() -> None:
    registers = Registers()
    unit = Unit(VirtualClock(), registers)
    ticket = unit.invalidator.start(unit.ring(), 0x12_3456_7000)
    assert ticket.done and ticket.error is None and not unit.invalidator.busy
    assert registers.values[INVALIDATE_PDB.OFFSET] == 0x12345670
    assert registers.values[INVALIDATE_PDB_HIGH.OFFSET] == 0
    assert INVALIDATE(registers.values[INVALIDATE.OFFSET]).all_directories == 0


def test_waiting_tickets_share_one_invalidate_and_a_space_never_has_two_pending() -> None:
    registers, clock = Registers(), VirtualClock()
    unit = Unit(clock, registers)
    invalidator, causes, rings = unit.invalidator, unit.causes, [unit.ring() for _ in range(3)]
    registers.busy = True
    first = invalidator.start(rings[0], 0x1000)
    again = invalidator.start(rings[0], 0x1000)
    others = [invalidator.start(ring, 0x2000) for ring in rings[1:]]
    assert first is again and not any(ticket.done for ticket in (first, *others))
    assert [offset for offset, _ in registers.writes] == [], "nothing is triggered behind a busy unit"
    registers.busy = False
    assert first.poll() or first.poll()
    assert all(ticket.done and ticket.error is None for ticket in (first, *others)) and causes == []
    triggers = [INVALIDATE(value) for offset, value in registers.writes if offset == INVALIDATE.OFFSET]
    assert len(triggers) == 1 and triggers[0].all_directories == 1


def test_a_time_out_fails_tickets_in_flight_and_pending_once_and_later_ones_at_once() -> None:
    registers, clock = Registers(), VirtualClock()
    unit = Unit(clock, registers)
    invalidator, causes, one, two = unit.invalidator, unit.causes, unit.ring(), unit.ring()
    registers.busy = True
    first = invalidator.start(one, 0x1000)
    clock.advance(1.9)
    second = invalidator.start(two, 0x2000)
    assert not first.poll() and not second.poll()
    clock.advance(0.2)
    assert second.poll() and first.done and first.error == second.error and first.error.startswith("invalidate-timeout")
    late = invalidator.start(one, 0x1000)
    assert late.done and late.error == first.error and len(causes) == 1
    registers.busy = False
    unit.gate = Gate(2)
    assert invalidator.start(unit.ring(), 0x1000).error is None and invalidator.start(one, 0x1000).error == first.error


def test_a_dead_bus_is_no_busy_unit() -> None:
    registers = Registers()
    unit = Unit(VirtualClock(), registers)
    registers.gone = True
    ticket = unit.invalidator.start(unit.ring(), 0x1000)
    assert ticket.done and ticket.error.startswith("device-gone") and unit.causes == [ticket.error]


# workers


def test_a_job_that_hangs_is_abandoned_and_a_fresh_thread_runs_the_next() -> None:
    worker, release = Worker("w", SYSTEM), threading.Event()
    with pytest.raises(WaitTimeout):
        worker.call(lambda: release.wait(10.0), "the hanging job", 0.05, abandon=True)
    assert worker.call(lambda: 42, "the next", 2.0) == 42 and worker.abandoned == ("the hanging job",)
    release.set()
    assert worker.stop(2.0)
    assert worker.post(lambda: 1, "too late").error is not None


def test_jobs_behind_one_that_hangs_are_run_by_its_successor_and_one_that_gave_up_waiting_is_not_run() -> None:
    worker, began, release, ran = Worker("w", SYSTEM), threading.Event(), threading.Event(), list[str]()

    def hangs() -> None:
        began.set()
        release.wait(10.0)

    def waits() -> None:
        with pytest.raises(WaitTimeout):
            worker.call(hangs, "hangs", 0.5, abandon=True)

    hanging = threading.Thread(target=waits)
    hanging.start()
    assert began.wait(5.0)
    behind = worker.post(lambda: ran.append("behind"), "behind")
    with pytest.raises(WaitTimeout):
        worker.call(lambda: ran.append("late"), "gave up", 0.05, abandon=True)
    assert worker.abandoned == () and not behind.done.is_set(), "a job that never started costs no thread"
    hanging.join(5.0)
    assert worker.call(lambda: "alive", "asks", 2.0) == "alive"
    assert ran == ["behind"] and worker.abandoned == ("hangs",)
    release.set()
    assert worker.stop(2.0)


def test_a_job_that_ends_while_it_is_abandoned_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, release = Worker("abandoned as it ends", SYSTEM), threading.Event()

    def queue() -> SimpleQueue[object]:
        release.set()  # it ends after it was found hanging, before its successor is there
        time.sleep(0.05)
        return SimpleQueue()

    monkeypatch.setattr(threads, "SimpleQueue", queue)
    with pytest.raises(WaitTimeout):
        worker.call(lambda: release.wait(10.0), "the hanging job", 0.05, abandon=True)
    assert worker.call(lambda: 42, "the next", 2.0) == 42 and worker.abandoned == ("the hanging job",)
    assert worker.stop(2.0)
    until(lambda: not any(thread.name == worker.name for thread in threading.enumerate()), "both threads ended")


@ENDINGS
def test_a_job_that_raises_whatever_ends_no_thread_and_nobody_who_waits(raised: BaseException) -> None:
    errors: list[str] = []
    worker = Worker("w", SYSTEM, lambda what, error: errors.append(f"{what}: {type(error).__name__}"))

    def ends() -> None:
        raise raised

    worker.post(lambda: 1 // 0, "divides")
    worker.post(ends, "ends")
    with pytest.raises(ContractError) as seen:
        worker.call(ends, "the job", 2.0)
    assert seen.value.what == f"the job raised {type(raised).__name__}: {raised}".removesuffix(": ")
    assert seen.value.__cause__ is raised and raised.__traceback__ is not None
    assert worker.call(lambda: "alive", "asks", 2.0) == "alive"
    assert errors == ["divides: ZeroDivisionError", f"ends: {type(raised).__name__}"]
    worker.stop(2.0)


# registers


@pytest.mark.parametrize("name", ["address", "read", "write", "replace", "raw", "OFFSET"])
def test_a_field_that_would_hide_what_every_register_has_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match=f"would hide Register.{name}"):
        type("HIDING", (Register,), {name: Field(0, 0, "a bit")}, offset=0x10)
    assert type("PLAIN", (Register,), {f"{name}_": Field(0, 0, "a bit")}, offset=0x10).FIELDS
