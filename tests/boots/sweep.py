"""Every place where a boot touches a register, and every call that it makes, disturbed in five ways.

A place is (stage, register, direction); of a data port the first, the middle and the last access of the stage, of the firmware's doorbell
every one. The stages of the boot are followed by "attach": the inventory is read, functions are published, tenants are built; and, where
asked for, by those of the unload, whose places follow the same rules. A call is
disturbed in the same five ways: it is lost, done and not answered, or answered with zeros or ones where its data should be; the device that
leaves at a call leaves at its doorbell.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nvcore.api.inventory import Inventory
from nvcore.hw.registers import falcon as reg
from tests.boots.rig import Slot, SlotHost, Usage, differences, inventories_equal, leftovers, slot, until

KINDS = ("all-ones", "zero", "lost-write", "no-reply", "device-gone")
SPOILS = {"all-ones": "all-ones", "zero": "zero", "lost-write": "lost", "no-reply": "silent"}
SCALE = 0.001
UNLOAD = "unload: "
PROM = range(0x300000, 0x400000)
DOORBELL = reg.GSP_QUEUE_HEAD.address(reg.GSP)
PORTS = frozenset(
    [register.address(base) for register in (reg.IMEMD, reg.DMEMD, reg.IMEMT) for base in (reg.GSP, reg.SEC2)]
    + [reg.EMEMD.address(reg.FSP)]
)


class Case(NamedTuple):
    """One boot with one fault. before: the stage whose end arms it (None: armed from the start)."""

    stage: str
    what: str
    kind: str
    before: str | None
    fault: str

    @property
    def place_class(self) -> str:
        """What the counts are grouped by."""
        return f"{self.stage}: {self.what.split()[0]}"


class Undisturbed(NamedTuple):
    """What a boot touches when nothing is wrong, and what it ends in. unload: cases of the unload after it."""

    cases: tuple[Case, ...]
    unload: tuple[Case, ...]
    places: int
    calls: int
    inventory: Inventory


def undisturbed(chip: str, version: str, folder: Path) -> Undisturbed:
    """Record one boot."""
    seen: list[tuple[str, dict[tuple[int, bool], int]]] = []
    with slot(chip, version) as card:
        inspector = card.inspector
        card.at_stage = lambda stage: seen.append((stage, inspector.trace(True)))
        inspector.trace(True)
        host = card.host(folder, card.settings())
        host.host.start()
        try:
            assert host.settle() == "running", host.gpu.state.cause
            seen.append(("attach", inspector.trace(True)))
            assert host.gpu.hardware is not None
            inventory = host.gpu.hardware.inventory
            calls = sum(inspector.view()["gsp"]["functions"].values())
        finally:
            host.stop()
    cases: list[Case] = []
    places = 0
    before: str | None = None
    boot = 0
    for stage, counts in seen:
        for offset, write, nth, what in _places(counts):
            direction = "write" if write else "read"
            cases += [
                Case(stage, what, kind, before, f"{kind}:{offset:#x},{direction},{nth}") for kind in KINDS if write or kind != "lost-write"
            ]
            places += boot == 0
        before = stage
        if stage == "attach":
            boot = len(cases)
    unload = [case._replace(stage=f"{UNLOAD}{case.stage}") for case in cases[boot:]]
    cases = cases[:boot]
    cases += [Case("calls", f"call {n}", kind, None, f"rpc-spoil:{how},{n}") for n in range(1, calls + 1) for kind, how in SPOILS.items()]
    return Undisturbed(tuple(cases), tuple(unload), places, calls, inventory)


def _places(counts: dict[tuple[int, bool], int]) -> list[tuple[int, bool, int, str]]:
    """(register, write, nth access, words) of one stage."""
    rom = [key for key in counts if key[0] in PROM]  # the words of the ROM are one data port, read at addresses that follow one another
    found: list[tuple[int, bool, int, str]] = [
        (rom[at][0], False, 1, f"PROM {name}") for at, name in ((0, "first"), (len(rom) // 2, "middle"), (-1, "last")) if rom
    ]
    for (offset, write), number in counts.items():
        direction = "write" if write else "read"
        if offset in PROM:
            continue
        if (offset, write) == (DOORBELL, True):
            found += [(offset, True, nth, f"doorbell {nth}") for nth in range(1, number + 1)]
        elif offset in PORTS and number > 1:
            found += [(offset, write, nth, f"port {offset:#x} {direction} {nth}") for nth in sorted({1, (number + 1) // 2, number})]
        else:
            found.append((offset, write, 1, f"register {offset:#x} {direction}"))
    return found


class Summary:
    """The end of a run of pytest tells how many places, calls and cases each sweep had, and how they ended: a line a sweep."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("disturbed boots: how many ended how")
        for line in self.lines:
            terminalreporter.line(line)


class Tally:
    """Outcomes of many cases."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.by_class: dict[str, Counter[str]] = {}
        self.failures: list[str] = []
        self.seconds: dict[str, float] = {}

    def add(self, case: Case, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self.by_class.setdefault(f"{case.place_class} {case.kind}", Counter())[outcome] += 1

    def report(self, config: pytest.Config, what: str) -> None:
        """Have the counts printed at the end of the run, whatever becomes of the test."""
        summary = config.pluginmanager.get_plugin("boot-sweep") or Summary()
        if not config.pluginmanager.is_registered(summary):
            config.pluginmanager.register(summary, "boot-sweep")
        summary.lines.append(f"{what}: " + ", ".join(f"{number} {outcome}" for outcome, number in self.outcomes.most_common()))

    def lines(self) -> list[str]:
        """For people: what is harmless and what is not, per class of places."""
        return [
            f"{name}: " + ", ".join(f"{number} {outcome}" for outcome, number in counts.items()) for name, counts in self.by_class.items()
        ]


def run(chip: str, version: str, cases: list[Case], reference: Inventory, folder: Path, *, again: bool) -> Tally:
    """Boot once per case. again: after each case prove that the card boots for a second host."""
    tally = Tally()
    for case in cases:
        before = Usage(collect=False)
        begin = time.monotonic()
        words = f"{case.stage}, {case.what}, {case.fault}"
        try:
            with slot(chip, version) as card:
                tally.add(case, _one(card, case, reference, folder, again))
            left = Usage(collect=False).more(before)
            give_up = time.monotonic() + 2.0
            while left and time.monotonic() < give_up:
                left = Usage().more(before)
            assert not left, f"left behind: {left}"
        except Exception as error:  # every failure of every case is told at the end
            tally.failures.append(f"{words}: {type(error).__name__}: {str(error)[:400]}")
        tally.seconds[f"{case.stage} {case.kind}"] = tally.seconds.get(f"{case.stage} {case.kind}", 0.0) + time.monotonic() - begin
    return tally


def _one(card: Slot, case: Case, reference: Inventory, folder: Path, again: bool) -> str:
    inspector = card.inspector
    if case.before is None:
        inspector.arm(case.fault)
    else:
        card.at_stage = lambda stage: inspector.arm(case.fault) if stage == case.before else None
    host = card.host(folder, card.settings(SCALE, quiesce=2.0, call=5.0))
    host.host.start()
    try:
        host.settle()
        if card.card.model.watch.gone:
            until(lambda: host.settle() in ("lost", "unsupported"), f"the device is gone and the GPU is {host.gpu.state.name}", 3.0)
        outcome = _judge(host, reference)
        gone = card.card.model.watch.gone
        differ = [] if gone else differences(host)
        assert not differ, f"{outcome} ({host.gpu.state.cause}): {differ}"
        if case.before == "attach":
            inspector.arm(case.fault)
    finally:
        hung = host.stop()
    assert hung == [], hung
    gone = card.card.model.watch.gone
    acted = bool(inspector.faults_acted())
    if case.stage.startswith(UNLOAD):
        report = host.gpu.unload_report
        assert report is not None and (report.clean or report.cause), report
        outcome = "gone, the host released" if gone else "clean" if report.clean else "not clean, and said"
    holder = card.card.holder
    assert holder is None or all(buffer.closed for buffer in holder._buffers), "the host still holds the device"
    if not gone:
        inspector.disarm()
        card.at_stage = lambda stage: None
        left = leftovers(inspector.view())
        if left:
            outcome += ", needs a reset"
            assert needs_reset(host), f"left on the device, and not said: {left}"
        if again or left:
            _boots_again(card, reference, folder)
    return outcome if acted else "not reached"


def needs_reset(host: SlotHost) -> bool:
    """Whether the host said that the device needs a reset."""
    gpu = host.gpu
    if gpu.unload_report is not None:
        return gpu.unload_report.needs_reset
    said = [event.text + (event.action or "") for event in host.host.events.since() if event.kind == "state"]
    return any("reset" in text for text in said)


def _judge(host: SlotHost, reference: Inventory) -> str:
    gpu = host.gpu
    state = gpu.state
    if state.name == "running":
        assert gpu.hardware is not None
        assert inventories_equal(gpu.hardware.inventory, reference), _inventory_difference(gpu.hardware.inventory, reference)
        if host.host.problems:
            _clients_are_named(host)
            return "named client"
        return "harmless" if gpu.generation == 1 else "recovered"
    assert state.name in ("failed", "lost", "unsupported"), state.name
    assert state.cause and state.code and state.remedy, (state.name, state.cause, state.code, state.remedy)
    assert "Traceback" not in state.cause and state.code != "NVC-1000", state.cause
    return f"named {state.name}"


def _clients_are_named(host: SlotHost) -> None:
    """The boot is the same and the disturbance met a client's own calls: it is left out by name, with cause and code, its function free."""
    gpu, told = host.gpu, host.host.events.since()
    for name, cause in host.host.problems.items():
        assert cause and "Traceback" not in cause, cause
        words = cause.removeprefix("probe failed: ")
        failed = [event for event in told if event.owner == name and event.text.startswith(f"{name} failed on") and words in event.text]
        assert failed and failed[0].kind == "client" and failed[0].code not in (None, "NVC-1000"), (name, cause, failed)
        assert any(event.owner == name and event.action == "revoked" for event in told), f"{name} keeps something"
        driver = next(driver for driver in host.drivers if driver.name == name)
        assert [function.owner for function in gpu.functions if function.kind == driver.kind] == [None], f"{name} still owns a function"
        assert name not in [attachment.name for attachment in gpu.attachments]


def _inventory_difference(one: Inventory, two: Inventory) -> str:
    import attrs

    first, second = attrs.asdict(one), attrs.asdict(two)
    return "another inventory: " + "; ".join(f"{key} {first[key]} for {second[key]}" for key in first if first[key] != second[key])[:300]


def _boots_again(card: Slot, reference: Inventory, folder: Path) -> None:
    """Whatever happened, the card can be had again: at once, or by the reset that the report asks for."""
    host = card.host(folder, card.settings())
    host.host.start()
    try:
        if host.settle() != "running":
            host.host.reset(card.source)
        assert host.settle() == "running", f"does not boot again: {host.gpu.state.cause}"
        assert host.gpu.hardware is not None and inventories_equal(host.gpu.hardware.inventory, reference)
        assert not differences(host)
    finally:
        hung = host.stop()
    report: Any = host.gpu.unload_report
    assert hung == [] and report is not None and report.clean, (hung, report)
    assert not leftovers(card.inspector.view())
