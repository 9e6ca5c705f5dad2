"""Leases: revocable under live views, scrubbed on the way back, and honest where the device cannot be mapped."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from nvcore.api.errors import ContractError, DeviceGone, LeaseRevoked, NotSupportedError, UsageError
from nvcore.api.grant import GrantRequest
from nvcore.api.inventory import Range
from nvcore.gpu.grants import GpuGrant
from nvcore.testing.fakes import FakeGpu
from nvcore.vmm.mapping import Mapped
from tests.core.conftest import Rig, until

KIB = 1 << 10


def test_a_lease_reaches_exactly_its_own_memory(rig: Rig) -> None:
    rig.start()
    grant = rig.a.tenant.grant
    home = grant.vram[0]
    lease = grant.map(Range(home.start + 0x201000, 0x3000))
    lease.write(0x10, b"hello")
    view = lease.view()
    view[0x2000:0x2005] = b"world"
    assert rig.fake.vram(home.start + 0x201010, 5) == b"hello" and rig.fake.vram(home.start + 0x203000, 5) == b"world"
    assert lease.read(0x2000, 5) == b"world" and len(view) == 0x3000
    for offset, size in ((-1, 1), (0x3000, 1), (0, 0x3001)):
        with pytest.raises(ContractError):
            lease.read(offset, size)
    for offset, data in ((-1, b"x"), (0x2FFF, b"xy"), (0x3000, memoryview(b"x"))):
        with pytest.raises(ContractError):
            lease.write(offset, data)
    with pytest.raises(UsageError):
        grant.map(Range(home.start, home.size + 0x1000))
    with pytest.raises(UsageError):
        grant.map(rig.b.tenant.grant.vram[0])


def test_a_stale_view_neither_reaches_vram_nor_crashes(rig: Rig) -> None:
    rig.start()
    grant = rig.a.tenant.grant
    start = grant.vram[0].start + 0x200000
    lease = grant.map(Range(start, 64 * KIB))
    view, part = lease.view(), lease.view()[100:200]
    view[:4] = b"mine"
    lease.revoke("a test")  # type: ignore[attr-defined]
    assert bytes(view[:4]) == bytes(4), "zeros, not what is in VRAM"
    view[:4], part[:4] = b"ghos", b"tsts"
    assert rig.fake.vram(start, 4) == b"mine" and rig.fake.vram(start + 100, 4) == bytes(4)
    with pytest.raises(LeaseRevoked) as caught:
        lease.read(0, 4)
    assert caught.value.seen == "a test" and not lease.valid
    with pytest.raises(LeaseRevoked):
        lease.view()
    again = grant.map(Range(start, 64 * KIB))
    assert again.read(0, 4) == b"mine"
    del part
    gc.collect()
    view[5] = 1  # the mapping lives for as long as a view does


@pytest.mark.parametrize("way", ["read", "write"])
def test_an_access_during_which_its_lease_is_revoked_says_so(rig: Rig, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.start()
    lease = rig.a.tenant.tables
    access = getattr(Mapped, way)

    def late(mapped: Mapped, *args: object) -> object:
        core = threading.Thread(target=lease.revoke, args=("a fault, in that moment",))
        core.start()
        core.join(5.0)
        return access(mapped, *args)

    monkeypatch.setattr(Mapped, way, late)
    with pytest.raises(LeaseRevoked) as caught:
        lease.read(0, 16) if way == "read" else lease.write(0, bytes(16))
    assert caught.value.seen == "a fault, in that moment"


def test_mappings_go_with_their_last_view(rig: Rig) -> None:
    rig.start()
    grant = rig.a.tenant.grant
    start = grant.vram[0].start

    def mappings() -> int:
        with open("/proc/self/maps") as maps:
            return sum("fake-vram" in line for line in maps)

    before = mappings()
    leases = [grant.map(Range(start + 0x200000 + n * 0x1000, 0x1000)) for n in range(8)]
    for lease in leases:
        lease.view()[0] = 1
    for lease in leases:
        lease.release()
    del lease, leases
    gc.collect()
    assert mappings() == before


def test_a_device_that_shares_nothing_is_reached_through_the_window_and_says_so(rig: Rig) -> None:
    rig.fakes[0].scrap()
    rig.fakes[0] = FakeGpu("fake:one", share=False)
    rig.start()
    assert rig.gpu.state.name == "running"
    grant = rig.a.tenant.grant
    start = grant.vram[0].start + 0x20FFF0
    lease = grant.map(Range(start, 0x100))
    lease.write(0, bytes(range(64)))
    assert rig.fake.vram(start, 64) == bytes(range(64)) == lease.read(0, 64)
    with pytest.raises(NotSupportedError):
        lease.view()
    grant.scrub(Range(start & ~0xFFF, 0x2000))
    assert lease.read(0, 64) == bytes(64)
    rig.doctor_ok()


@pytest.mark.parametrize("bar1", [True, False], ids=["behind BAR1", "through the window"])
def test_a_long_write_ends_with_its_lease_and_before_the_scrub(rig: Rig, bar1: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.fakes[0].scrap()
    rig.fakes[0] = FakeGpu("fake:one", share=False)
    rig.start()
    context, vram = rig.a.tenant.context, rig.gpu.hardware.vram
    grant = context.grant(GrantRequest("one", vram=4 << 20))
    home, lease = grant.vram[0], grant.map(grant.vram[0])
    core = threading.Thread(target=grant.revoke, args=("a fault, in that moment",))
    written: list[int] = []

    class Bar1:
        """VRAM itself."""

        @staticmethod
        def write(offset: int, data: memoryview) -> None:
            rig.fake.poke(offset, bytes(data))

    if bar1:
        vram.bar1, vram.mapped = Bar1(), home.end
    bar = vram.bar1 if bar1 else vram._bar
    write = bar.write

    def late(offset: int, data: memoryview) -> None:
        if not core.ident:
            core.start()
            until(lambda: not lease.valid, "revoked")
        write(offset, data)
        written.append(len(data))

    monkeypatch.setattr(bar, "write", late)
    with pytest.raises(LeaseRevoked):
        lease.write(0, b"x" * home.size)
    core.join(5.0)
    assert written[0] <= 1 << 20 and grant.state == "revoked"
    assert rig.fake.vram(home.start, home.size) == bytes(home.size)


def test_memory_is_scrubbed_before_another_owner_gets_it(rig: Rig) -> None:
    rig.start()
    context = rig.a.tenant.context
    grant = context.grant(GrantRequest("one", vram=2 << 20))
    home = grant.vram[0]
    grant.map(Range(home.start, 0x1000)).write(0, b"secret")
    grant.release()
    grant.release()
    assert grant.state == "released" and rig.fake.vram(home.start, 6) == bytes(6)
    with pytest.raises(LeaseRevoked):
        grant.map(Range(home.start, 0x1000))
    other = context.grant(GrantRequest("two", vram=2 << 20))
    assert other.vram[0] == home
    other.release()


def test_children_are_cut_out_and_come_back(rig: Rig) -> None:
    rig.start()
    parent = rig.a.tenant.context.grant(GrantRequest("parent", vram=8 << 20, channels=32, functions=(1, 2), vm="vm-1"))
    whole = parent.vram[0]
    lease = parent.map(Range(whole.start, 0x1000))
    with pytest.raises(UsageError, match="lease"):
        parent.child(GrantRequest("in one piece with what is leased", vram=2 << 20, vram_at=whole.start + (4 << 20)))
    lease.release()
    child = parent.child(GrantRequest("child", vram=2 << 20, vram_at=whole.start + (4 << 20), channels=8, functions=(2,)))
    assert child.parent is parent and child.vm == "vm-1" and child.functions == (2,) and parent.functions == (1,)
    assert child.map(child.vram[0]).read(0, 4) == bytes(4)
    lease = parent.map(Range(whole.start, 0x1000))
    rig.doctor_ok()
    parent.release()
    assert child.state == "released" and not lease.valid
    rig.doctor_ok()


def test_dma_maps_vanish_after_the_channels_stopped(rig: Rig) -> None:
    rig.start()
    a = rig.a.tenant
    buffer = a.grant.allocate_dma(0x2000, label="ring")
    buffer.view[:4] = b"ring"
    line = a.grant.interrupt("COPY0")
    rig.session.calls.clear()
    rig.fake.log.clear()
    order: list[str] = []
    rig.fake.log = order
    call = rig.session.call
    rig.session.call = lambda name, what: (order.append(name), call(name, what))[1]  # type: ignore[assignment, method-assign, misc]
    a.grant.release()
    wanted = ["destroy-channel", "unset-pdb", "free-space", f"close-tenant {a.grant.name}", "unmap ring"]
    assert [entry for entry in order if entry in wanted] == wanted
    assert line.fd == -1


def test_what_its_owner_closes_is_forgotten_by_the_grant(rig: Rig) -> None:
    rig.start()
    grant = rig.a.tenant.grant
    held = len(grant._parts)
    parts = [grant.interrupt("COPY0"), grant.allocate_dma(0x1000, label="ring"), grant.map(Range(grant.vram[0].start, 0x1000))]
    assert len(grant._parts) == held + len(parts)
    for part in parts:
        part.close()
        part.close()
    assert len(grant._parts) == held
    with pytest.raises(LeaseRevoked):
        parts[2].read(0, 1)


def test_a_channel_that_may_still_run_keeps_its_host_memory_until_reset(rig: Rig) -> None:
    rig.start()
    a = rig.a.tenant
    a.grant.allocate_dma(0x1000, label="ring")
    rig.fake.faults.arm("rpc-refuse:destroy-channel")
    a.grant.release()
    assert {buffer.label for buffer in rig.fake.buffers} >= {"ring"}
    rows = {row.kind: row for row in rig.gpu.hardware.ledger.rows()}
    assert rows["vram"].quarantined == 4 << 20
    assert [finding.code for finding in rig.host.doctor() if finding.severity == "warning"] == ["NVC-4011"]
    rig.session.halt("dies")
    until(lambda: rig.gpu.generation == 2 and not any(buffer.label == "ring" for buffer in rig.fake.buffers), "freed after the reset")


def test_host_memory_that_cannot_be_freed_keeps_no_gpu_from_its_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise DeviceGone("it left")

    host = rig.start()
    buffer = rig.a.tenant.grant.allocate_dma(0x1000, label="ring")
    rig.fake.faults.arm("rpc-refuse:destroy-channel")
    rig.a.tenant.grant.release()
    assert buffer in rig.gpu.hardware.limbo
    free = buffer._inner.close
    monkeypatch.setattr(buffer._inner, "close", gone)
    monkeypatch.setattr(rig.fake, "close", gone)
    host.stop()
    free()
    assert rig.gpu.state.name == "released" and rig.gpu.hardware is None
    assert "DMA buffer: it left" in rig.gpu.state.cause and "device: it left" in rig.gpu.state.cause


def test_what_a_child_could_not_let_go_of_is_quarantined_with_its_parent(rig: Rig) -> None:
    rig.start()
    parent = rig.a.tenant.context.grant(GrantRequest("parent", vram=4 << 20, functions=(1,)))
    child = parent.child(GrantRequest("child", vram=2 << 20, channels=0))
    child.create_space()
    rig.fake.faults.arm("rpc-refuse:free-space")
    parent.release()
    rows = {row.kind: row for row in rig.gpu.hardware.ledger.rows()}
    assert child.problems and not parent.problems
    assert rows["vram"].quarantined == 4 << 20 and rows["functions"].quarantined == 1


@pytest.mark.parametrize("part", ["child", "buffer", "interrupt", "lease", "space"])
def test_what_is_made_of_a_grant_while_it_is_taken_back_is_taken_down_too(rig: Rig, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.start()
    grant, hardware = rig.a.tenant.grant, rig.gpu.hardware
    child = GrantRequest("child", vram=2 << 20, vram_at=grant.vram[-1].end - (2 << 20))
    makers = {
        "child": (hardware.ledger, "take", lambda: grant.child(child)),
        "buffer": (hardware.device, "allocate_dma", lambda: grant.allocate_dma(0x1000, label="ring")),
        "interrupt": (hardware.tree, "route", lambda: grant.interrupt("COPY0")),
        "lease": (grant, "require_vram", lambda: grant.map(Range(grant.vram[0].start, 0x1000))),
        "space": (hardware.session.family("memory"), "create_space", grant.create_space),
    }
    where, what, make = makers[part]
    made = getattr(where, what)

    def late(*args: object, **more: object) -> object:
        result = made(*args, **more)
        monkeypatch.undo()
        grant.revoke("taken back in that moment")
        return result

    grant.map(Range(grant.vram[0].start, 0x1000))  # its extent is there
    routes = dict(hardware.tree._routes)
    monkeypatch.setattr(where, what, late)
    with pytest.raises(LeaseRevoked):
        make()
    assert not {buffer.label for buffer in rig.fake.buffers} & {"ring"}
    assert {vector: fds for vector, fds in hardware.tree._routes.items() if fds} == {vector: fds for vector, fds in routes.items() if fds}
    assert [name for name in hardware.grants if "toy-a" in name] == []
    rows = {row.kind: row for row in hardware.ledger.rows()}
    assert rows["vram"].owned == 4 << 20 and rows["vram"].quarantined == 0
    rig.doctor_ok()


def test_a_firmware_that_raises_anything_while_a_grant_goes_costs_what_it_may_reach(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ref: object) -> None:
        raise KeyError("a bug in destroy")

    rig.start()
    grant = rig.a.tenant.grant
    monkeypatch.setattr(rig.session.family("channel"), "destroy", broken)
    grant.release()
    assert grant.state == "released" and any("a bug in destroy" in problem for problem in grant.problems)
    rows = {row.kind: row for row in rig.gpu.hardware.ledger.rows()}
    assert rows["vram"].quarantined == 4 << 20


def test_a_grant_that_two_take_back_at_once_is_taken_back_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    host = rig.start()
    grant = rig.a.tenant.grant
    owner = threading.Thread(target=grant.release)

    def ended(grant: GpuGrant) -> bool:
        was = grant.state in ("released", "revoked")
        if not was and not owner.ident:
            owner.start()
            owner.join(0.1)
        return was

    monkeypatch.setattr(GpuGrant, "ended", property(ended))
    grant.revoke("its client left")
    owner.join(5.0)
    assert grant.state == "revoked"
    assert [event.text for event in host.events.since() if event.grant == grant.name][1:] == ["revoked: toy-a: its client left"]
    rig.doctor_ok()


def test_a_grant_that_is_given_back_while_a_fault_stops_it_stays_given_back(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.start()
    grant = rig.a.tenant.grant

    def ended(grant: GpuGrant) -> bool:
        was = grant.state in ("released", "revoked")
        monkeypatch.undo()
        grant.release()
        return was

    monkeypatch.setattr(GpuGrant, "ended", property(ended))
    grant.set_quiescing(True)
    monkeypatch.undo()
    grant.release()
    assert grant.state == "released" and grant.ended
    rig.doctor_ok()


def test_a_grant_that_is_made_while_its_client_leaves_goes_with_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    host = rig.start()
    context, ledger = rig.a.tenant.context, rig.gpu.hardware.ledger
    take = ledger.take

    def late(*args: object) -> None:
        take(*args)
        monkeypatch.undo()
        host.withdraw("toy-a")

    monkeypatch.setattr(ledger, "take", late)
    with pytest.raises(ContractError, match="left"):
        context.grant(GrantRequest("late", vram=2 << 20))
    assert [name for name in rig.gpu.hardware.grants if "toy-a" in name] == []
    rig.doctor_ok()


def test_who_keeps_what_it_was_granted_keeps_nothing_of_the_firmware(rig: Rig) -> None:
    host = rig.start()
    tenant = rig.a.tenant
    buffer, child = tenant.grant.allocate_dma(0x1000, label="ring"), tenant.grant.child(GrantRequest("child", channels=1))
    kept = (tenant.context, tenant.grant, child, tenant.space, tenant.channel, tenant.tables, buffer)
    hardware = weakref.ref(rig.gpu.hardware)  # what leads to the session and its memory
    host.stop()
    gc.collect()
    assert hardware() is None and not hasattr(tenant.space, "ref") and not hasattr(tenant.channel, "ref")
    assert tenant.grant.state == child.state == "released" and (*tenant.grant.vram, *child.channels) == () and len(kept) == 7
    for ask in (lambda: tenant.grant.map(Range(0, 0x1000)), lambda: tenant.grant.tenant, lambda: child.child(GrantRequest("late"))):
        with pytest.raises(LeaseRevoked):
            ask()
    for ask in (lambda: tenant.context.grant(GrantRequest("late")), tenant.context.ledger):
        with pytest.raises(ContractError):
            ask()
    tenant.context.report("client", "a late word is heard")
    assert tenant.context.family("memory") is None and not tenant.channel.doorbell.ring() and tenant.space.invalidate().error
    for close in (tenant.channel.close, tenant.space.close, tenant.tables.release, buffer.close, tenant.grant.release):
        close()
