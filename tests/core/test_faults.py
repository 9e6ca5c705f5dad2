"""The ladder: order, attribution, each rung once, hung clients, dead firmware, stuck invalidates. On a virtual clock where time matters."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import attrs
import pytest

from nvcore.api.client import ClientStatus
from nvcore.api.errors import ContractError, FirmwareDead, LeaseRevoked
from nvcore.api.events import ChannelFault, Fault, FirmwareEvent, FirmwareMessage, Rung, VgpuPluginEvent
from nvcore.api.grant import GrantRequest
from nvcore.api.needs import BootNeeds
from nvcore.api.offers import ClientOffer
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


def test_a_client_that_attaches_while_the_gpu_dies_is_told_and_resumed(rig: Rig) -> None:
    calls: list[str] = []

    class Quick:
        """A client that takes nothing when it comes."""

        def probe(self, context: object) -> Quick:
            rig.session.halt("dies")
            until(lambda: any(event.kind == "fault" for event in rig.host.events.since()), "the fault was met")
            return self

        name, match = "quick", staticmethod(lambda function: True)
        on_fault = staticmethod(lambda fault: calls.append("on_fault"))
        quiesce = staticmethod(lambda reason, deadline, generation: calls.append(f"quiesce {reason}"))
        resume = staticmethod(lambda vram, generation: calls.append(f"resume {vram} {generation}"))
        remove = staticmethod(lambda: calls.append("remove"))
        status = staticmethod(lambda: ClientStatus("running", "well"))

    rig.clients = [ClientOffer("quick", "takes nothing", ["graphics"], lambda identity: BootNeeds(), Quick)]
    rig.start()
    rig.running(2)
    assert calls == ["on_fault", "quiesce gpu-reset", "resume lost 2"]


@pytest.mark.parametrize("rung", [Rung.CHANNEL, Rung.GPU])
def test_a_gpu_that_dies_while_its_clients_resume_is_not_said_to_have_recovered(rig: Rig, rung: Rung) -> None:
    rig.start()
    gates: list[object] = []

    def dies() -> None:
        gates.append(rig.gpu.hardware.gate)
        rig.session.halt(f"dies {len(gates)} times")
        until(lambda: not gates[-1].open, "met")

    rig.a.hooks["resume"] = dies
    if rung is Rung.GPU:
        rig.session.halt("dies")
    else:
        channel_fault(rig, rig.a.tenant)
    until(lambda: rig.gpu.state.name == "lost", "lost")
    assert rig.states()[-3:] == ["resetting", "resetting", "lost"]
    assert not any(event.kind == "recovery" for event in rig.host.events.since())


@pytest.mark.parametrize(
    ("rung", "callback"),
    [(Rung.CHANNEL, "quiesce"), (Rung.CHANNEL, "resume"), (Rung.GRANT, "quiesce"), (Rung.GRANT, "resume"), (Rung.GPU, "resume")],
)
def test_a_client_that_meets_the_death_of_the_gpu_on_its_way_back_is_not_blamed(rig: Rig, rung: Rung, callback: str) -> None:
    rig.settings.settle = 0.0
    host = rig.start()

    def dies() -> None:
        gate = rig.gpu.hardware.gate
        rig.a.hooks.clear()
        rig.session.halt("dies")
        until(lambda: not gate.open and len(rig.a.tenant.faults) == 2, "met and told")

    rig.a.hooks[callback] = dies
    if rung is Rung.CHANNEL:
        channel_fault(rig, rig.a.tenant)
    elif rung is Rung.GRANT:
        rig.gpu.ladder.meet_grant(rig.a.tenant.grant, "test-fault")
    else:
        rig.session.halt("dies")
    recovered(rig)
    assert host.problems == {} and {f.kind: f.owner for f in host.functions} == {"vgpu": "toy-a", "graphics": "toy-b", "display": None}
    assert told(rig.a.tenant)[-2:] == ["quiesce gpu-reset", f"resume lost {rig.gpu.generation}"]
    assert rig.a.tenant.submit() and rig.b.tenant.submit()
    rig.doctor_ok()


def test_clients_that_were_not_asked_yet_when_the_gpu_died_are_asked_when_it_runs_again(rig: Rig) -> None:
    def dies() -> None:
        rig.session.halt("dies")
        until(lambda: any(event.kind == "fault" for event in rig.host.events.since()), "the fault was met")

    rig.a.hooks["probe"] = dies
    host = rig.start()
    rig.running(2)
    assert {f.kind: f.owner for f in host.functions} == {"vgpu": None, "graphics": "toy-b", "display": None}
    assert list(host.problems) == ["toy-a"] and told(rig.b.tenant) == [] and rig.b.tenant.submit()
    rig.doctor_ok()
    rig.a.hooks.clear()
    host.reset(rig.gpu.name)
    assert {f.kind: f.owner for f in host.functions} == {"vgpu": "toy-a", "graphics": "toy-b", "display": None}


def test_a_client_has_heard_every_fault_before_it_is_asked_to_quiesce(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.start()
    heard: list[str] = []
    attachment, first = rig.gpu.attachments[0], Fault(Rung.CHANNEL, "first", "NVC-5010", rig.gpu.name, 1)
    monkeypatch.setattr(attachment.client, "on_fault", lambda fault: (time.sleep(0.05), heard.append(fault.cause)))
    monkeypatch.setattr(attachment.client, "quiesce", lambda *about: heard.append("quiesce"))
    post = attachment.delivery.post

    def overtaken(*job: object) -> object:
        queued = post(*job)
        monkeypatch.setattr(attachment.delivery, "post", post)
        attachment.tell(attrs.evolve(first, cause="second"))  # by another thread, as this one puts it down
        return queued

    monkeypatch.setattr(attachment.delivery, "post", overtaken)
    attachment.tell(first)
    assert rig.gpu.life.call(lambda: attachment.quiesce("channel-fault", 1), "quiesce", 5.0)
    assert heard == ["first", "second", "quiesce"]


def test_a_session_that_raises_when_it_is_declared_dead_keeps_no_gpu_from_its_reset(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.start()
    declare_dead = rig.session.declare_dead

    def broken(cause: str) -> None:
        declare_dead(cause)
        raise KeyError("a bug in declare_dead")

    monkeypatch.setattr(rig.session, "declare_dead", broken)
    rig.gpu.ladder.meet_gpu("test-fault")
    rig.running(2)
    assert told(rig.a.tenant) == ["on_fault", "quiesce gpu-reset", "resume lost 2"]
    assert [event.action for event in rig.host.events.since() if event.kind == "fault"] == [
        "GPU disabled, all owners told; session: KeyError: 'a bug in declare_dead'"
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


@pytest.mark.parametrize("callback", ["on_fault", "quiesce"])
def test_a_missed_deadline_means_that_the_core_revokes_alone(rig: Rig, callback: str) -> None:
    release = threading.Event()
    rig.settings.quiesce = 0.3
    rig.start()
    a, b = rig.a.tenant, rig.b.tenant
    lease, grant = a.tables, a.grant
    rig.a.hooks[callback] = lambda: release.wait(10.0)
    channel_fault(rig, a)
    until(lambda: "toy-a" in rig.host.problems, "revoked")
    assert grant.state == "revoked"
    with pytest.raises(LeaseRevoked):
        lease.read(0, 4)
    assert next(f for f in rig.host.functions if f.kind == "vgpu").owner is None
    assert rig.host.problems["toy-a"].startswith("missed-deadline")
    assert told(b) == [] and b.submit() and b.bind(2, 2).wait(5.0)
    assert rig.session.objects() == {"client": 1, "space": 1, "channel": 1}
    rig.doctor_ok()
    release.set()
    a.stop()


def test_a_hung_client_delays_nobody_elses_fault(rig: Rig) -> None:
    release, ended = threading.Event(), threading.Event()
    rig.settings.quiesce = 60.0  # longer than anything waits here
    rig.start()
    a, b = rig.a.tenant, rig.b.tenant

    def hang() -> None:
        release.wait(60.0)
        ended.set()

    rig.a.hooks["on_fault"] = hang
    channel_fault(rig, a)
    until(lambda: "on_fault" in told(a), "a told")
    channel_fault(rig, b)
    until(lambda: "on_fault" in told(b), "b told")
    assert not ended.is_set()
    release.set()
    recovered(rig)
    a.stop()


def test_a_callback_that_raises_is_told_and_the_client_is_not_trusted_further(rig: Rig) -> None:
    rig.start()
    a = rig.a.tenant

    def fails() -> None:
        raise ValueError("a bug of the client")

    rig.a.hooks["quiesce"] = fails
    channel_fault(rig, a)
    until(lambda: "toy-a" in rig.host.problems, "revoked")
    assert a.grant.state == "revoked" and "a bug of the client" in rig.host.problems["toy-a"]
    a.stop()


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
