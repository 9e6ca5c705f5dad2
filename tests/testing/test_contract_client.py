"""The contract checks of a client: a sound one passes, and each clause is broken once by a plugin that is like it but for that."""

from __future__ import annotations

import contextlib
import itertools
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from nvcore.api.client import Client, ClientContext, ClientDriver, ClientStatus, Function
from nvcore.api.errors import FirmwareDead, NvcoreError
from nvcore.api.events import Fault
from nvcore.api.grant import GrantRequest
from nvcore.api.inventory import Range
from nvcore.api.marks import follows, may_sleep, signalling_safe
from nvcore.api.needs import NO_NEEDS, BootNeeds
from nvcore.api.offers import ClientOffer
from nvcore.locks import Fence, Lock, memfd, start_thread
from nvcore.testing import contract_client
from nvcore.testing.contracts import CLAUSES, BrokenContract, check_client, check_plugin_module
from nvcore.testing.toys import toy_client

from .test_contract_module import load


@follows(Client)
class Sound:
    """A client with a lease, a fence and nothing wrong."""

    def __init__(self, context: ClientContext) -> None:
        self.context, self.lock, self.open = context, Lock("sound", leaf=True), list[Fence]()
        self.grant = context.grant(GrantRequest("sound", vram=2 << 20, channels=4))
        self.acquire()

    def acquire(self) -> None:
        self.lease = self.grant.map(Range(self.grant.vram[0].start, 0x2000))

    @may_sleep
    def work(self) -> None:
        self.lease.write(0, b"work")

    @may_sleep
    def begin(self) -> None:
        fence = Fence("begun")
        with self.lock:
            self.open.append(fence)
        fence.publish()

    @signalling_safe
    def end(self, cause: str) -> None:
        with self.lock:
            fences, self.open = self.open, []
        for fence in fences:
            fence.signal(FirmwareDead("given up", seen=cause))

    def on_fault(self, fault: Fault) -> None:
        self.end(fault.cause)

    def quiesce(self, reason: str, deadline: float, generation: int) -> None:
        self.end(reason)

    def resume(self, vram: str, generation: int) -> None:
        if not self.lease.valid:
            self.acquire()

    def status(self) -> ClientStatus:
        return ClientStatus("running", "well", {"open": len(self.open)})

    def remove(self) -> None:
        self.end("leaves")
        self.grant.release()


def driver_of(client: Callable[[ClientContext], Any]) -> Any:
    @follows(ClientDriver)
    class Driver:
        name = "sound"

        def match(self, function: Function) -> bool:
            return function.kind == "graphics"

        def probe(self, context: ClientContext) -> Client:
            return client(context)

    return Driver


def offer_of(client: Callable[[ClientContext], Any], **changes: Any) -> ClientOffer:
    offer = ClientOffer("sound", "a client", ("graphics",), lambda identity: NO_NEEDS, driver_of(client))
    return attrs.evolve(offer, **changes)


def check(offer: ClientOffer, **more: Any) -> None:
    check_client(offer, use=lambda client: client.work(), busy=lambda client: client.begin(), **more)


def mutant(**methods: Callable[..., Any]) -> ClientOffer:
    """Sound but for these methods, which get the contract's marks."""
    return offer_of(follows(Client)(type("Mutant", (Sound,), methods)))


def marked_wrong() -> ClientOffer:
    class Mutant(Sound):
        @may_sleep
        def on_fault(self, fault: Fault) -> None:
            self.end(fault.cause)

    return offer_of(Mutant)


def no_driver_name() -> ClientOffer:
    Driver = driver_of(Sound)
    Driver.name = ""
    return offer_of(Sound, open=Driver)


def says_no() -> ClientOffer:
    Driver = driver_of(Sound)
    Driver.match = may_sleep(lambda self, function: function.kind == "display")
    return offer_of(Sound, open=Driver)


def no_client() -> ClientOffer:
    return offer_of(lambda context: None)


def raising_probe() -> ClientOffer:
    def probe(context: ClientContext) -> Any:
        raise ValueError("no")

    return offer_of(probe)


def only_one_gpu() -> ClientOffer:
    seen: list[int] = []

    def probe(context: ClientContext) -> Sound:
        seen.append(1)
        assert len(seen) < 2, "I drive one GPU"
        return Sound(context)

    return offer_of(probe)


def only_once() -> ClientOffer:
    taken: set[str] = set()

    def probe(context: ClientContext) -> Sound:
        assert context.gpu.address not in taken, "I was here before"
        taken.add(context.gpu.address)
        return Sound(context)

    return offer_of(probe)


def moody_needs() -> Callable[[Any], BootNeeds]:
    count = itertools.count()
    return lambda identity: BootNeeds(virtual_functions=next(count))


def in_a_thread(body: Callable[[], object]) -> None:
    thread = start_thread("mutant", body)
    threads.append(thread)


threads: list[threading.Thread] = []
END = threading.Event()


def leaves_thread(self: Sound) -> None:
    Sound.remove(self)
    in_a_thread(lambda: END.wait(5.0))


def leaves_descriptor(self: Sound) -> None:
    Sound.remove(self)
    descriptors.append(memfd("forgotten"))


descriptors: list[int] = []


def sleeps(self: Sound, fault: Fault) -> None:
    self.end(fault.cause)
    time.sleep(0.001)


def sleeps_on_the_clock(self: Sound, fault: Fault) -> None:
    self.end(fault.cause)
    self.context.clock.sleep(0.001)


def waits(how: Callable[[], object]) -> Callable[[], ClientOffer]:
    """A way to wait that nobody tells the kit of."""

    def on_fault(self: Sound, fault: Fault) -> None:
        how()
        self.end(fault.cause)

    return lambda: mutant(on_fault=on_fault)


real_sleep = time.sleep  # as with `from time import sleep`


def of_two_functions(bad: str = "", **methods: Callable[..., Any]) -> ClientOffer:
    """A client of two functions, which differs in these methods on the bad one."""
    Driver = driver_of(lambda context: (mutants if context.function.kind == bad else Sound)(context))
    Driver.match = may_sleep(lambda self, function: function.kind in ("vgpu", "graphics"))
    mutants = follows(Client)(type("Mutant", (Sound,), methods))
    return offer_of(Sound, functions=("vgpu", "graphics"), needs=lambda identity: BootNeeds(vgpu_host=True), open=Driver)


def allocates(self: Sound, fault: Fault) -> None:
    self.end(fault.cause)
    Fence("too late")


def waits_when_lost(self: Sound, fault: Fault) -> None:
    self.end(fault.cause)
    if fault.cause == "device-gone":
        real_sleep(0.55)


def nothing(self: Sound, *_: object) -> None:
    return None


def raises(self: Sound, *_: object) -> None:
    raise RuntimeError("broken")


def logs_and_hides(self: Sound, fault: Fault) -> None:
    self.end(fault.cause)
    with contextlib.suppress(NvcoreError):
        self.context.log.warning("a fault")


def breaks_a_rule(self: Sound, reason: str, deadline: float, generation: int) -> None:
    self.end(reason)
    with self.lock, contextlib.suppress(NvcoreError):
        self.lock.acquire()


MUTANTS: dict[str, tuple[str, Callable[[], ClientOffer]]] = {
    "no name": ("client-offer", lambda: offer_of(Sound, name="")),
    "no summary": ("client-offer", lambda: offer_of(Sound, summary="")),
    "claims nothing": ("client-offer", lambda: offer_of(Sound, functions=())),
    "claims the unknown": ("client-offer", lambda: offer_of(Sound, functions=("compute",))),
    "needs change": ("client-needs", lambda: offer_of(Sound, needs=moody_needs())),
    "needs are no needs": ("client-needs", lambda: offer_of(Sound, needs=lambda identity: None)),
    "needs open a file": ("client-needs", lambda: offer_of(Sound, needs=lambda identity: descriptors.append(memfd("x")) or NO_NEEDS)),
    "needs are not enough": ("client-needs", lambda: offer_of(Sound, functions=("graphics", "vgpu"), open=both_kinds())),
    "open raises": ("client-open", lambda: offer_of(Sound, open=lambda: 1 / 0)),
    "open starts a thread": ("client-open", lambda: offer_of(Sound, open=lambda: in_a_thread(lambda: END.wait(5.0)) or driver_of(Sound)())),
    "a driver without a name": ("client-open", no_driver_name),
    "matches nothing": ("client-match", says_no),
    "on_fault marked may_sleep": ("client-marks", marked_wrong),
    "no marks": ("client-marks", lambda: offer_of(type("Mutant", (Sound,), {"remove": lambda self: Sound.remove(self)}))),
    "quiesce without generation": ("client-signature", lambda: mutant(quiesce=lambda self, reason, deadline: None)),
    "no status": ("client-signature", lambda: mutant(status=None)),
    "no client": ("client-probe", no_client),
    "probe raises": ("client-probe", raising_probe),
    "probe takes one GPU only": ("client-probe", only_one_gpu),
    "cannot work": ("client-probe", lambda: mutant(work=raises)),
    "status raises": ("client-status", lambda: mutant(status=raises)),
    "status is text": ("client-status", lambda: mutant(status=lambda self: "well")),
    "status is not for JSON": ("client-status", lambda: mutant(status=lambda self: ClientStatus("running", "", {"x": object()}))),
    "status takes long": ("client-status", lambda: mutant(status=lambda self: time.sleep(0.7) or ClientStatus("running", ""))),
    "status is no number": ("client-status", lambda: mutant(status=lambda self: ClientStatus("running", "", {"load": float("nan")}))),
    "status without a text": ("client-status", lambda: mutant(status=lambda self: ClientStatus("running", None))),
    "status is of no known state": ("client-status", lambda: mutant(status=lambda self: ClientStatus("fine", ""))),
    "cannot work on the first of two functions": ("client-probe", lambda: of_two_functions("graphics", work=raises)),
    "cannot work on the second of two functions": ("client-probe", lambda: of_two_functions("vgpu", work=raises)),
    "keeps the old lease of one of two functions": ("client-resume", lambda: of_two_functions("vgpu", resume=nothing)),
    "keeps the old lease of the other": ("client-resume", lambda: of_two_functions("graphics", resume=nothing)),
    "says it failed": ("client-probe", lambda: mutant(status=lambda self: ClientStatus("failed", "I think"))),
    "on_fault sleeps": ("client-on-fault", lambda: mutant(on_fault=sleeps)),
    "on_fault sleeps on the clock": ("client-on-fault", lambda: mutant(on_fault=sleeps_on_the_clock)),
    "on_fault sleeps unseen": ("client-on-fault", waits(lambda: real_sleep(0.07))),
    "on_fault waits long": ("client-on-fault", waits(lambda: real_sleep(0.55))),
    "on_fault waits for an event": ("client-on-fault", waits(lambda: threading.Event().wait(0.07))),
    "on_fault waits in select": ("client-on-fault", waits(lambda: select.select([], [], [], 0.07))),
    "on_fault waits long on a lost GPU": ("client-on-fault", lambda: mutant(on_fault=waits_when_lost)),
    "on_fault allocates": ("client-on-fault", lambda: mutant(on_fault=allocates)),
    "on_fault raises": ("client-on-fault", lambda: mutant(on_fault=raises)),
    "on_fault forgets a fence": ("client-fences", lambda: mutant(on_fault=lambda self, fault: None)),
    "quiesce raises": ("client-quiesce", lambda: mutant(quiesce=raises)),
    "quiesce is late": ("client-quiesce", lambda: mutant(quiesce=lambda self, reason, deadline, generation: time.sleep(1.3))),
    "resume raises": ("client-resume", lambda: mutant(resume=raises)),
    "resume keeps the old lease": ("client-resume", lambda: mutant(resume=nothing)),
    "remove raises": ("client-remove", lambda: mutant(remove=raises)),
    "remove keeps the grant": ("client-remove", lambda: mutant(remove=lambda self: self.end("leaves"))),
    "remove leaves a thread": ("client-remove", lambda: mutant(remove=leaves_thread)),
    "remove leaves a descriptor": ("client-remove", lambda: mutant(remove=leaves_descriptor)),
    "works once": ("client-again", only_once),
    "raises on a lost GPU": ("client-lost", lambda: mutant(remove=lost_raises)),
    "on_fault logs and hides it": ("client-on-fault", lambda: mutant(on_fault=logs_and_hides)),
    "breaks a lock rule and hides it": ("client-locks", lambda: mutant(quiesce=breaks_a_rule)),
}


def lost_raises(self: Sound) -> None:
    Sound.remove(self)
    if self.context.family("inventory") is None:
        raise RuntimeError("I wanted to say good-bye")


def both_kinds() -> Callable[[], Any]:
    Driver = driver_of(Sound)
    Driver.match = may_sleep(lambda self, function: True)
    return Driver


@pytest.fixture(autouse=True)
def tidy() -> Any:
    import os

    END.clear()
    yield
    END.set()
    for thread in threads:
        thread.join(5.0)
    threads.clear()
    for fd in descriptors:
        os.close(fd)
    descriptors.clear()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes no rung of the ladder be tried again, so what a client did can be counted."""
    monkeypatch.setattr(contract_client, "_STILL", 5.0)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("share", [True, False])
def test_a_sound_client_passes_and_was_told_of_each_fault(share: bool) -> None:
    told: dict[str, list[str]] = {}

    @follows(Client)
    class Watched(Sound):
        def quiesce(self, reason: str, deadline: float, generation: int) -> None:
            told.setdefault(self.context.gpu.address, []).append(reason)
            Sound.quiesce(self, reason, deadline, generation)

    check(offer_of(Watched), share=share)
    assert told == {"0000:f0:00.0": ["grant-reset", "gpu-reset", "gpu-lost"]}  # the other GPU has no fault


@pytest.mark.usefixtures("patient")
def test_a_sound_client_of_two_functions_passes_and_each_is_judged() -> None:
    worked: list[str] = []
    check_client(of_two_functions(), use=lambda client: worked.append(client.context.function.kind), busy=lambda client: client.begin())
    assert {kind: worked.count(kind) for kind in worked} == {"vgpu": 10, "graphics": 10}  # two GPUs: at first and after four faults


def test_a_fence_that_is_open_on_another_gpu_is_not_held_against_a_client() -> None:
    class Always(Sound):
        """One that has a fence under way whenever it runs."""

        def __init__(self, context: ClientContext) -> None:
            super().__init__(context)
            self.begin()

        def resume(self, vram: str, generation: int) -> None:
            super().resume(vram, generation)
            self.begin()

    check_client(offer_of(follows(Client)(Always)), use=lambda client: client.work())


@pytest.mark.parametrize("pause", [0.07, 0.55])
def test_an_on_fault_that_stands_still_once_is_a_busy_machine(pause: float) -> None:
    pauses = [0.0, pause]  # in the first fault of a grant; not in the second

    def on_fault(self: Sound, fault: Fault) -> None:
        real_sleep(pauses.pop() if pauses else 0.0)
        self.end(fault.cause)

    check(mutant(on_fault=on_fault))
    assert pauses == []


CONFIGURED = """
import attrs
from nvcore.api import hookimpl
from nvcore.api.needs import NO_NEEDS
from nvcore.api.offers import ClientOffer, ConfigSection
from tests.testing.test_contract_client import Sound, driver_of

@attrs.frozen
class Record:
    bytes: int = 0x2000

def client(context):
    assert context.config == Record(), context.config
    return Sound(context)

@hookimpl
def nvcore_config_sections(host):
    return [ConfigSection("sound", "pages", Record)]

@hookimpl
def nvcore_client_drivers(host):
    return [ClientOffer("sound", "a client", ("graphics",), lambda identity: NO_NEEDS, driver_of(client))]
"""


def test_a_client_gets_the_defaults_of_its_plugins_section_as_in_a_daemon(tmp_path: Path, nvcore_host: Callable[..., Any]) -> None:
    (tmp_path / "configured.py").write_text(CONFIGURED)
    module = load(tmp_path / "configured.py", "configured")
    (offer,) = check_plugin_module(module)["nvcore_client_drivers"]
    check(offer)
    assert nvcore_host(module).client("sound").context.config == module.Record()
    with pytest.raises(BrokenContract, match=r"Record\(bytes=1\)"):
        check(offer, config=module.Record(1))


@pytest.mark.usefixtures("patient")
def test_a_toy_tenant_with_page_tables_and_a_channel_passes() -> None:
    used: list[Any] = []

    def use(tenant: Any) -> None:
        fence = tenant.bind(3, 0x55)
        assert fence.wait(5.0) and fence.error is None and tenant.submit()
        used.append(tenant)

    offer, _ = toy_client("toy", "vgpu")
    check_client(offer, use=use)
    assert len(used) == 10  # two GPUs: at first, after a fault of the channel, the grant and the GPU, and when they were taken again


@pytest.mark.nvcore_leaks("the mutant left something on purpose")
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_clause_is_named(name: str) -> None:
    clause, make = MUTANTS[name]
    with pytest.raises(BrokenContract) as caught:
        check(make())
    assert caught.value.clause == clause, str(caught.value)
    assert CLAUSES[clause] in str(caught.value)


def test_every_clause_of_a_client_has_a_mutant() -> None:
    assert {clause for clause, _ in MUTANTS.values()} == {name for name in CLAUSES if name.startswith("client-")}
