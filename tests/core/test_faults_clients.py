"""The ladder and the clients: who is told, waited for, left out, and asked again."""

from __future__ import annotations

import threading
import time

import attrs
import pytest

from nvcore.api.client import ClientStatus
from nvcore.api.errors import LeaseRevoked
from nvcore.api.events import Fault, Rung
from nvcore.api.needs import BootNeeds
from nvcore.api.offers import ClientOffer
from tests.core.conftest import Rig, until

from .test_faults import channel_fault, recovered, told


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


@pytest.mark.parametrize("probe", ["fails", "hangs"])
def test_clients_that_a_dying_gpu_came_under_or_was_not_ready_for_are_asked_when_it_runs_again(rig: Rig, probe: str) -> None:
    release = threading.Event()
    if probe == "hangs":
        rig.settings.call = 1.0

    def dies() -> None:
        rig.a.hooks.clear()
        rig.session.halt("dies")
        until(lambda: any(event.kind == "fault" for event in rig.host.events.since()), "the fault was met")
        if probe == "hangs":
            release.wait(10.0)

    rig.a.hooks["probe"] = dies
    host = rig.start()
    rig.running(2)
    assert {f.kind: f.owner for f in host.functions} == {"vgpu": "toy-a", "graphics": "toy-b", "display": None}
    assert host.problems == {} and [finding for finding in host.doctor() if finding.severity != "ok"] == []
    assert told(rig.a.tenant) == told(rig.b.tenant) == [] and rig.a.tenant.submit() and rig.b.tenant.submit()
    release.set()
    rig.doctor_ok()


@pytest.mark.parametrize("takes", [0.0, 0.8], ids=["quick", "slower than what settles"])
def test_a_gpu_that_dies_under_its_client_each_time_is_lost_and_asks_it_again_with_a_retry_only(rig: Rig, takes: float) -> None:
    asked: list[int] = []
    rig.settings.settle = 0.4 if takes else 60.0

    def dies() -> None:
        gate = rig.gpu.hardware.gate
        asked.append(rig.gpu.generation)
        rig.session.halt("dies")
        until(lambda: not gate.open, "met")
        time.sleep(takes)

    rig.a.hooks["probe"] = dies
    host = rig.start()
    until(lambda: rig.gpu.state.name == "lost", "lost")
    assert asked == [1, 2] and rig.b.tenants == []
    rig.a.hooks.clear()
    host.retry(rig.gpu.name)
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
