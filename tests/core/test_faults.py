"""The ladder: order, attribution, each rung once, hung clients, dead firmware, stuck invalidates. On a virtual clock where time matters."""

from __future__ import annotations

import random
import threading
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nvcore.api.errors import ContractError, FirmwareDead, LeaseRevoked
from nvcore.api.events import ChannelFault, FirmwareEvent, FirmwareMessage, Rung, VgpuPluginEvent
from nvcore.api.grant import GrantRequest
from nvcore.gpu.invalidate import TicketRing
from nvcore.locks import Fence
from nvcore.testing.clock import VirtualClock
from tests.core.conftest import Rig, until


def channel_fault(rig: Rig, tenant: object, *, function: int | None = None, engine: str | None = None) -> None:
    channel = tenant.channel  # type: ignore[attr-defined]
    rig.session.emit(ChannelFault(channel.channel, engine or channel.engine, "mmu-fault", function, 0x1000, "at 0x1000"))


@pytest.fixture
def virtual(rig: Rig) -> Iterator[tuple[Rig, VirtualClock]]:
    """The rig on a clock that the test moves."""
    clock = VirtualClock(100.0)
    rig.clock = clock
    yield rig, clock


def recovered(rig: Rig, times: int = 1) -> None:
    until(lambda: sum(event.kind == "recovery" for event in rig.host.events.since()) >= times, "recovery")


def told(tenant: object) -> list[str]:
    return [what for what, _ in tenant.journal]  # type: ignore[attr-defined]


def test_a_channel_fault_reaches_its_owner_and_neighbours_keep_running(rig: Rig) -> None:
    rig.start()
    a, b = rig.a.tenant, rig.b.tenant
    old = a.channel
    channel_fault(rig, a)
    recovered(rig)
    assert told(a) == ["on_fault", "quiesce channel-fault", "resume kept 1"]
    assert a.faults[0].rung is Rung.CHANNEL and a.faults[0].owner == "toy-a" and a.faults[0].channel == old.channel
    assert not old.alive and not old.doorbell.ring() and rig.fake.doorbells == []
    assert a.channel.alive and a.submit()
    assert told(b) == [] and b.submit() and b.bind(0, 1).wait(5.0)
    events = [event for event in rig.host.events.since() if event.kind in ("fault", "recovery")]
    assert [event.kind for event in events] == ["fault", "recovery"]
    assert events[0].grant == a.grant.name and events[0].owner == "toy-a" and events[0].fault is a.faults[0]
    assert rig.gpu.state.name == "running" and rig.gpu.generation == 1
    rig.doctor_ok()


def test_firmware_that_names_no_guest_is_understood_by_channel_id(rig: Rig) -> None:
    rig.start()
    b = rig.b.tenant
    free = b.grant.channels[0].end - 1  # an id of b's run, of a channel that the core never made: a guest's
    rig.session.emit(ChannelFault(free, None, "rc", None, None))
    recovered(rig)
    assert told(rig.a.tenant) == [] and b.channel.alive


def test_firmware_that_names_the_wrong_guest_escalates(rig: Rig) -> None:
    rig.start()
    channel_fault(rig, rig.a.tenant, function=3)
    rig.running(2)
    assert rig.a.tenant.faults[0].cause == "attribution-conflict" and rig.a.tenant.faults[0].rung is Rung.GPU
    rig.doctor_ok()


def test_a_late_fault_of_nobodys_channel_is_logged_and_ignored(rig: Rig) -> None:
    rig.start()
    rig.session.emit(ChannelFault(400, None, "rc", None, None))
    rig.session.emit(FirmwareMessage("xid-31", "words"))
    until(lambda: any(event.action == "ignored" for event in rig.host.events.since()), "ignored")
    assert rig.gpu.generation == 1 and told(rig.a.tenant) == told(rig.b.tenant) == []


def test_a_channel_that_cannot_be_stopped_costs_its_grant_a_reset_and_no_neighbour(rig: Rig) -> None:
    rig.start()
    a, b = rig.a.tenant, rig.b.tenant
    rig.fake.poke(a.grant.vram[0].start + 0x200000, b"secret")
    rig.fake.faults.arm("rpc-refuse:disable")
    channel_fault(rig, a)
    recovered(rig)
    assert told(a) == ["on_fault", "quiesce channel-fault", "on_fault", "quiesce grant-reset", "resume lost 2"]
    assert [fault.rung for fault in a.faults] == [Rung.CHANNEL, Rung.GRANT]
    assert a.grant.state == "live" and a.grant.generation == 2 and b.grant.generation == 1
    assert rig.fake.vram(a.grant.vram[0].start + 0x200000, 6) == bytes(6)
    assert told(b) == [] and b.submit() and rig.gpu.generation == 1
    fence = a.bind(1, 2)
    assert fence.wait(5.0) and fence.error is None
    rig.doctor_ok()


@pytest.mark.parametrize("moment", ["before the call", "in the call"])
def test_a_channel_that_its_owner_closes_meanwhile_costs_no_reset(rig: Rig, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.start()
    channel, family = rig.a.tenant.channel, rig.session.family("channel")
    where, what = (family, "disable") if moment == "in the call" else (type(rig.gpu.hardware), "family")
    step = getattr(where, what)

    def late(*args: object) -> object:
        monkeypatch.setattr(where, what, step)
        owner = threading.Thread(target=channel.close)
        owner.start()
        owner.join(5.0)
        if where is family:
            raise ContractError("the channel was freed")
        return step(*args)

    rig.a.hooks["quiesce"] = lambda: monkeypatch.setattr(where, what, late)
    channel_fault(rig, rig.a.tenant)
    recovered(rig)
    assert told(rig.a.tenant) == ["on_fault", "quiesce channel-fault", "resume kept 1"]
    assert rig.a.tenant.channel.alive
    rig.doctor_ok()


def test_a_reset_of_a_grant_begins_its_children_anew_too(rig: Rig) -> None:
    rig.start()
    a = rig.a.tenant
    parent = a.context.grant(GrantRequest("parent", vram=4 << 20, channels=4))
    child = parent.child(GrantRequest("child", vram=2 << 20, channels=2))
    lease, space = child.map(child.vram[0]), child.create_space()
    lease.write(0, b"secret")
    rig.gpu.ladder.meet_grant(parent, "test-fault")
    recovered(rig)
    assert (parent.generation, child.generation, child.state) == (2, 2, "live")
    assert not lease.valid and space.closed and rig.fake.vram(child.vram[0].start, 6) == bytes(6)
    rig.doctor_ok()


@pytest.mark.parametrize("moment", ["close-tenant", "scrub"])
@pytest.mark.parametrize("rung", [Rung.GRANT, Rung.GPU])
def test_a_grant_that_its_owner_gives_back_during_a_reset_costs_nothing_more(
    rig: Rig, moment: str, rung: Rung, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.start()
    grant = rig.a.tenant.context.grant(GrantRequest("given back", vram=4 << 20))
    grant.create_space()
    where, what = (grant.root, "close") if moment == "close-tenant" else (grant, "require_vram")
    step = getattr(where, what)

    def late(*args: object) -> object:
        monkeypatch.setattr(where, what, step)
        owner = threading.Thread(target=grant.release)
        owner.start()
        owner.join(5.0)
        return step(*args)

    monkeypatch.setattr(where, what, late)
    if rung is Rung.GRANT:
        rig.gpu.ladder.meet_grant(grant, "test-fault")
    else:
        rig.session.halt("dies")
        rig.running(2)
    until(lambda: grant.state == "released", "given back")
    rig.gpu.life.call(lambda: None, "idle", 10.0)
    assert rig.gpu.state.name == "running" and rig.gpu.generation == (1 if rung is Rung.GRANT else 2)
    rig.doctor_ok()


def test_each_rung_is_tried_once_until_the_gpu_is_lost(rig: Rig) -> None:
    rig.start()
    a, b = rig.a.tenant, rig.b.tenant
    rig.fake.faults.arm("rpc-refuse:disable")
    rig.fake.faults.arm("rpc-refuse:unset-pdb")
    channel_fault(rig, a)
    until(lambda: rig.gpu.generation == 3 and rig.gpu.state.name == "running", "GPU reset")
    assert [fault.rung for fault in a.faults] == [Rung.CHANNEL, Rung.GRANT, Rung.GPU]
    assert [fault.rung for fault in b.faults] == [Rung.GPU]
    assert told(b) == ["on_fault", "quiesce gpu-reset", "resume lost 3"]
    rig.session.halt("again")
    until(lambda: rig.gpu.state.name == "lost", "lost")
    assert told(b)[3:] == ["on_fault", "quiesce gpu-lost", "remove"]
    assert rig.gpu.ladder.counts[Rung.GPU] == 2 and rig.backend.sessions[2:] == []
    rig.host.retry("fake:one")
    assert rig.gpu.state.name == "running" and rig.gpu.generation == 4
    rig.session.halt("once more")
    rig.running(5)  # what an operator retried is a new incident


def test_a_gpu_that_has_run_for_a_while_after_a_reset_may_be_reset_again(virtual: tuple[Rig, VirtualClock]) -> None:
    rig, clock = virtual
    rig.start()
    for generation in (2, 3):
        rig.session.halt("dies")
        rig.running(generation)
        clock.advance(rig.settings.settle + 1)
    assert rig.gpu.state.name == "running"


def test_on_the_gpu_rung_hardware_is_disabled_before_anyone_is_told_and_firmware_is_not_asked(rig: Rig) -> None:
    rig.start()
    a = rig.a.tenant
    session, lease = rig.session, a.tables
    seen: list[object] = []
    rig.a.hooks["on_fault"] = lambda: seen.extend(
        [rig.fake.bus_master, a.submit(), lease.valid, rig.fake._top_enabled & 0xF, rig.b.tenant.submit()]
    )
    calls = len(session.calls)
    session.halt("dies")
    rig.running(2)
    assert seen == [False, False, False, 0, False]
    assert session.calls[calls:] == [] and rig.fake.log.index("bus master off") < rig.fake.log.index("unload of a dead firmware")
    assert told(a) == ["on_fault", "quiesce gpu-reset", "resume lost 2"]
    assert a.vram_kept[0] != "" and set(a.vram_kept[0]) == {"0"}
    assert a.grant.generation == 2 and a.submit()
    rig.doctor_ok()


def test_a_dead_firmware_is_asked_nothing_more_and_gives_its_first_cause(rig: Rig) -> None:
    rig.settings.quiesce = 2.0
    rig.start()
    a = rig.a.tenant
    errors: list[FirmwareDead] = []

    def ask() -> None:
        for call in (a.grant.create_space, lambda: a.space.unlink()):
            try:
                call()
            except FirmwareDead as error:
                errors.append(error)

    rig.a.hooks["quiesce"] = ask
    session, calls = rig.session, len(rig.session.calls)
    session.halt("first cause")
    rig.running(2)
    assert session.calls[calls:] == []
    assert len(errors) == 2 and all(error.seen == "firmware-halt" for error in errors)


def test_a_commit_on_a_dead_generation_returns_and_its_fence_gets_an_error(rig: Rig) -> None:
    rig.start()
    a = rig.a.tenant
    with a.lock:
        plan = a.table.prepare(5, 7)
    old_table = a.table
    rig.session.halt("dies")
    rig.running(2)
    ticket = old_table.commit(plan)
    assert ticket.done and ticket.error == "firmware-halt"


@pytest.mark.parametrize("way", ["reset", "take_down"])
def test_a_fault_that_an_operator_came_before_is_not_climbed_any_more(rig: Rig, way: str) -> None:
    release = threading.Event()
    rig.start()
    rig.gpu.life.post(lambda: release.wait(10.0), "keeps the life-cycle thread")
    rig.gpu.life.post(getattr(rig.gpu, way), "what an operator asked for")
    gate = rig.gpu.hardware.gate
    rig.session.halt("dies")
    until(lambda: not gate.open and any(event.kind == "fault" for event in rig.host.events.since()), "disabled")
    release.set()
    rig.gpu.life.call(lambda: None, "idle", 10.0)
    state, generation, boots = ("running", 2, 2) if way == "reset" else ("released", 1, 1)
    assert (rig.gpu.state.name, rig.gpu.generation, len(rig.backend.sessions)) == (state, generation, boots)


@pytest.mark.parametrize("kind", [KeyError, CancelledError])
def test_a_session_that_raises_when_it_is_declared_dead_keeps_no_gpu_from_its_reset(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    rig.start()
    declare_dead = rig.session.declare_dead

    def broken(cause: str) -> None:
        declare_dead(cause)
        raise kind("a bug")

    monkeypatch.setattr(rig.session, "declare_dead", broken)
    rig.gpu.ladder.meet_gpu("test-fault")
    rig.running(2)
    assert told(rig.a.tenant) == ["on_fault", "quiesce gpu-reset", "resume lost 2"]
    assert [event.action for event in rig.host.events.since() if event.kind == "fault"] == [
        f"GPU disabled, all owners told; session: {kind.__name__}: {kind('a bug')}"
    ]
    rig.doctor_ok()


def test_a_failed_restart_loses_the_gpu_with_both_causes(rig: Rig) -> None:
    rig.start()
    rig.fake.faults.arm("boot-fails:no power")
    rig.session.halt("dies")
    until(lambda: rig.gpu.state.name == "lost", "lost")
    assert "firmware-halt" in rig.gpu.state.cause and "did not start" in rig.gpu.state.cause
    assert not rig.fake.bus_master


def test_a_restart_that_leaves_less_memory_is_not_papered_over(rig: Rig) -> None:
    rig.start()
    rig.fake.faults.arm("inventory-differs")
    rig.session.halt("dies")
    until(lambda: rig.gpu.state.name == "lost", "lost")
    assert "other memory than before" in rig.gpu.state.cause


def test_whoever_finds_the_device_gone_loses_the_gpu_without_a_restart(rig: Rig) -> None:
    rig.start()
    rig.fake.leave()
    ticket = rig.a.tenant.space.invalidate()
    until(lambda: rig.gpu.state.name == "lost", "lost")
    assert ticket.done and ticket.error is not None
    assert rig.a.tenant.faults[0].rung is Rung.LOST and rig.a.tenant.faults[0].cause == "device-gone" and len(rig.backend.sessions) == 1


def test_one_reply_delayed_by_ten_seconds_delays_no_other_channels_fault(virtual: tuple[Rig, VirtualClock]) -> None:
    rig, clock = virtual
    rig.start()
    a, b = rig.a.tenant, rig.b.tenant
    rig.fake.faults.arm("rpc-delay:10,create-space")
    started = clock.now()
    ended: list[float] = []

    def slow() -> None:
        a.context.run(lambda: a.grant.create_space(), timeout=60.0)
        ended.append(clock.now())

    thread = threading.Thread(target=slow)
    thread.start()
    until(lambda: rig.session.waiting == 1, "the slow call waits")
    channel_fault(rig, b)
    until(lambda: "on_fault" in told(b), "told while the call waits")
    assert b.journal[0][1] == started and ended == [], "told at once, and the call still waits"
    assert not b.channel.alive
    for _ in range(12):
        clock.advance(1.0)
    thread.join(5.0)
    recovered(rig)
    assert ended and ended[0] >= started + 10.0


def test_a_stuck_invalidate_gives_both_tenants_errors_within_twice_its_limit(virtual: tuple[Rig, VirtualClock]) -> None:
    rig, clock = virtual
    rig.start()
    a, b = rig.a.tenant, rig.b.tenant
    limit, started = rig.settings.invalidate, clock.now()
    rig.fake.faults.arm("stuck-invalidate")
    fences = [a.bind(0, 1)]
    until(lambda: rig.gpu.hardware.invalidator.busy, "the first one is stuck")
    clock.advance(limit * 0.75)
    fences.append(b.bind(0, 1))
    until(lambda: len(rig.gpu.hardware.invalidator._pending) == 1, "the second one waits behind it")
    ends: dict[str, float] = {}
    for fence in fences:
        fence.add_callback(lambda done: ends.setdefault(done.name, clock.now()))
    assert not fences[0].signalled and not fences[1].signalled
    clock.advance(limit * 0.3)
    until(lambda: all(fence.signalled for fence in fences), "both signalled")
    assert all(isinstance(fence.error, FirmwareDead) and "invalidate-timeout" in str(fence.error) for fence in fences)
    assert all(end - started <= 2 * limit for end in ends.values())
    rig.running(2)
    assert {tenant.faults[0].cause for tenant in (a, b)} == {"invalidate-timeout"}
    again = [a.bind(0, 9), b.bind(0, 9)]
    assert all(fence.wait(5.0, clock) and fence.error is None for fence in again)
    rig.doctor_ok()


def test_an_invalidate_under_way_when_the_gpu_is_taken_down_fails(rig: Rig) -> None:
    rig.clients = []
    host = rig.start()
    hardware = rig.gpu.hardware
    rig.fake.faults.arm("stuck-invalidate")
    waiting = [hardware.invalidator.start(TicketRing(hardware.invalidator, hardware.gate), 0x1000) for _ in range(2)]
    assert not any(one.done for one in waiting)
    host.reset(rig.gpu.name)
    assert all(one.done and one.error == "an operator resets the GPU" for one in waiting)
    rig.doctor_ok()


def test_tables_freed_under_a_stuck_invalidate_stay_quarantined_until_reset(rig: Rig) -> None:
    rig.settings.invalidate, rig.settings.quiesce = 0.2, 1.0
    rig.start()
    hardware = rig.gpu.hardware
    seen: list[int] = []
    grant = rig.a.tenant.grant
    rig.a.hooks["quiesce"] = lambda: (grant.release(), seen.append(hardware.ledger.rows()[0].quarantined))  # type: ignore[func-returns-value]
    rig.a.hooks["resume"] = lambda: (_ for _ in ()).throw(RuntimeError("no grant any more"))
    rig.fake.poke(grant.vram[0].start + 0x200000, b"secret")
    place = grant.vram[0].start + 0x200000
    rig.fake.faults.arm("stuck-invalidate")
    rig.b.tenant.bind(0, 1)
    rig.running(2)
    assert seen == [4 << 20]
    assert hardware.ledger.rows()[0].quarantined == 0 and rig.fake.vram(place, 6) == bytes(6)
    rig.doctor_ok()


@pytest.mark.parametrize("place", ["prepare", "invalidate", "unset-pdb"])
def test_a_firmware_that_halts_at_a_moment_of_an_update_leaves_no_fence_open(virtual: tuple[Rig, VirtualClock], place: str) -> None:
    rig, clock = virtual
    rig.start()
    a, b, limit, started = rig.a.tenant, rig.b.tenant, rig.settings.invalidate, clock.now()
    b.on_fault = lambda fault: b.faults.append(fault)  # errors no fence: the core alone can end b's update
    rig.fake.faults.arm("stuck-invalidate")
    stuck = b.space.invalidate()
    fences = [b.bind(1, 1), a.bind(1, 1), Fence("a submission of toy-a")]  # the last is of no invalidate: on_fault alone can end it
    until(lambda: len(rig.gpu.hardware.invalidator._pending) == 2, "both updates wait behind the stuck one")
    a._open_fences[id(fences[-1])] = fences[-1]
    fences[-1].publish()
    ends: dict[str, float] = {}
    for fence in fences:
        fence.add_callback(lambda done: ends.setdefault(done.name, clock.now()))
    assert not stuck.poll() and ends == {}
    rig.fake.faults.arm(f"gsp-halt@{place}")

    def at_prepare() -> None:
        if rig.fake.faults.take("gsp-halt@prepare") is not None:
            gate = rig.gpu.hardware.gate
            rig.session.halt("halted while an update was prepared")
            until(lambda: not gate.open, "the gate closes")

    rig.a.at_prepare = at_prepare
    a.table._at_prepare = at_prepare
    if place == "unset-pdb":
        with pytest.raises(FirmwareDead):
            a.table.unset()
    elif place == "prepare":
        late: list[Fence] = []
        with suppress(FirmwareDead, LeaseRevoked):  # where it comes through, the next generation was there already, and may serve it
            late.append(a.bind(0, 1))
        until(lambda: all(fence.signalled for fence in late), "an update that came through signals")
    else:
        rig.fake.finish_invalidate()  # those that wait are triggered together, and of that the firmware dies
    until(lambda: len(ends) == 3, "all fences signal")
    assert all(isinstance(fence.error, FirmwareDead) for fence in fences)
    assert max(ends.values()) - started <= 2 * limit
    assert stuck.poll() and (stuck.error is None) == (place == "invalidate")
    until(lambda: bool(a.faults and b.faults), "both are told")
    assert a.faults[0].cause == b.faults[0].cause == "firmware-halt"
    rig.running(2)
    after = [a.bind(4, 4), b.bind(4, 4)]
    assert all(fence.wait(5.0, clock) and fence.error is None for fence in after)
    rig.doctor_ok()


def test_two_thousand_events_of_any_content_are_logged_and_take_nothing_down(rig: Rig) -> None:
    rig.start()
    chooser = random.Random(0)
    owned = {number for tenant in (rig.a.tenant, rig.b.tenant) for run in tenant.grant.channels for number in range(run.start, run.end)}

    def words() -> str:
        return "".join(chooser.choices("ab[/]{}%\x00\x1b\u202e\ud800é", k=chooser.randrange(12)))

    def number() -> int:
        return chooser.choice((0, -1, chooser.randrange(4096), chooser.getrandbits(32), chooser.getrandbits(64)))

    def event() -> FirmwareEvent:
        match chooser.randrange(3):
            case 0:
                return FirmwareMessage(words(), words(), chooser.choice((None, number())))
            case 1:
                return VgpuPluginEvent(number(), words())
            case _:
                channel = next(value for value in iter(number, None) if value not in owned)
                engine, address = chooser.choice((None, "COPY0", words())), chooser.choice((None, number()))
                return ChannelFault(channel, engine, words(), None, address, words())

    said = rig.host.events.last
    for _ in range(2000):
        rig.session.emit(event())
    until(lambda: rig.host.events.last - said == 2000, "each is one line of the log")
    assert rig.gpu.state.name == "running" and rig.gpu.generation == 1
    assert rig.a.tenant.faults == rig.b.tenant.faults == []
    assert all(tenant.bind(1, 1).wait(5.0) for tenant in (rig.a.tenant, rig.b.tenant))
    rig.doctor_ok()


def test_the_post_mortem_of_a_lost_gpu_can_be_written(rig: Rig, tmp_path: Path) -> None:
    rig.start()
    rig.fake.faults.arm("boot-fails:no power")
    rig.session.halt("dies")
    until(lambda: rig.gpu.state.name == "lost", "lost")
    assert {path.name for path in rig.host.dump(tmp_path / "post")} >= {"gpu.json", "events.json"}
    assert any(finding.severity == "error" and finding.remedy for finding in rig.host.doctor())
