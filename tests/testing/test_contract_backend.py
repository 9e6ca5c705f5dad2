"""The contract checks of a firmware backend: two sound ones pass, and each clause is broken once by one that is like it but for that."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from nvcore.api.errors import BootError, NvcoreError
from nvcore.api.families import Tenant
from nvcore.api.firmware import BootStage, FirmwareBackend, FirmwareImage, FirmwareSession, SavedState, UnloadReport
from nvcore.api.marks import follows, may_sleep
from nvcore.api.offers import FirmwareOffer
from nvcore.locks import Lock, memfd, start_thread
from nvcore.testing import contract_backend
from nvcore.testing.contracts import CLAUSES, BrokenContract, check_backend
from nvcore.testing.fakes import FakeGpu
from nvcore.testing.firmware import FakeBackend, FakeSession, FakeTenant

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/toy-firmware/toy_firmware.py"


def _toy() -> Any:
    spec = importlib.util.spec_from_file_location("toy_firmware_for_contracts", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


toy = _toy()
VALID = ("TU102",)


def offer_of(backend: Callable[[], Any], **changes: Any) -> FirmwareOffer:
    return attrs.evolve(FirmwareOffer("sound", "a firmware", VALID, ("1", "1.0"), backend), **changes)


def backend(**methods: Any) -> FirmwareOffer:
    """The toy backend but for these methods, which get the contract's marks."""
    return offer_of(follows(FirmwareBackend)(type("Mutant", (toy.Backend,), methods)))


def session(**methods: Any) -> FirmwareOffer:
    """The toy backend with sessions that differ in these methods."""
    kind = follows(FirmwareSession)(type("MutantSession", (toy.Session,), methods))

    def become(self: Any, context: Any) -> Any:
        made = toy.Backend.open(self, context)
        made.__class__ = kind
        return made

    return backend(open=become)


def root(**methods: Any) -> FirmwareOffer:
    """The toy backend with tenants that differ in these methods."""
    kind = follows(Tenant)(type("MutantRoot", (toy.Root,), methods))

    def open_tenant(self: Any, label: str) -> Any:
        self.check()
        self.roots.append(kind(label, self))
        return self.roots[-1]

    return session(open_tenant=open_tenant)


threads: list[threading.Thread] = []
descriptors: list[int] = []
END = threading.Event()


def starts_thread(*_: object) -> None:
    threads.append(start_thread("mutant", lambda: END.wait(5.0)))


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    END.clear()
    yield
    END.set()
    for thread in threads:
        thread.join(5.0)
    threads.clear()
    for fd in descriptors:
        os.close(fd)
    descriptors.clear()


def marked_wrong() -> FirmwareOffer:
    @may_sleep
    def receive(self: Any) -> int:
        return 0

    return session(receive=receive)


def raises(self: Any, *_: object) -> Any:
    raise RuntimeError("broken")


def no_save(self: Any, context: Any) -> Any:
    return toy.Backend.open(self, attrs.evolve(context, save=None))


def tells_nothing(self: Any, context: Any) -> Any:
    return toy.Backend.open(self, attrs.evolve(context, progress=lambda stage: None))


def starts_over(self: Any, context: Any) -> Any:
    context.device.bars[0].write32(toy.MAILBOX, 0)
    return toy.Backend.open(self, context)


def refuses_badly(self: Any, context: Any) -> Any:
    try:
        return toy.Backend.open(self, context)
    except BootError as error:
        raise RuntimeError("cannot") from error


def refuses_without_a_cause(self: Any, context: Any) -> Any:
    try:
        return toy.Backend.open(self, context)
    except BootError as error:
        raise BootError("cannot") from error


def untyped_when_gone(self: Any, context: Any) -> Any:
    try:
        return toy.Backend.open(self, context)
    except BootError:
        raise
    except NvcoreError as error:
        raise OSError("the device does not answer") from error


def saves_late(self: Any, context: Any) -> Any:
    session = toy.Backend.open(self, attrs.evolve(context, save=None))
    context.save(SavedState("toy", "1", {}))
    return session


def saves_once() -> FirmwareOffer:
    starts = itertools.count()
    return backend(open=lambda self, context: (no_save if next(starts) else toy.Backend.open)(self, context))


def hides_that_it_cannot_save(self: Any, context: Any) -> Any:
    def save(state: SavedState) -> None:
        with contextlib.suppress(OSError):
            context.save(state)

    return toy.Backend.open(self, attrs.evolve(context, save=save))


def counts_what_there_is(self: Any) -> dict[str, int]:
    return {"client": len(self.roots)} if self.roots else {}


def counts_what_was(self: Any) -> dict[str, int]:
    self.__dict__["most"] = most = max(len(self.roots), getattr(self, "most", 0))
    return {"client": most} if most else {}


def waiting_calls(at_death: Callable[[Any], None]) -> FirmwareOffer:
    """A firmware in which the kit's call waits for an answer, which comes with a receive(); at_death: what declare_dead() does about it."""

    def open_tenant(self: Any, label: str) -> Any:
        self.check()
        if label == "waiting":
            answer = self.__dict__["answer"] = threading.Event()
            answer.wait(5.0)
            self.check()
        return toy.Session.open_tenant(self, label)

    def receive(self: Any) -> int:
        answered = toy.Session.receive(self)
        if self.dead is None and "answer" in self.__dict__:
            self.__dict__.pop("answer").set()
        return answered

    def declare_dead(self: Any, cause: str) -> None:
        toy.Session.declare_dead(self, cause)
        at_death(self)

    waiting = property(lambda self: int("answer" in self.__dict__))
    return session(open_tenant=open_tenant, receive=receive, declare_dead=declare_dead, waiting=waiting)


def lets_go(self: Any) -> None:
    if "answer" in self.__dict__:
        self.__dict__.pop("answer").set()


def raises_once_dead(self: Any) -> int:
    if self.dead is not None:
        raise RuntimeError("nothing there")
    return int(toy.Session.receive(self))


def lies(self: Any, context: Any) -> UnloadReport:
    return UnloadReport((), True)


def changing_inventory() -> FirmwareOffer:
    count = itertools.count()
    return session(read=may_sleep(lambda self: attrs.evolve(toy.Session.read(self), name=f"toy {next(count)}")))


def no_regions(self: Any) -> Any:
    return attrs.evolve(toy.Session.read(self), regions=())


def overlapping(self: Any) -> Any:
    inventory = toy.Session.read(self)
    return attrs.evolve(inventory, regions=inventory.regions * 2)


def last_cause(self: Any, cause: str) -> None:
    self.dead = cause


def slow_to_die(self: Any, label: str) -> Any:
    if self.dead is not None:
        time.sleep(0.7)
    return toy.Session.open_tenant(self, label)


def other_error(self: Any, label: str) -> Any:
    if self.dead is not None:
        raise BootError("what?")
    return toy.Session.open_tenant(self, label)


def never_written(self: Any) -> UnloadReport:
    self.declare_dead("unloaded")
    return UnloadReport((BootStage("stop", 0.0, "ok"),), True)


def anew_each_time() -> FirmwareOffer:
    count = itertools.count()
    return session(unload=lambda self: attrs.evolve(toy.Session.unload(self), cause=str(next(count))))


def stays_alive(self: Any) -> UnloadReport:
    report = toy.Session.unload(self)
    self.dead = None
    return report


def forgets_to_close(self: Any) -> None:
    return None


def unhappy_when_closed_twice(self: Any) -> None:
    if self not in self.session.roots:
        raise RuntimeError("closed already")
    toy.Root.close(self)


def unhappy_when_dead(self: Any) -> None:
    self.session.check()
    toy.Root.close(self)


def leaves_dma(self: Any, context: Any) -> Any:
    context.device.allocate_dma(0x1000, label="forgotten")
    return toy.Backend.open(self, context)


def locks_twice(self: Any, label: str) -> Any:
    lock = Lock("mutant")
    with lock:
        try:
            lock.acquire()
        except NvcoreError:
            return toy.Session.open_tenant(self, label)


def image_of_another(self: Any, chip: Any) -> Any:
    return [FirmwareImage("GA100", "1", "synthetic", "nowhere")] if chip.name in VALID else []


def unusable(self: Any, chip: Any) -> Any:
    return [FirmwareImage(chip.name, "1", "vendor", "nowhere", "missing")] if chip.name in VALID else []


MUTANTS: dict[str, tuple[str, Callable[[], FirmwareOffer]]] = {
    "no name": ("backend-offer", lambda: offer_of(toy.Backend, name="")),
    "no chips": ("backend-offer", lambda: offer_of(toy.Backend, chips=())),
    "an unknown chip": ("backend-offer", lambda: offer_of(toy.Backend, chips=("TU102", "NV50"))),
    "no versions": ("backend-offer", lambda: offer_of(toy.Backend, versions=())),
    "open raises": ("backend-open", lambda: offer_of(lambda: 1 / 0)),
    "open starts a thread": ("backend-open", lambda: offer_of(lambda: starts_thread() or toy.Backend())),
    "a backend without a name": ("backend-open", lambda: backend(name="")),
    "supports without a mark": ("backend-marks", lambda: offer_of(type("M", (toy.Backend,), {"supports": lambda self, chip: []}))),
    "receive marked may_sleep": ("backend-marks", marked_wrong),
    "a tenant without marks": ("backend-marks", lambda: session(open_tenant=unmarked_tenant)),
    "recover without context": ("backend-signature", lambda: backend(recover=lambda self: None)),
    "a session without objects": ("backend-signature", lambda: session(objects=None)),
    "supports everything": ("backend-supports", lambda: backend(supports=lambda self, chip: toy.Backend((chip.name,)).supports(chip))),
    "supports raises": ("backend-supports", lambda: backend(supports=raises)),
    "an image of another chip": ("backend-supports", lambda: backend(supports=image_of_another)),
    "no usable image": ("backend-supports", lambda: backend(supports=unusable)),
    "supports keeps a file": ("backend-supports", lambda: backend(supports=lambda self, chip: descriptors.append(memfd("x")) or [])),
    "open of a context raises": ("backend-boots", lambda: backend(open=raises)),
    "stages not told": ("backend-boots", lambda: backend(open=tells_nothing)),
    "a version that was not offered": ("backend-boots", lambda: offer_of(toy.Backend, versions=("2",))),
    "nothing saved": ("backend-saves", lambda: backend(open=no_save)),
    "saved after the start": ("backend-saves", lambda: backend(open=saves_late)),
    "saved at the first start only": ("backend-saves", saves_once),
    "started although nothing can be saved": ("backend-saves", lambda: backend(open=hides_that_it_cannot_save)),
    "waiting cannot be read": ("backend-signature", lambda: session(waiting=property(raises))),
    "no waiting": ("backend-signature", lambda: session(waiting=property(lambda self: self.no_such_thing))),
    "families are a list": ("backend-signature", lambda: session(families=["inventory"])),
    "an unknown family": ("backend-families", lambda: session(family=lambda self, name: self)),
    "no inventory": ("backend-families", lambda: session(families={})),
    "another version of a family": ("backend-families", lambda: session(families={"inventory": 2})),
    "the inventory changes": ("backend-inventory", changing_inventory),
    "no memory": ("backend-inventory", lambda: session(read=may_sleep(no_regions))),
    "regions overlap": ("backend-inventory", lambda: session(read=may_sleep(overlapping))),
    "objects not counted": ("backend-objects", lambda: session(objects=lambda self: {"client": 0})),
    "objects stay, and none are not counted": ("backend-objects", lambda: session(objects=counts_what_was)),
    "a tenant that stays": ("backend-objects", lambda: root(close=forgets_to_close)),
    "a tenant closed twice": ("backend-objects", lambda: root(close=unhappy_when_closed_twice)),
    "receive raises": ("backend-receive", lambda: session(receive=raises)),
    "receive raises once dead": ("backend-receive", lambda: session(receive=raises_once_dead)),
    "receive gives nothing once dead": ("backend-receive", lambda: session(receive=lambda self: 0 if self.dead is None else None)),
    "receive gives nothing": ("backend-receive", lambda: session(receive=lambda self: None)),
    "the last cause wins": ("backend-dead", lambda: session(declare_dead=last_cause)),
    "a waiting call waits on": ("backend-dead", lambda: waiting_calls(lambda session: None)),
    "the dead answer": ("backend-dead", lambda: session(check=lambda self: None)),
    "the dead are slow": ("backend-dead", lambda: session(open_tenant=slow_to_die)),
    "another error": ("backend-dead", lambda: session(open_tenant=other_error)),
    "a tenant of the dead raises": ("backend-dead", lambda: root(close=unhappy_when_dead)),
    "unload raises": ("backend-unload", lambda: session(unload=raises)),
    "unload is not idempotent": ("backend-unload", anew_each_time),
    "alive after unload": ("backend-unload", lambda: session(unload=stays_alive)),
    "unload stops nothing": ("backend-again", lambda: session(unload=never_written)),
    "another error than BootError": ("backend-refuses", lambda: backend(open=refuses_badly)),
    "a refusal without a cause": ("backend-refuses", lambda: backend(open=refuses_without_a_cause)),
    "started over another": ("backend-leftover", lambda: backend(open=starts_over)),
    "recover raises": ("backend-leftover", lambda: backend(recover=raises)),
    "recover lies": ("backend-leftover", lambda: backend(recover=lies)),
    "recover does nothing": ("backend-leftover", lambda: backend(recover=lambda self, context: UnloadReport((), False, True, "no"))),
    "untyped error of a device that left": ("backend-gone", lambda: backend(open=untyped_when_gone)),
    "host memory left": ("backend-leaves", lambda: backend(open=leaves_dma)),
    "a thread left": ("backend-leaves", lambda: backend(open=lambda self, context: starts_thread() or toy.Backend.open(self, context))),
    "a lock rule broken and hidden": ("backend-locks", lambda: session(open_tenant=locks_twice)),
}


class Unmarked:
    """A tenant without marks."""

    def __init__(self, label: str) -> None:
        self.label, self.open = label, True

    def close(self) -> None:
        self.open = False


def unmarked_tenant(self: Any, label: str) -> Any:
    return Unmarked(label)


def marked(fake: type, contract: type) -> type:
    """A fake with the marks of its contract."""
    own = {name: vars(fake)[name] for name in vars(contract) if name in vars(fake) and callable(vars(fake)[name])}
    return follows(contract)(type(f"Marked{fake.__name__}", (fake,), {name: value for name, value in own.items() if name[0] != "_"}))


def test_the_toy_firmware_passes_in_each_of_its_lives() -> None:
    lives: list[Any] = []

    def counted(self: Any, context: Any) -> Any:
        lives.append(toy.Backend.open(self, context))
        return lives[-1]

    check_backend(backend(open=counted))
    assert len(lives) == 4  # used and unloaded, declared dead, left behind, on a device that leaves
    assert [life.dead for life in lives] == ["unloaded", "declared dead by the contract test", None, "unloaded"]


def test_a_kind_of_objects_without_any_may_be_left_out() -> None:
    check_backend(session(objects=counts_what_there_is))


def test_a_waiting_call_that_ends_with_the_first_cause_passes() -> None:
    check_backend(waiting_calls(lets_go))


def test_a_call_that_the_senders_thread_answers_itself_does_not_count_as_left_waiting() -> None:
    """While that thread receives, the firmware owes an answer."""

    def open_tenant(self: Any, label: str) -> Any:
        tenant = toy.Session.open_tenant(self, label)
        self.__dict__["owed"] = 1
        time.sleep(0.01)
        self.__dict__["owed"] = 0
        return tenant

    check_backend(session(open_tenant=open_tenant, waiting=property(lambda self: self.__dict__.get("owed", 0))))


def test_a_call_that_waits_and_is_not_counted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No receiver would poll for its answer."""
    monkeypatch.setattr(contract_backend, "_FOR_A_CALL", 0.1)
    answered = threading.Event()

    def open_tenant(self: Any, label: str) -> Any:
        if label == "waiting":
            answered.wait(5.0)
        return toy.Session.open_tenant(self, label)

    with pytest.raises(BrokenContract, match=r"a call has no answer after 0\.1 s and `waiting` is 0") as caught:
        check_backend(session(open_tenant=open_tenant))
    answered.set()
    assert caught.value.clause == "backend-receive"


def test_a_recover_that_lies_is_found_on_a_device_of_ones_own() -> None:
    """Also where nothing makes the device leave."""
    fake = FakeGpu("fake:own")
    with pytest.raises(BrokenContract, match="open\\(\\), after recover\\(\\) said that the device is clean, raised BootError"):
        check_backend(backend(recover=lies), device=lambda: fake)
    fake.reset()
    check_backend(backend(), device=lambda: fake)
    fake.scrap()


def test_another_version_than_asked_for_is_told() -> None:
    offer = offer_of(toy.Backend, versions=("1", "2"))
    check_backend(offer, version="1")
    with pytest.raises(BrokenContract, match="started version 1, asked for was 2") as caught:
        check_backend(offer, version="2")
    assert caught.value.clause == "backend-boots"


def test_a_host_that_stops_dma_at_death_is_what_a_dead_firmware_meets() -> None:
    fake = FakeGpu("fake:own")
    at: dict[str, bool] = {}

    def unload(self: Any) -> UnloadReport:
        at.setdefault(str(self.dead), fake.bus_master)
        return toy.Session.unload(self)

    check_backend(session(unload=unload), device=lambda: fake)
    assert at == {"None": True, "declared dead by the contract test": True, "unloaded": True}
    switched = [line for line in fake.log if line.startswith("bus master")]
    assert switched[:4] == [f"bus master {word}" for word in ("on", "on", "off", "on")]  # two starts, the death, before its unload
    assert switched.count("bus master off") == 1
    fake.scrap()


def test_a_firmware_with_memory_and_channels_passes() -> None:
    sessions, tenants = marked(FakeSession, FirmwareSession), marked(FakeTenant, Tenant)

    class Backend(FakeBackend):
        def open(self, context: Any) -> Any:
            made = super().open(context)
            made.__class__ = sessions
            return made

    def open_tenant(self: Any, label: str) -> Any:
        tenant = FakeSession.open_tenant(self, label)
        tenant.__class__ = tenants
        return tenant

    sessions.open_tenant = may_sleep(open_tenant)  # type: ignore[attr-defined]
    Backend.supports = FakeBackend.supports  # type: ignore[method-assign]
    made = follows(FirmwareBackend)(marked(Backend, FirmwareBackend))()
    check_backend(offer_of(lambda: made), in_name_only=("vgpu", "display"))
    asked = made.sessions[0].calls
    assert [call for call in asked if "channel" in call or "tenant" in call or "space" in call] == [
        "open-tenant", "create-space", "create-channel", "close-tenant contract",
    ]  # fmt: skip


@pytest.mark.nvcore_leaks("the mutant left something on purpose")
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_clause_is_named(name: str) -> None:
    clause, make = MUTANTS[name]
    with pytest.raises(BrokenContract) as caught:
        check_backend(make())
    assert caught.value.clause == clause, str(caught.value)
    assert CLAUSES[clause] in str(caught.value)


def test_every_clause_of_a_backend_has_a_mutant() -> None:
    assert {clause for clause, _ in MUTANTS.values()} == {name for name in CLAUSES if name.startswith("backend-")}
